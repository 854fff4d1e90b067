"""All UDP listeners of an agent, in the event loop.

Each socket is bound to one literal address, so that an answer leaves from the address that was
asked, and not connected, so that the kernel gives it no ICMP errors of anybody's. A socket
that is ready is read in batches, so that a flood costs a few microseconds a datagram, and one
flooded socket gives the others their turn.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

from preflight.net.answering import Identity
from preflight.net.binding import kernel_drops
from preflight.net.journal import Journal, Listener, Seen
from preflight.wire.challenge import MAX_SIZE, Challenge, NotOurs

log = logging.getLogger("preflight.net")

ANSWERS_PER_SECOND = 5_000.0
"""Bound on the answers of one socket: a recorded challenge can't be used to flood somebody."""
ANSWER_BURST = 10_000.0
"""500 sources with 20 datagrams each, all at once."""
BATCH = 64
"""Datagrams read from one socket before the event loop looks at anything else."""


class UdpListeners:
    """Holds bound sockets and answers on them. For use in one event loop."""

    def __init__(self, identity: Identity, journal: Journal) -> None:
        self._identity = identity
        self._journal = journal
        self._held: list[tuple[socket.socket, Listener]] = []

    def add(self, bound: socket.socket, listener: Listener) -> None:
        """Answer on this socket from now on. It is ours to close."""
        loop = asyncio.get_running_loop()
        loop.add_reader(bound, self._answer_batch, bound, listener, _Allowance())
        self._held.append((bound, listener))

    def held(self) -> Iterator[tuple[Listener, int]]:
        """Every listener that answers now, and how many datagrams the kernel dropped there."""
        for bound, listener in self._held:
            yield listener, kernel_drops(bound)

    def stop(self) -> None:
        """Close everything. May be repeated."""
        held, self._held = self._held, []
        for bound, _ in held:
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()

    def _answer_batch(
        self, bound: socket.socket, listener: Listener, allowance: "_Allowance"
    ) -> None:
        try:
            for _ in range(BATCH):
                # One byte more than a challenge may have: whatever is longer is none.
                data, source = bound.recvfrom(MAX_SIZE + 1)
                listener.accepted += 1
                found = self._read(data, listener, source)
                if found is None:
                    continue
                challenge, seen = found
                if allowance.take():
                    self._answer(bound, challenge, seen, source)
                else:
                    listener.dropped += 1
        except BlockingIOError:  # that was all
            pass
        except OSError as error:  # the socket is as good as before
            log.debug("udp %s:%d: %s", listener.address, listener.port, error)

    def _read(
        self, data: bytes, listener: Listener, source: tuple[Any, ...]
    ) -> tuple[Challenge, Seen] | None:
        """None for what is no challenge of ours: it gets nothing."""
        try:
            challenge = self._identity.read(data)
        except NotOurs:
            return None
        if challenge is None:  # cut short, and a datagram can't be continued
            return None
        address, port, *_ = source
        seen = Seen(listener, address.partition("%")[0], port)
        self._journal.claim(seen, challenge.probe_id)
        return challenge, seen

    def _answer(
        self, bound: socket.socket, challenge: Challenge, seen: Seen, source: tuple[Any, ...]
    ) -> None:
        """It counts as answered if it left, as far as the kernel says."""
        try:
            bound.sendto(self._identity.answer(challenge, seen), source)
        except BlockingIOError:  # no room in the socket: our own limit
            seen.listener.dropped += 1
        except OSError as error:  # EPERM is this host's own firewall
            log.debug("udp %s:%d: %s", seen.listener.address, seen.listener.port, error)
        else:
            self._journal.note_answered(seen)


class _Allowance:
    """A token bucket: `ANSWERS_PER_SECOND`, and `ANSWER_BURST` at once."""

    def __init__(self) -> None:
        self._tokens = ANSWER_BURST
        self._filled = time.monotonic()

    def take(self) -> bool:
        """Whether one more answer may be given now."""
        now = time.monotonic()
        grown = self._tokens + (now - self._filled) * ANSWERS_PER_SECOND
        self._tokens, self._filled = min(ANSWER_BURST, grown), now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
