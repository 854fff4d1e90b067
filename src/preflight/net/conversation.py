"""A conversation of messages over any byte stream: TLS over TCP, a pipe, or a pair of sockets.

It knows nothing of TLS or TCP, so that an agent inside the coordinator, one over SSH and one
behind the control port are spoken to in the same way.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from preflight.wire.messages import (
    PREFIX,
    ToAgent,
    ToCoordinator,
    check_length,
    decode_for_agent,
    decode_for_coordinator,
    encode_message,
)

Sent = TypeVar("Sent", bound=ToAgent | ToCoordinator)
Received = TypeVar("Received", bound=ToAgent | ToCoordinator)

CLOSE_PATIENCE = 1.0
"""Seconds that an orderly close may take before the connection is simply dropped."""


class ConversationEnded(Exception):
    """The other end is gone; the message says how."""


class Conversation(Generic[Sent, Received]):
    """One end of a control conversation."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decode: Callable[[bytes], Received],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decode: Callable[[bytes], Received] = decode
        # Asked now, because a TLS transport may not know any more when it is closed.
        self.local_address: str | None = _address(writer, "sockname")
        """The address on which this connection came in, None where it has none (a pipe)."""
        self.remote: str = _address(writer, "peername") or "this process"
        """Who is at the other end, for people."""

    async def send(self, message: Sent) -> None:
        """Send one message. Raises `ConversationEnded`."""
        data = encode_message(message)
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise ConversationEnded(describe_end(error)) from error

    async def receive(self) -> Received:
        """The next message. Raises `ConversationEnded`, or `WireError` for what is none of ours."""
        try:
            length = check_length(await self._reader.readexactly(PREFIX.size))
            body = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ConversationEnded("the connection was closed") from error
        except OSError as error:
            raise ConversationEnded(describe_end(error)) from error
        return self._decode(body)

    async def close(self) -> None:
        """Close, in order if that is possible within `CLOSE_PATIENCE`."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self._writer.wait_closed()
        except OSError:
            pass  # out of time (that is an OSError too), or the other end had gone before
        finally:
            self.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    def abort(self) -> None:
        """Drop the connection: what is unsent is lost. May be called again."""
        # Python 3.11.2 (Debian 12): a TLS transport that was closed twice, by its other end and
        # by us, has forgotten its protocol, and stumbles over that.
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()


def _address(writer: asyncio.StreamWriter, end: Literal["sockname", "peername"]) -> str | None:
    name = writer.get_extra_info(end)
    if isinstance(name, tuple):
        # A dual-stack listener shows IPv4 as ::ffff:10.0.0.1, which nobody can bind.
        return str(name[0]).removeprefix("::ffff:").partition("%")[0]
    return None


CoordinatorEnd = Conversation[ToAgent, ToCoordinator]
AgentEnd = Conversation[ToCoordinator, ToAgent]


def coordinator_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> CoordinatorEnd:
    """The coordinator's end over this stream."""
    return Conversation(reader, writer, decode_for_coordinator)


def agent_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AgentEnd:
    """The agent's end over this stream."""
    return Conversation(reader, writer, decode_for_agent)


async def conversation_in_process() -> tuple[CoordinatorEnd, AgentEnd]:
    """Both ends of a conversation inside this process: an embedded agent, or a test."""
    left, right = socket.socketpair()
    return (
        coordinator_end(*await asyncio.open_connection(sock=left)),
        agent_end(*await asyncio.open_connection(sock=right)),
    )


def describe_end(error: OSError) -> str:
    """How a connection ended, in words."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    return f"the connection failed: {error.strerror or error}"
