"""All UDP listeners of an agent, in the event loop.

Each socket is bound to one literal address, so that an answer leaves from the address that was
asked, and not connected, so that the kernel gives it no ICMP errors of anybody's. A stream waits
for the first datagram; what else is there then is read from the socket in one go, because the
event loop alone would take one a turn, and a flood would get ahead of it.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from asyncio_dgram import TransportClosed, from_socket
from asyncio_dgram.aio import DatagramServer

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
CLOSING_SECONDS = 1.0


class _Held(NamedTuple):
    listener: Listener
    bound: socket.socket
    stream: DatagramServer
    task: asyncio.Task[None]


class UdpListeners:
    """Holds bound sockets and answers on them. For use in one event loop."""

    def __init__(self, identity: Identity, journal: Journal) -> None:
        self._identity = identity
        self._journal = journal
        self._held: list[_Held] = []

    async def add(self, bound: socket.socket, listener: Listener) -> None:
        """Answer on this socket from now on. It is ours to close."""
        try:
            stream = await from_socket(bound)
        except BaseException:
            bound.close()
            raise
        assert isinstance(stream, DatagramServer)  # it is not connected
        task = asyncio.create_task(self._answer_all(stream, bound, listener))
        self._held.append(_Held(listener, bound, stream, task))

    def held(self) -> Iterator[tuple[Listener, int]]:
        """Every listener that answers now, and how many datagrams the kernel dropped there."""
        for held in self._held:
            if not held.task.done():
                yield held.listener, kernel_drops(held.bound)

    async def stop(self) -> None:
        """Close everything. May be repeated."""
        held, self._held = self._held, []
        for one in held:
            one.stream.close()
        if held:
            # Each task ends when its socket is closed.
            await asyncio.wait([one.task for one in held], timeout=CLOSING_SECONDS)

    async def _answer_all(
        self, stream: DatagramServer, bound: socket.socket, listener: Listener
    ) -> None:
        allowance = _Allowance()
        while True:
            try:
                data, source = await stream.recv()
                assert isinstance(source, tuple)  # as for every IP socket
                self._take(data, source, bound, listener, allowance)
                for _ in range(BATCH - 1):
                    # One byte more than a challenge may have: whatever is longer is none.
                    data, source = bound.recvfrom(MAX_SIZE + 1)
                    self._take(data, source, bound, listener, allowance)
            except BlockingIOError:  # that was all
                pass
            except TransportClosed:
                return
            except OSError as error:  # the socket is as good as before
                log.debug("udp %s:%d: %s", listener.address, listener.port, error)

    def _take(
        self,
        data: bytes,
        source: tuple[Any, ...],
        bound: socket.socket,
        listener: Listener,
        allowance: "_Allowance",
    ) -> None:
        listener.accepted += 1
        found = self._read(data, listener, source)
        if found is None:
            return
        challenge, seen = found
        if allowance.take():
            self._answer(bound, challenge, seen, source)
        else:
            listener.dropped += 1

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
