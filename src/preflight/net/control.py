"""The control connection over TCP with mutual TLS: how a coordinator reaches an agent's port."""

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal

from preflight.errors import PreflightError
from preflight.model.observation import Reason
from preflight.net.binding import BindDenied, PortOccupied, bind_listener
from preflight.net.conversation import (
    AgentEnd,
    ConversationEnded,
    CoordinatorEnd,
    agent_end,
    coordinator_end,
)

log = logging.getLogger("preflight.control")

RETRY_INTERVAL = 1.0
"""Seconds between attempts, each with a SYN of its own: on a lossy path the kernel's own
retransmission backs off longer than we are willing to wait."""
HANDSHAKE_PATIENCE = 10.0
SEGMENT_SIZE = 536
"""Bytes of data in one packet of a control connection (RFC 9293, 3.7.1: what every path takes).
A path that loses large packets is among the faults that a run is to report, so that the run
itself must not need them."""
MAX_STRANGERS = 64
"""Connections at once that have not shown a certificate of this cluster yet."""
MAX_CONVERSATIONS = 64
"""Authenticated connections at once. One holds the lease; the others are told who."""
_ACCEPT_PAUSE = 0.2
"""Seconds before accepting again, where no descriptor was left for it."""


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
        await _cancel(attempts)
        if dialling.won.done():
            return dialling.won.result()
    except BaseException:  # cancelled, perhaps just when an attempt had won
        await _cancel(attempts)
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
            self._connected = True
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


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


class ControlListener:
    """An agent's control port. Each authenticated connection becomes a conversation.

    Anybody can connect. Whoever has shown no certificate yet is a stranger; of these there is
    a bounded number, and the oldest makes room for the newest, so that no crowd of silent
    connections keeps the coordinator out, whose handshake takes milliseconds.
    """

    def __init__(
        self, context: ssl.SSLContext, converse: Callable[[AgentEnd], Awaitable[None]]
    ) -> None:
        self._context = context
        self._converse = converse
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._strangers: dict[asyncio.Task[None], None] = {}  # in order of arrival
        self._conversations: set[asyncio.Task[None]] = set()

    async def start(self, host: str | None, port: int) -> None:
        """Listen; on all addresses of both families where `host` is None.

        Raises `PreflightError` where the port can't be had.
        """
        self._listening = _listen(host, port)
        self._accepting = [asyncio.create_task(self._accept(one)) for one in self._listening]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, as `address:port`."""
        names = [one.getsockname() for one in self._listening]
        return tuple(
            f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names
        )

    async def close(self) -> None:
        """Close the port and end every conversation."""
        await _cancel(self._accepting)
        for one in self._listening:
            one.close()
        self._listening = []
        await _cancel([*self._strangers, *self._conversations])

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    log.warning("a connection could not be accepted: %s", error.strerror)
                    self._drop_oldest_stranger()
                    await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if len(self._strangers) >= MAX_STRANGERS:
                self._drop_oldest_stranger()
            task = asyncio.create_task(self._take(connection, str(name[0])))
            self._strangers[task] = None
            task.add_done_callback(self._forget)

    def _drop_oldest_stranger(self) -> None:
        oldest = next(iter(self._strangers), None)
        if oldest is not None:
            del self._strangers[oldest]
            oldest.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._conversations.discard(task)

    async def _take(self, connection: socket.socket, remote: str) -> None:
        """One connection, from its handshake to its end."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_PATIENCE,
            )
        except OSError as error:
            log.info("%s is no coordinator of this cluster: %s", remote, _no_handshake(error))
            return
        conversation = agent_end(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        try:
            task = asyncio.current_task()
            assert task is not None  # started by `_accept`
            self._strangers.pop(task, None)
            if len(self._conversations) < MAX_CONVERSATIONS:
                self._conversations.add(task)
                # Its end is the agent's business, and the agent has logged it.
                with contextlib.suppress(ConversationEnded, PreflightError):
                    await self._converse(conversation)
        finally:
            await conversation.close()


def _listen(host: str | None, port: int) -> list[socket.socket]:
    listening: list[socket.socket] = []
    try:
        for address in ("0.0.0.0", "::") if host is None else (host,):  # noqa: S104 - as asked for
            try:
                listening.append(bind_listener("tcp", address, port))
            except BindDenied:
                if not listening:
                    raise
                log.info("the control port is on IPv4 only: this machine has no IPv6")
    except (PortOccupied, BindDenied, PreflightError) as error:
        for one in listening:
            one.close()
        where = f"{host or 'all addresses'}, port {port}"
        reason = "it is in use" if isinstance(error, PortOccupied) else str(error)
        raise PreflightError(f"the control port can't be opened on {where}: {reason}") from error
    return listening


def _no_handshake(error: OSError) -> str:
    """Why a stranger stayed one, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is another's ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "ALERT" in reason:
            return "it does not accept this agent's certificate: it has another cluster's key"
        return f"it does not speak our TLS ({reason or 'no reason'})"
    if isinstance(error, ConnectionAbortedError):
        return f"no TLS handshake within {HANDSHAKE_PATIENCE:g} s"
    return (
        "it closed the connection during the TLS handshake: it has another cluster's key, or "
        "large packets of this agent's do not reach it"
    )
