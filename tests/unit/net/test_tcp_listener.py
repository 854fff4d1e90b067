import asyncio
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from preflight.net import tcp_listener
from preflight.net.journal import MAX_REPEATS, Journal, Listener
from preflight.net.limits import open_descriptors, raise_descriptor_limit
from preflight.net.tcp_listener import TcpListeners
from preflight.wire.challenge import MAGIC, encode_challenge, new_challenge
from tests.unit.net.listening_side import (
    ADDRESS,
    IDENTITY,
    INSTANCE,
    KEY,
    RUN,
    ask_on,
    ask_tcp,
    bound,
    connect,
    eventually,
    read_block,
    small_challenge,
    unclaimed,
)

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def nobody(_: socket.socket) -> bool:
    return False


@pytest.fixture
def journal() -> Journal:
    return Journal("m1")


@pytest.fixture
def listeners(journal: Journal) -> Iterator[TcpListeners]:
    held = TcpListeners(IDENTITY, journal, max_connections=64, hand_over=nobody)
    yield held
    held.stop()


@pytest.fixture
def listener(listeners: TcpListeners) -> Listener:
    listening, listener = bound("tcp", ADDRESS)
    listeners.add(listening, listener)
    return listener


@pytest.mark.parametrize("address", [ADDRESS, "::1"])
@pytest.mark.parametrize("size", [256, 1_400, 8_192, 9_000])
async def test_proves_who_it_is_and_what_it_saw(
    listeners: TcpListeners, journal: Journal, address: str, size: int
) -> None:
    listening, listener = bound("tcp", address)
    listeners.add(listening, listener)
    challenge = new_challenge(RUN, size)

    with closing(connect(address, listener.port)) as source:
        answer = ask_on(source, challenge)
        own_address, own_port = source.getsockname()[:2]

    assert answer is not None
    assert (answer.node, answer.instance, answer.run_id) == ("m1", INSTANCE, RUN)
    assert (answer.source_address, answer.source_port) == (own_address, own_port)
    assert (answer.address, answer.port) == (address, listener.port)
    await eventually(lambda: listener.answered == 1)
    (sighting,) = journal.sightings([challenge.probe_id.hex()])
    assert (sighting.source_port, sighting.answered) == (own_port, True)
    assert (listener.accepted, listener.dropped) == (1, 0)


def test_says_nothing_until_it_is_spoken_to(listener: Listener) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        source.settimeout(0.1)
        with pytest.raises(TimeoutError):
            source.recv(1)
        source.settimeout(5)
        assert ask_on(source, new_challenge(RUN)) is not None


def test_one_connection_may_ask_again(listener: Listener, journal: Journal) -> None:
    small, large = new_challenge(RUN), new_challenge(RUN, 8_192)
    with closing(connect(ADDRESS, listener.port)) as source:
        assert ask_on(source, small) is not None
        assert ask_on(source, large) is not None
    found = journal.sightings([small.probe_id.hex(), large.probe_id.hex()])
    assert [sighting.probe_id for sighting in found] == [
        small.probe_id.hex(),
        large.probe_id.hex(),
    ]


def test_but_not_without_end(listener: Listener) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        for _ in range(tcp_listener.MAX_CHALLENGES):
            assert ask_on(source, new_challenge(RUN)) is not None
        assert ask_on(source, new_challenge(RUN)) is None


def test_a_challenge_may_come_byte_by_byte(listener: Listener) -> None:
    challenge, block = small_challenge()
    with closing(connect(ADDRESS, listener.port)) as source:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in block[:40]:
            source.sendall(bytes([byte]))
            assert ask_tcp(ADDRESS, listener.port) is not None  # so it was looked at
        source.sendall(block[40:])
        assert len(read_block(source, challenge.size)) == challenge.size


def test_a_source_may_finish_sending_before_it_reads(listener: Listener) -> None:
    challenge, block = small_challenge(8_192)
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(block)
        source.shutdown(socket.SHUT_WR)
        assert len(read_block(source, challenge.size)) == challenge.size


async def test_an_answer_waits_for_a_slow_source(listeners: TcpListeners) -> None:
    """With tiny buffers an answer of 9,000 bytes can't be written at once."""
    listening, listener = bound("tcp", ADDRESS)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_048)
    listeners.add(listening, listener)
    challenge, block = small_challenge(9_000)
    with closing(socket.socket()) as source:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        source.settimeout(10)
        source.connect((ADDRESS, listener.port))
        source.sendall(block)
        await eventually(lambda: any(one.writing for one in listeners._connections.values()))
        assert listener.answered == 0
        assert len(read_block(source, challenge.size)) == challenge.size
        assert ask_on(source, new_challenge(RUN)) is not None


@pytest.mark.parametrize(
    "words",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n",
        b"\xf1\x9ePX",
        b"\0",
        MAGIC + b"\xff" * 12,
        MAGIC + b"\x01\x02\x01\x00" + bytes(248),
    ],
    ids=["tls", "http", "proxy1", "proxy2", "nearly-magic", "zero", "version", "an-answer"],
)
def test_foreign_words_get_nothing_but_are_remembered(
    listener: Listener, journal: Journal, words: bytes
) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(words)
        assert read_block(source, 1) == b""
        assert unclaimed(journal) == [source.getsockname()]
    assert (listener.accepted, listener.answered, listener.dropped) == (1, 0, 0)


def test_another_key_or_run_gets_nothing(listener: Listener, journal: Journal) -> None:
    assert ask_tcp(ADDRESS, listener.port, key=b"x" * 32) is None
    stranger = new_challenge(b"s" * 16)
    assert ask_tcp(ADDRESS, listener.port, stranger) is None
    assert ask_tcp(ADDRESS, listener.port, new_challenge(RUN, 120)) is None  # no room to answer
    assert len(journal.sightings([stranger.probe_id.hex()])) == 3
    assert all(one.probe_id is None for one in journal.sightings([stranger.probe_id.hex()]))


def test_a_changed_byte_gets_nothing(listener: Listener) -> None:
    _, block = small_challenge()
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(block[:100] + bytes([block[100] ^ 1]) + block[101:])
        assert read_block(source, 1) == b""


async def test_remembers_who_only_connected(listener: Listener, journal: Journal) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        own = source.getsockname()
        await eventually(lambda: unclaimed(journal) == [own])
    assert unclaimed(journal) == [own]


async def test_remembers_who_left_with_a_reset(listener: Listener, journal: Journal) -> None:
    source = connect(ADDRESS, listener.port)
    own = source.getsockname()
    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    source.close()
    await eventually(lambda: unclaimed(journal) == [own])


async def test_a_partial_magic_does_not_keep_the_thread_busy(
    listeners: TcpListeners, listener: Listener
) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(MAGIC[:2])
        await eventually(lambda: any(one.spoke for one in listeners._connections.values()))
        identity = listeners._thread.ident
        assert identity is not None
        clock = time.pthread_getcpuclockid(identity)
        before = time.clock_gettime(clock)
        await asyncio.sleep(0.3)
        assert time.clock_gettime(clock) - before < 0.05


async def test_the_longest_idle_make_room(
    listeners: TcpListeners, listener: Listener, journal: Journal
) -> None:
    with ExitStack() as idle:
        for _ in range(200):
            idle.enter_context(closing(connect(ADDRESS, listener.port)))
        assert ask_tcp(ADDRESS, listener.port) is not None
        await eventually(lambda: listener.accepted == 201)
        assert len(listeners._connections) <= 64
        assert len(unclaimed(journal)) == 200
        # they were not given the time that a source waits: so silence proves nothing here
        assert listener.dropped >= 200 - 64


async def test_unfinished_challenges_may_not_take_all_memory(
    listeners: TcpListeners, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_listener, "MAX_BUFFERED", 20_000)
    beginning = small_challenge(9_000)[1][:-1]
    with ExitStack() as slow:
        for _ in range(20):
            slow.enter_context(closing(connect(ADDRESS, listener.port))).sendall(beginning)
        await eventually(lambda: listener.dropped == 18)
        assert listeners._buffered == 2 * len(beginning)
        assert ask_tcp(ADDRESS, listener.port) is not None
    await eventually(lambda: listeners._buffered == 0)


async def test_trickling_does_not_lengthen_a_life(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_listener, "IDLE_SECONDS", 0.2)
    _, block = small_challenge()

    def trickle() -> int:
        with closing(connect(ADDRESS, listener.port)) as source:
            for sent, byte in enumerate(block):
                try:
                    source.send(bytes([byte]))
                except OSError:
                    return sent
                time.sleep(0.01)
        return len(block)

    assert await asyncio.to_thread(trickle) < len(block)


def test_a_recorded_challenge_is_answered_and_proves_nothing_new(
    listener: Listener, journal: Journal
) -> None:
    """Whoever repeats it gets the same nonce back, which no source waits for any more."""
    challenge = new_challenge(RUN)
    for _ in range(20):
        assert ask_tcp(ADDRESS, listener.port, challenge) is not None
    assert len(journal.sightings([challenge.probe_id.hex()])) == MAX_REPEATS
    assert listener.dropped == 20 - MAX_REPEATS
    assert ask_tcp(ADDRESS, listener.port) is not None


async def test_a_flood_on_one_port_leaves_the_others_their_turn(journal: Journal) -> None:
    held = TcpListeners(IDENTITY, journal, max_connections=1_024, hand_over=nobody)
    (flooded, listener), (other, quiet) = bound("tcp", ADDRESS), bound("tcp", ADDRESS)
    held.add(flooded, listener)
    held.add(other, quiet)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            connect(ADDRESS, listener.port).close()

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for one in floods:
        one.start()
    try:
        await eventually(lambda: listener.accepted > 100)
        for _ in range(50):
            assert await asyncio.to_thread(ask_tcp, ADDRESS, quiet.port) is not None
    finally:
        stop.set()
        for one in floods:
            one.join()
        held.stop()
    assert (quiet.answered, quiet.dropped) == (50, 0)


async def test_5000_idle_connections_do_not_stop_a_proof(journal: Journal) -> None:
    limit = raise_descriptor_limit()
    if limit < 11_000:
        pytest.skip(f"needs 11,000 open files, and the limit is {limit}")
    held = TcpListeners(IDENTITY, journal, max_connections=4_096, hand_over=nobody)
    try:
        listening, listener = bound("tcp", ADDRESS)
        held.add(listening, listener)
        with ExitStack() as idle:
            for _ in range(5_000):
                idle.enter_context(closing(connect(ADDRESS, listener.port)))
            begun = time.monotonic()
            assert ask_tcp(ADDRESS, listener.port) is not None
            assert time.monotonic() - begun < 2
            assert listener.accepted == 5_001
    finally:
        held.stop()


async def test_closes_what_stays_idle_without_counting_it_as_dropped(
    listeners: TcpListeners, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_listener, "IDLE_SECONDS", 0.05)
    with closing(connect(ADDRESS, listener.port)) as silent:
        assert await asyncio.to_thread(read_block, silent, 1) == b""
    with closing(connect(ADDRESS, listener.port)) as answered:
        assert ask_on(answered, new_challenge(RUN)) is not None
        assert await asyncio.to_thread(read_block, answered, 1) == b""
    assert listener.dropped == 0
    assert not listeners._connections


async def test_without_descriptors_it_waits_and_does_not_spin(listener: Listener) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, block = small_challenge()
    with closing(socket.socket()) as source, ExitStack() as others:
        source.settimeout(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 8, hard))
        try:
            _take_all_descriptors(others)
            source.connect((ADDRESS, listener.port))
            source.sendall(block)
            busy, begun = time.process_time(), time.monotonic()
            await eventually(lambda: listener.dropped >= 3)
            assert time.process_time() - busy < max(0.5 * (time.monotonic() - begun), 0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(read_block(source, len(block))) == len(block)


def _take_all_descriptors(taken: ExitStack) -> None:
    with suppress(OSError):  # EMFILE: that was the last
        while True:
            taken.enter_context(closing(socket.socket()))


def test_stops_whole(journal: Journal) -> None:
    before = open_descriptors()
    held = TcpListeners(IDENTITY, journal, max_connections=64, hand_over=nobody)
    listening, listener = bound("tcp", ADDRESS)
    held.add(listening, listener)
    source = connect(ADDRESS, listener.port)
    assert ask_on(source, new_challenge(RUN)) is not None
    assert held.attentive

    held.stop()
    held.stop()

    assert not held.attentive
    assert "tcp-listeners" not in {thread.name for thread in threading.enumerate()}
    assert read_block(source, 1) == b""
    source.close()
    assert open_descriptors() == before
    with pytest.raises(ConnectionRefusedError):
        connect(ADDRESS, listener.port)


def test_leaves_no_time_wait_when_it_closes_first(listener: Listener) -> None:
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(encode_challenge(new_challenge(RUN), b"x" * len(KEY)))
        assert read_block(source, 1) == b""
        source_port = source.getsockname()[1]
        with pytest.raises(OSError, match="not connected"):
            source.getpeername()  # after a RST, unlike after a FIN, the connection is gone
    assert source_port


def test_closes_in_order_where_resets_raise_alarms(journal: Journal) -> None:
    held = TcpListeners(IDENTITY, journal, max_connections=64, hand_over=nobody, close="fin")
    listening, listener = bound("tcp", ADDRESS)
    held.add(listening, listener)
    with closing(connect(ADDRESS, listener.port)) as source:
        source.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_block(source, 1) == b""
        assert source.getpeername()[1] == listener.port  # after a RST it would not be connected
    held.stop()
