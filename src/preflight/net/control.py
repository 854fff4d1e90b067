"""An agent's control port: TCP with mutual TLS. How it is reached: `net/dialling.py`."""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from preflight.errors import PreflightError
from preflight.net.binding import BindDenied, PortOccupied, bind_listener
from preflight.net.conversation import AgentEnd, ConversationEnded, agent_end
from preflight.net.ending import cancel_all
from preflight.net.tls import HANDSHAKE_PATIENCE

log = logging.getLogger("preflight.control")

MAX_STRANGERS = 64
"""Connections at once that have not shown a certificate of this cluster yet."""
MAX_CONVERSATIONS = 64
"""Authenticated connections at once. One holds the lease; the others are told who."""
_ACCEPT_PAUSE = 0.2
"""Seconds before accepting again, where no descriptor was left for it."""


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
        await cancel_all(self._accepting)
        for one in self._listening:
            one.close()
        self._listening = []
        await cancel_all([*self._strangers, *self._conversations])

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
