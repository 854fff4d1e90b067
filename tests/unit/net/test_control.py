"""The control connection over real TLS on loopback: who gets in, and what the others are told."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from preflight.errors import PreflightError
from preflight.model.observation import Reason
from preflight.net import dialling
from preflight.net.control import ControlListener
from preflight.net.conversation import AgentEnd, ConversationEnded
from preflight.net.dialling import SEGMENT_SIZE, DialFailed, dial_agent
from preflight.net.keys import (
    AgentKey,
    CoordinatorKey,
    load_agent_key,
    load_coordinator_key,
    write_keys,
)
from preflight.net.tls import agent_context, coordinator_context
from preflight.wire.messages import Beat

HOST = "127.77.3.1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[CoordinatorKey, AgentKey]:
    return make_keys(tmp_path_factory.mktemp("keys"))


def make_keys(folder: Path) -> tuple[CoordinatorKey, AgentKey]:
    write_keys(folder / "c.key")
    return load_coordinator_key(folder / "c.key"), load_agent_key(folder / "c.agent.key")


async def echo(conversation: AgentEnd) -> None:
    while True:
        await conversation.receive()
        await conversation.send(Beat())


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    listener = ControlListener(context, echo)
    await listener.start(HOST, 0)
    try:
        yield int(listener.addresses[0].rpartition(":")[2])
    finally:
        await listener.close()


async def test_both_ends_with_the_clusters_key(keys: tuple[CoordinatorKey, AgentKey]) -> None:
    async with listening(agent_context(keys[1])) as port:
        conversation = await dial_agent(HOST, port, coordinator_context(keys[0]), 2.0)
        await conversation.send(Beat())
        assert await conversation.receive() == Beat()
        assert conversation.remote == HOST
        await conversation.close()


async def test_an_agent_of_another_cluster_is_refused(
    keys: tuple[CoordinatorKey, AgentKey], tmp_path: Path
) -> None:
    _, other = make_keys(tmp_path)
    async with listening(agent_context(other)) as port:
        with pytest.raises(DialFailed, match="does not have this cluster's key") as failed:
            await dial_agent(HOST, port, coordinator_context(keys[0]), 2.0)
        assert (failed.value.state, failed.value.reason) == ("refused", Reason.KEY)


async def test_an_agents_key_commands_nobody(keys: tuple[CoordinatorKey, AgentKey]) -> None:
    """A stolen node's file: TLS 1.3 tells the one who calls only after its own handshake."""
    stolen = CoordinatorKey(**{name: getattr(keys[1], name) for name in keys[1].__struct_fields__})
    async with listening(agent_context(keys[1])) as port:
        conversation = await dial_agent(HOST, port, coordinator_context(stolen), 2.0)
        with pytest.raises(ConversationEnded):
            await conversation.receive()
        await conversation.close()


async def test_what_is_no_agent(keys: tuple[CoordinatorKey, AgentKey]) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        with pytest.raises(DialFailed, match="no preflight agent") as failed:
            await dial_agent(HOST, port, coordinator_context(keys[0]), 2.0)
        assert (failed.value.state, failed.value.reason) == ("refused", Reason.NOT_AN_AGENT)


async def test_nobody_there_says_what_to_do(keys: tuple[CoordinatorKey, AgentKey]) -> None:
    with pytest.raises(DialFailed, match="preflight serve") as failed:
        await dial_agent(HOST, 1, coordinator_context(keys[0]), 0.2)
    assert failed.value.state == "unreachable"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EHOSTUNREACH, Reason.NO_HOST), (errno.ENETUNREACH, Reason.OTHER)],
)
async def test_an_address_that_nothing_leads_to(
    keys: tuple[CoordinatorKey, AgentKey],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    reason: Reason,
) -> None:
    async def unreachable(*_: object, **__: object) -> None:
        raise OSError(code, "Connect call failed")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", unreachable)
    with pytest.raises(DialFailed, match=os.strerror(code)) as failed:
        await dial_agent(HOST, 1, coordinator_context(keys[0]), 0.05)
    assert (failed.value.state, failed.value.reason) == ("unreachable", reason)


async def test_silence_ends_with_the_patience(keys: tuple[CoordinatorKey, AgentKey]) -> None:
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the dialler gives up
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(never, HOST, 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(DialFailed, match=r"no TLS handshake .* within 0\.3 s") as failed:
            await dial_agent(HOST, port, coordinator_context(keys[0]), 0.3)
        await gone.wait()
        assert (failed.value.state, failed.value.reason) == ("unreachable", Reason.STALLED)


async def test_a_handshake_that_stalls_is_told_although_connections_were_refused_before(
    keys: tuple[CoordinatorKey, AgentKey],
) -> None:
    async with listening(agent_context(keys[1])) as port:
        pass  # the port is free again, and known
    calling = dialling._Dialling(HOST, port, coordinator_context(keys[0]))
    await calling.attempt()
    assert calling.failed is not None

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, HOST, port):
        attempt = asyncio.create_task(calling.attempt())
        while calling.failed is not None:  # noqa: ASYNC110 - it tells nobody when it connects
            await asyncio.sleep(0)
        assert calling.silence(1.0).reason is Reason.STALLED
        await dialling.cancel_all([attempt])


async def test_control_connections_need_no_large_packets(
    keys: tuple[CoordinatorKey, AgentKey],
) -> None:
    sizes: list[int] = []

    async def measure(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sizes.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        writer.close()

    async with await asyncio.start_server(measure, HOST, 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        with pytest.raises(DialFailed):
            await dial_agent(HOST, port, coordinator_context(keys[0]), 0.2)
    assert 0 < sizes[0] <= SEGMENT_SIZE


async def test_an_agent_that_starts_late_is_found(
    keys: tuple[CoordinatorKey, AgentKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "RETRY_INTERVAL", 0.05)
    async with listening(agent_context(keys[1])) as port:
        pass  # the port is free again, and known
    calling = asyncio.create_task(dial_agent(HOST, port, coordinator_context(keys[0]), 5.0))
    listener = ControlListener(agent_context(keys[1]), echo)
    await listener.start(HOST, port)
    await (await calling).close()
    await listener.close()


async def test_a_taken_control_port_is_one_sentence(
    keys: tuple[CoordinatorKey, AgentKey],
) -> None:
    async with listening(agent_context(keys[1])) as port:
        second = ControlListener(agent_context(keys[1]), echo)
        with pytest.raises(PreflightError, match=f"port {port}: it is in use"):
            await second.start(HOST, port)
