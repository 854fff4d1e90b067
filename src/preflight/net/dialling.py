"""The coordinator's side of a control connection: how it reaches an agent's port."""

import asyncio
import errno
import math
import os
import socket
import ssl
from typing import Literal

from preflight.model.observation import Reason
from preflight.net.conversation import CoordinatorEnd, coordinator_end
from preflight.net.ending import cancel_all
from preflight.net.tls import HANDSHAKE_PATIENCE

RETRY_INTERVAL = 1.0
"""Seconds between attempts, each with a SYN of its own: on a lossy path the kernel's own
retransmission backs off longer than we are willing to wait."""
SEGMENT_SIZE = 536
"""Bytes of data in one packet of a control connection (RFC 9293, 3.7.1: what every path takes).
A path that loses large packets is among the faults that a run is to report, so that the run
itself must not need them."""


class DialFailed(Exception):
    """No conversation with an agent; `state` is the one to report, the message says why."""

    def __init__(
        self,
        state: Literal["unreachable", "refused"],
        detail: str,
        reason: Reason = Reason.OTHER,
    ) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail
        self.reason = reason


def descriptors_for_dialling(agents: int, patience: float) -> int:
    """How many open files it takes at most to dial so many agents at once for `patience` s."""
    return agents * (math.ceil(patience / RETRY_INTERVAL) + 1)


async def dial_agent(
    host: str, port: int, context: ssl.SSLContext, patience: float
) -> CoordinatorEnd:
    """Connect to an agent's control port, trying again each second until `patience` is over.

    Attempts overlap: the first that completes its handshake wins. An answer that can't change
    (another key) ends it at once; a refused connection may be an agent that is just starting.
    Raises `DialFailed`.
    """
    dialling = _Dialling(host, port, context)
    attempts: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    try:
        while not dialling.won.done() and (left := end - loop.time()) > 0:
            attempts.append(asyncio.create_task(dialling.attempt()))
            await asyncio.wait((dialling.won,), timeout=min(RETRY_INTERVAL, left))
        await cancel_all(attempts)
        if dialling.won.done():
            return dialling.won.result()
    except BaseException:  # cancelled, perhaps just when an attempt had won
        await cancel_all(attempts)
        if dialling.won.done() and dialling.won.exception() is None:
            dialling.won.result().abort()
        raise
    raise dialling.failed or dialling.silence(patience)


class _Dialling:
    """Attempts at one agent that overlap, and what came of them."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.won: asyncio.Future[CoordinatorEnd] = asyncio.get_running_loop().create_future()
        """The first conversation, or what makes further attempts useless."""
        self.failed: DialFailed | None = None
        """How the last attempt failed that did."""
        self._address = (host, port)
        self._context = context
        self._connected = False

    def silence(self, patience: float) -> DialFailed:
        """What to say when no attempt came to an end."""
        if self._connected:
            return DialFailed(
                "unreachable",
                f"{self.place} takes connections, and no TLS handshake came to an end within "
                f"{patience:g} s: something on the way holds it back, or the agent stands still",
                Reason.STALLED,
            )
        return DialFailed("unreachable", f"no answer from {self.place} within {patience:g} s")

    async def attempt(self) -> None:
        """Try once. Raises nothing: what counts is in `won` and `failed`."""
        try:
            sock = await _connect(*self._address, self.place)
            # What failed before is over: the agent was just starting, for example.
            self._connected, self.failed = True, None
            conversation = await _shake_hands(sock, self._address[0], self._context, self.place)
        except DialFailed as failed:
            self.failed = failed
            if failed.state == "refused" and not self.won.done():
                self.won.set_exception(failed)
        except Exception as unexpected:  # noqa: BLE001 - raised again in whoever dials
            if not self.won.done():
                self.won.set_exception(unexpected)
        else:
            if self.won.done():
                conversation.abort()
            else:
                self.won.set_result(conversation)


async def _connect(host: str, port: int, place: str) -> socket.socket:
    """One TCP connection of small segments. Raises `DialFailed`."""
    loop = asyncio.get_running_loop()
    sock: socket.socket | None = None
    try:
        # A literal address, so that this looks nothing up: it finds the scope of fe80::1%eth0.
        ((family, _, _, _, name), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # It is told to the other side with the SYN, and so holds for both directions.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_SIZE)
        await loop.sock_connect(sock, name)
    except BaseException as error:  # cancelled as well
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise _unreachable(error, place) from error
        raise
    return sock


def _unreachable(error: OSError, place: str) -> DialFailed:
    reason = Reason.NO_HOST if error.errno == errno.EHOSTUNREACH else Reason.OTHER
    return DialFailed("unreachable", _explain(error, place), reason)


async def _shake_hands(
    sock: socket.socket, host: str, context: ssl.SSLContext, place: str
) -> CoordinatorEnd:
    """A conversation over this connection, which is ours to close. Raises `DialFailed`."""
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=HANDSHAKE_PATIENCE,
        )
    except ssl.SSLCertVerificationError as error:
        raise DialFailed(
            "refused",
            f"what answers on {place} does not have this cluster's key "
            f"({error.verify_message}): was the agent started with another key file?",
            Reason.KEY,
        ) from error
    except ssl.SSLError as error:
        raise DialFailed(
            "refused",
            f"what answers on {place} is no preflight agent ({error.reason})",
            Reason.NOT_AN_AGENT,
        ) from error
    except OSError as error:
        raise _unreachable(error, place) from error
    return coordinator_end(reader, writer)


def _explain(error: OSError, place: str) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return f"connection to {place} was refused: is `preflight serve` running there?"
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            # asyncio words the errors of `connect` itself: the kernel's own words say more.
            return f"{place} can't be reached: {os.strerror(error.errno)}"
        case errno.ETIMEDOUT:
            return f"no answer from {place}"
        case errno.ECONNRESET | None:
            return f"{place} closed the connection during the TLS handshake"
        case _:
            return f"connection to {place} failed: {os.strerror(error.errno)}"
