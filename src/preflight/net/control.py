"""The control connection over TCP with mutual TLS: how a coordinator reaches an agent's port."""

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal

from preflight.errors import PreflightError
from preflight.net.conversation import (
    AgentEnd,
    ConversationEnded,
    CoordinatorEnd,
    agent_end,
    coordinator_end,
)

RETRY_INTERVAL = 1.0
"""Seconds between attempts, each with a SYN of its own: on a lossy path the kernel's own
retransmission backs off longer than we are willing to wait."""
HANDSHAKE_PATIENCE = 10.0
MAX_PENDING = 64
"""Connections that may be in the TLS handshake or before their first message at once."""


class DialFailed(Exception):
    """No conversation with an agent; `state` is the one to report, the message says why."""

    def __init__(self, state: Literal["unreachable", "refused"], detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


async def dial_agent(
    host: str, port: int, context: ssl.SSLContext, patience: float
) -> CoordinatorEnd:
    """Connect to an agent's control port, trying again each second until `patience` is over.

    Attempts overlap: the first that completes its handshake wins. An answer that can't change
    (another key) ends it at once; a refused connection may be an agent that is just starting.
    Raises `DialFailed`.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    attempts: set[asyncio.Task[CoordinatorEnd]] = set()
    last = DialFailed("unreachable", f"no answer from {place} within {patience:g} s")
    end = asyncio.get_running_loop().time() + patience
    try:
        while (left := end - asyncio.get_running_loop().time()) > 0:
            attempts.add(asyncio.create_task(_dial_once(host, port, context, place)))
            # The last attempts may use what is left; the others make room after a second.
            done, attempts = await asyncio.wait(attempts, timeout=min(RETRY_INTERVAL, left))
            began = asyncio.get_running_loop().time()
            for task in done:
                if (failed := task.exception()) is None:
                    return task.result()
                if not isinstance(failed, DialFailed):
                    raise failed
                last = failed
                if failed.state == "refused":
                    raise failed
            if done and not attempts:
                await asyncio.sleep(min(RETRY_INTERVAL, max(0.0, end - began)))
    finally:
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
    raise last


async def _dial_once(host: str, port: int, context: ssl.SSLContext, place: str) -> CoordinatorEnd:
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_PATIENCE
        )
    except ssl.SSLCertVerificationError as error:
        raise DialFailed(
            "refused",
            f"what answers on {place} does not have this cluster's key "
            f"({error.verify_message}): was the agent started with another key file?",
        ) from error
    except ssl.SSLError as error:
        raise DialFailed(
            "refused", f"what answers on {place} is no preflight agent ({error.reason})"
        ) from error
    except OSError as error:
        raise DialFailed("unreachable", _explain(error, place)) from error
    return coordinator_end(reader, writer)


def _explain(error: OSError, place: str) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return f"connection to {place} was refused: is `preflight serve` running there?"
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            return f"{place} can't be reached: {error.strerror}"
        case errno.ETIMEDOUT:
            return f"no answer from {place}"
        case errno.ECONNRESET | None:
            return f"{place} closed the connection during the TLS handshake"
        case _:
            return f"connection to {place} failed: {error.strerror or error}"


class ControlListener:
    """An agent's control port. Each authenticated connection becomes a conversation."""

    def __init__(
        self, context: ssl.SSLContext, converse: Callable[[AgentEnd], Awaitable[None]]
    ) -> None:
        self._context = context
        self._converse = converse
        self._conversations: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str | None, port: int) -> None:
        """Listen; on all addresses of both families where `host` is None.

        Raises `PreflightError` where the port can't be had.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept,
                host,
                port,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_PATIENCE,
                backlog=MAX_PENDING,
            )
        except OSError as error:
            where = f"{host or 'all addresses'}, port {port}"
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise PreflightError(
                f"the control port can't be opened on {where}: {reason}"
            ) from error

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, as `address:port`."""
        sockets = self._server.sockets if self._server else ()
        names = [one.getsockname() for one in sockets]
        return tuple(
            f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names
        )

    async def close(self) -> None:
        """Close the port and end every conversation."""
        if self._server is not None:
            self._server.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a stream callback runs as a task
        if len(self._conversations) >= MAX_PENDING:
            writer.transport.abort()
            return
        self._conversations.add(task)
        conversation = agent_end(reader, writer)
        try:
            await self._converse(conversation)
        except (ConversationEnded, PreflightError):
            # Its end is the agent's business, and the agent has logged it.
            pass
        finally:
            self._conversations.discard(task)
            await conversation.close()
