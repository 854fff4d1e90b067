"""A source in few lines, and listeners to ask: what the tests of both listeners need."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing

from preflight.net.answering import Identity
from preflight.net.binding import bind_listener
from preflight.net.journal import Journal, Listener
from preflight.wire.challenge import (
    SMALL_SIZE,
    Answer,
    Challenge,
    encode_challenge,
    new_challenge,
    read_answer,
)

KEY = b"k" * 32
RUN = b"r" * 16
INSTANCE = b"i" * 16
IDENTITY = Identity("m1", RUN, INSTANCE, KEY)
PATIENCE = 10.0
WILDCARD = "0.0.0.0"  # noqa: S104 - another program's choice, which we must see

# Addresses of one test process alone: no other program binds them, whatever port it wants.
ADDRESS = f"127.77.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"


def free_port(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])


def bound(protocol: str, address: str) -> tuple[socket.socket, Listener]:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    port = free_port(address, kind)
    listener = Listener("tcp" if protocol == "tcp" else "udp", address, port)
    return bind_listener(listener.protocol, address, port), listener


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=PATIENCE)


def read_block(source: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer where the listener closed."""
    found = b""
    while len(found) < size:
        try:
            more = source.recv(size - len(found))
        except ConnectionResetError:
            break
        if not more:
            break
        found += more
    return found


def ask_tcp(
    address: str, port: int, challenge: Challenge | None = None, *, key: bytes = KEY
) -> Answer | None:
    """One proof; None where the listener closed without an answer."""
    with closing(connect(address, port)) as source:
        return ask_on(source, challenge or new_challenge(RUN), key=key)


def ask_on(source: socket.socket, challenge: Challenge, *, key: bytes = KEY) -> Answer | None:
    source.sendall(encode_challenge(challenge, key))
    block = read_block(source, challenge.size)
    if not block:
        return None
    assert len(block) == challenge.size
    answer = read_answer(block, KEY)
    assert answer is not None
    assert (answer.probe_id, answer.nonce) == (challenge.probe_id, challenge.nonce)
    return answer


def ask_udp(
    address: str, port: int, datagram: bytes, *, patience: float = PATIENCE
) -> tuple[bytes, tuple[str, int], tuple[str, int]] | None:
    """The answer, who sent it, and our own name; None for silence."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as source:
        source.settimeout(patience)
        source.sendto(datagram, (address, port))
        try:
            data, sender = source.recvfrom(65_535)
        except TimeoutError:
            return None
        return data, sender[:2], source.getsockname()[:2]


def small_challenge(size: int = SMALL_SIZE, run_id: bytes = RUN) -> tuple[Challenge, bytes]:
    challenge = new_challenge(run_id, size)
    return challenge, encode_challenge(challenge, KEY)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is true; fail when it does not become so."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it never became true"
        await asyncio.sleep(0.002)


def unclaimed(journal: Journal) -> list[tuple[str, int]]:
    return [(sighting.source_address, sighting.source_port) for sighting in journal.sightings(())]
