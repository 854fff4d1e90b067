import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing

import pytest

from preflight.net import strangers as module
from preflight.net.journal import Journal, Listener
from preflight.net.limits import open_descriptors
from preflight.net.strangers import MAX_STRANGERS, Strangers
from preflight.net.tcp_listener import TcpListeners
from preflight.wire.challenge import MAGIC
from preflight.wire.health import MAX_HEAD
from tests.unit.net.listening_side import (
    ADDRESS,
    IDENTITY,
    ask_tcp,
    bound,
    connect,
    eventually,
    read_block,
    unclaimed,
)

CHECK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def strangers() -> AsyncIterator[Strangers]:
    made = Strangers()
    yield made
    await made.close()


@pytest.fixture
def journal() -> Journal:
    return Journal("m1")


@pytest.fixture
def listener(strangers: Strangers, journal: Journal) -> Iterator[Listener]:
    held = TcpListeners(IDENTITY, journal, max_connections=256, hand_over=strangers.offer)
    listening, listener = bound("tcp", ADDRESS)
    held.add(listening, listener)
    yield listener
    held.stop()


async def ask(listener: Listener, words: bytes, *, size: int = 65_536) -> bytes:
    """What a stranger is told until the connection is closed."""

    def talk() -> bytes:
        with closing(connect(ADDRESS, listener.port)) as source:
            source.sendall(words)
            return read_block(source, size)

    return await asyncio.to_thread(talk)


async def test_a_health_check_is_answered_and_changes_nothing(
    listener: Listener, journal: Journal
) -> None:
    answer = await ask(listener, CHECK, size=len(b"HTTP/1.1 200 OK"))
    assert answer == b"HTTP/1.1 200 OK"
    assert (listener.accepted, listener.answered, listener.dropped) == (1, 0, 0)
    assert len(unclaimed(journal)) == 1  # as every connection that never sent a challenge
    assert await asyncio.to_thread(ask_tcp, ADDRESS, listener.port) is not None


async def test_it_may_come_byte_by_byte_without_keeping_anybody_busy(listener: Listener) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        busy = time.process_time()
        for byte in CHECK:
            await asyncio.sleep(0.01)
            source.send(bytes([byte]))
        assert time.process_time() - busy < 0.3
        assert (await asyncio.to_thread(read_block, source, 15)).endswith(b"200 OK")


@pytest.mark.parametrize(
    "words",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"GETTING / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"HEAD " + b"x" * MAX_HEAD,
        MAGIC + b"\xff" * 12,
    ],
    ids=["tls", "proxy", "nearly", "version", "too-long", "ours-but-not-valid"],
)
async def test_everybody_else_is_closed_without_a_word(listener: Listener, words: bytes) -> None:
    assert await ask(listener, words) == b""


@pytest.mark.parametrize("words", [b"G", b"GET / HTTP/1.1\r\n"])
async def test_whoever_says_no_more_is_closed(
    listener: Listener, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(ADDRESS, listener.port)) as finished:
        finished.sendall(words)
        finished.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(read_block, finished, 1) == b""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    assert await ask(listener, words) == b""


async def test_without_room_a_stranger_is_closed_at_once_and_ours_are_answered(
    strangers: Strangers, listener: Listener
) -> None:
    with ExitStack() as crowd:
        for number in range(MAX_STRANGERS):
            crowd.enter_context(closing(connect(ADDRESS, listener.port))).sendall(b"GET ")
            await eventually(lambda number=number: strangers.met == number + 1)  # type: ignore[misc]
        assert await ask(listener, CHECK) == b""
        assert strangers.turned_away == 1
        assert await asyncio.to_thread(ask_tcp, ADDRESS, listener.port) is not None
    await eventually(lambda: not strangers._meetings)
    assert (await ask(listener, CHECK, size=12)).endswith(b"200")


async def test_whoever_resets_is_forgotten(strangers: Strangers, listener: Listener) -> None:
    before = open_descriptors()
    for words in (b"GET ", CHECK):
        with closing(connect(ADDRESS, listener.port)) as source:
            source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            source.sendall(words)
    await eventually(lambda: listener.accepted == 2 and not strangers._meetings)
    await eventually(lambda: open_descriptors() == before)


async def test_closing_leaves_nobody(strangers: Strangers, journal: Journal) -> None:
    before = open_descriptors()
    held = TcpListeners(IDENTITY, journal, max_connections=64, hand_over=strangers.offer)
    listening, listener = bound("tcp", ADDRESS)
    held.add(listening, listener)
    with ExitStack() as crowd:
        sources = [crowd.enter_context(closing(connect(ADDRESS, listener.port))) for _ in range(8)]
        for source in sources:
            source.sendall(b"GET ")
        await eventually(lambda: strangers.met == len(sources))
        held.stop()
        await strangers.close()
        assert [read_block(source, 1) for source in sources] == [b""] * len(sources)
    assert open_descriptors() == before


async def test_one_that_arrives_after_the_end_is_closed(strangers: Strangers) -> None:
    near, far = socket.socketpair()
    await strangers.close()
    with near:
        assert strangers.offer(far)
        await eventually(lambda: far.fileno() == -1)
        assert read_block(near, 1) == b""
