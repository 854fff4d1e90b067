import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from preflight.net import udp_listener
from preflight.net.binding import PortOccupied, bind_listener
from preflight.net.journal import Journal, Listener, Seen
from preflight.net.udp_listener import UdpListeners, _Allowance
from preflight.wire.challenge import encode_challenge, new_challenge, read_answer
from tests.unit.net.listening_side import (
    ADDRESS,
    IDENTITY,
    INSTANCE,
    KEY,
    RUN,
    ask_udp,
    bound,
    eventually,
    small_challenge,
)


@pytest.fixture
def journal() -> Journal:
    return Journal("m1")


@pytest.fixture
async def listeners(journal: Journal) -> AsyncIterator[UdpListeners]:
    held = UdpListeners(IDENTITY, journal)
    yield held
    await held.stop()


@pytest.fixture
async def listener(listeners: UdpListeners) -> Listener:
    receiving, listener = bound("udp", ADDRESS)
    await listeners.add(receiving, listener)
    return listener


@pytest.mark.parametrize("address", [ADDRESS, "::1"])
@pytest.mark.parametrize("size", [256, 1_400, 9_000])
async def test_proves_who_it_is_and_what_it_saw(
    listeners: UdpListeners, journal: Journal, address: str, size: int
) -> None:
    receiving, listener = bound("udp", address)
    await listeners.add(receiving, listener)
    challenge, block = small_challenge(size)

    asked = await asyncio.to_thread(ask_udp, address, listener.port, block)

    assert asked is not None
    data, sender, own = asked
    assert sender == (address, listener.port)
    assert len(data) == size
    answer = read_answer(data, KEY)
    assert answer is not None
    assert (answer.node, answer.instance, answer.probe_id) == ("m1", INSTANCE, challenge.probe_id)
    assert answer.nonce == challenge.nonce
    assert (answer.source_port, answer.port) == (own[1], listener.port)
    (sighting,) = journal.sightings([challenge.probe_id.hex()])
    assert (sighting.protocol, sighting.source_port, sighting.answered) == ("udp", own[1], True)
    assert (listener.accepted, listener.answered, listener.dropped) == (1, 1, 0)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"hello",
        small_challenge()[1][:-1],
        small_challenge()[1] + b"\0",
        encode_challenge(new_challenge(RUN), b"x" * 32),
        encode_challenge(new_challenge(b"s" * 16), KEY),
        encode_challenge(new_challenge(RUN, 120), KEY),
    ],
    ids=["empty", "text", "short", "long", "other-key", "other-run", "no-room"],
)
async def test_answers_nothing_else(listener: Listener, journal: Journal, datagram: bytes) -> None:
    challenge, block = small_challenge()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as source:
        source.settimeout(10)
        source.sendto(datagram, (ADDRESS, listener.port))
        source.sendto(block, (ADDRESS, listener.port))
        first = read_answer(await asyncio.to_thread(source.recv, 65_535), KEY)
    assert first is not None
    assert first.probe_id == challenge.probe_id  # the datagram before it got no answer
    assert (listener.accepted, listener.answered) == (2, 1)
    assert journal.sightings(()) == ()


async def test_a_repeated_datagram_is_seen_twice_by_one_id(
    listener: Listener, journal: Journal
) -> None:
    challenge, block = small_challenge()
    for _ in range(2):
        assert await asyncio.to_thread(ask_udp, ADDRESS, listener.port, block) is not None
    assert len(journal.sightings([challenge.probe_id.hex()])) == 2


async def test_over_the_bound_it_drops_and_says_so(
    listeners: UdpListeners, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_listener, "ANSWER_BURST", 3.0)
    monkeypatch.setattr(udp_listener, "ANSWERS_PER_SECOND", 0.0)
    receiving, listener = bound("udp", ADDRESS)
    await listeners.add(receiving, listener)
    challenges = [new_challenge(RUN) for _ in range(5)]
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as source:
        for challenge in challenges:
            source.sendto(encode_challenge(challenge, KEY), (ADDRESS, listener.port))
        await eventually(lambda: listener.accepted == 5)
    assert (listener.answered, listener.dropped) == (3, 2)
    found = journal.sightings([challenge.probe_id.hex() for challenge in challenges])
    assert [sighting.answered for sighting in found] == [True, True, True, False, False]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_survives_answers_that_can_not_be_sent(listeners: UdpListeners, family: int) -> None:
    """A source port of 0 in a forged datagram: sendto fails with EINVAL."""
    receiving, listener = bound("udp", ADDRESS if family == socket.AF_INET else "::1")
    await listeners.add(receiving, listener)
    challenge = new_challenge(RUN)
    forged = (listener.address, 0)
    seen = Seen(listener, *forged)
    listeners._answer(receiving, challenge, seen, forged)
    assert (listener.answered, listener.dropped) == (0, 0)
    assert await asyncio.to_thread(ask_udp, listener.address, listener.port, small_challenge()[1])
    assert listener.answered == 1


class Full(socket.socket):
    """Its send buffer has no room."""

    def sendto(self, *_: object) -> int:
        raise BlockingIOError


async def test_an_answer_without_room_counts_as_dropped(
    listeners: UdpListeners, listener: Listener
) -> None:
    seen = Seen(listener, "192.0.2.1", 9)
    with Full() as full:
        listeners._answer(full, new_challenge(RUN), seen, ("192.0.2.1", 9))
    assert (listener.answered, listener.dropped) == (0, 1)


async def test_a_flooded_socket_leaves_the_others_their_turn(
    listeners: UdpListeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_listener, "BATCH", 4)
    order: list[int] = []
    take = listeners._take

    def note(
        data: bytes, source: tuple[Any, ...], sock: socket.socket, one: Listener, most: _Allowance
    ) -> None:
        order.append(one.port)
        take(data, source, sock, one, most)

    monkeypatch.setattr(listeners, "_take", note)
    flooded, quiet = bound("udp", ADDRESS), bound("udp", ADDRESS)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as source:
        for _ in range(20):
            source.sendto(b"junk", (ADDRESS, flooded[1].port))
        source.sendto(b"junk", (ADDRESS, quiet[1].port))
    await listeners.add(*flooded)
    await listeners.add(*quiet)
    await eventually(lambda: len(order) == 21)
    assert order.index(quiet[1].port) < 20


async def test_counts_what_the_kernel_dropped(listeners: UdpListeners) -> None:
    receiving, listener = bound("udp", ADDRESS)
    receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_304)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as source:
        for _ in range(50):  # nobody reads yet
            source.sendto(bytes(256), (ADDRESS, listener.port))
    await listeners.add(receiving, listener)
    await eventually(lambda: listener.accepted > 0)
    ((_, dropped),) = listeners.held()
    assert dropped > 30


async def test_never_shares_its_port(listener: Listener) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((ADDRESS, listener.port))
    with pytest.raises(PortOccupied):
        bind_listener("udp", ADDRESS, listener.port)


async def test_stops_whole(listeners: UdpListeners, listener: Listener) -> None:
    await listeners.stop()
    await listeners.stop()
    assert list(listeners.held()) == []
    bind_listener("udp", ADDRESS, listener.port).close()
