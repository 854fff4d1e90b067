"""Listeners with good and bad manners, and a way to probe them: what these tests share."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec

from preflight.model.cluster import Protocol
from preflight.model.observation import Outcome
from preflight.model.plan import Probe, ProbeOrder, Share
from preflight.probes import ProbeContext, run_probes
from preflight.wire.challenge import (
    MAX_SIZE,
    Answer,
    Challenge,
    encode_answer,
    read_challenge,
)

KEY = b"k" * 32
RUN = b"r" * 16
INSTANCE = b"i" * 16

# Addresses of one test process alone: no other program binds them, whatever port it wants.
ADDRESS = f"127.78.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def share(
    *,
    patience: float = 0.6,
    deadline: float = 8.0,
    rate: float | None = None,
    max_half_open: int = 20_000,
) -> Share:
    return Share(
        rate=rate,
        max_half_open=max_half_open,
        patience=patience,
        deadline=deadline,
        full_size=8_192,
    )


def make_probe(protocol: Protocol, *ports: int, **rest: object) -> Probe:
    probe = Probe(
        id=1,
        source="w1",
        destination="m1",
        protocol=protocol,
        address=ADDRESS,
        ports=tuple((port, port) for port in sorted(ports)),
        answerers=("m1",),
    )
    return msgspec.structs.replace(probe, **rest)


def make_order(protocol: Protocol, *ports: int, **rest: object) -> ProbeOrder:
    return ProbeOrder(probe=make_probe(protocol, *ports, **rest))


async def probe(
    orders: Sequence[ProbeOrder], bounds: Share | None = None
) -> tuple[list[Outcome], list[int]]:
    """All outcomes, and every total that was told."""
    outcomes: list[Outcome] = []
    finished: list[int] = []
    context = ProbeContext(run_id=RUN, key=KEY, share=bounds or share())
    await run_probes(orders, context, outcomes.extend, finished.append)
    return outcomes, finished


async def probe_one(order: ProbeOrder, bounds: Share | None = None) -> Outcome:
    outcomes, _ = await probe([order], bounds)
    assert len(outcomes) == 1, outcomes
    return outcomes[0]


def answer_to(
    challenge: Challenge, source: tuple[str, int], own: tuple[str, int], node: str = "m1"
) -> Answer:
    return Answer(
        challenge.run_id,
        challenge.probe_id,
        challenge.nonce,
        INSTANCE,
        source[0],
        source[1],
        own[0],
        own[1],
        node,
    )


async def read_one(reader: asyncio.StreamReader) -> Challenge:
    data = b""
    while True:
        data += await reader.read(MAX_SIZE)
        challenge = read_challenge(data, KEY)
        if challenge is not None:
            return challenge


def answering(
    change: Callable[[Answer], Answer] = lambda answer: answer,
    *,
    key: bytes = KEY,
    pieces: int = 1,
    silent_connections: int = 0,
) -> Conversation:
    """Answers the right way, but for what is `change`d; the first few connections not at all."""
    accepted = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        if accepted <= silent_connections:
            await reader.read()
            return
        challenge = await read_one(reader)
        source, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        given = change(answer_to(challenge, source, own))
        block = encode_answer(given, challenge.size, key)
        step = -(-len(block) // pieces)
        for start in range(0, len(block), step):
            writer.write(block[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.01 if pieces > 1 else 0)
        await reader.read()

    return answer


async def stay_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def close_at_once(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await read_one(reader)


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_one(reader)
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def greet_with(banner: bytes) -> Conversation:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await writer.drain()
        await reader.read()

    return greet


@asynccontextmanager
async def tcp_listener(conversation: Conversation, address: str = ADDRESS) -> AsyncIterator[int]:
    """Serve connections this way; gives the port."""
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        try:
            await conversation(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            open_writers.discard(writer)
            writer.close()

    listening = await asyncio.start_server(serve, address, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for writer in open_writers:
            writer.transport.abort()
        await listening.wait_closed()
        # The conversations that were cut off end in their own time, before the loop does.
        for _ in range(5):
            await asyncio.sleep(0)


class UdpListener(asyncio.DatagramProtocol):
    """Answers the datagrams for which `chosen` is true (by their number, from 0)."""

    def __init__(
        self,
        chosen: Callable[[int], bool],
        change: Callable[[Answer], Answer],
        delay: float,
    ) -> None:
        self._chosen = chosen
        self._change = change
        self._delay = delay
        self.arrived: list[Challenge] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # asyncio's own promise
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        challenge = read_challenge(data, KEY)
        assert challenge is not None
        number = len(self.arrived)
        self.arrived.append(challenge)
        if self._chosen(number):
            own = self._transport.get_extra_info("sockname")
            block = encode_answer(
                self._change(answer_to(challenge, addr, own)), challenge.size, KEY
            )
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay, self._transport.sendto, block, addr)


@asynccontextmanager
async def udp_listener(
    chosen: Callable[[int], bool] = lambda _: True,
    change: Callable[[Answer], Answer] = lambda answer: answer,
    delay: float = 0.0,
    address: str = ADDRESS,
) -> AsyncIterator[tuple[int, UdpListener]]:
    transport, listener = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: UdpListener(chosen, change, delay), local_addr=(address, 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1], listener
    finally:
        transport.close()


class FullBacklog:
    """A listening port that drops every SYN, because its backlog is full, until `open`."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.bind((ADDRESS, 0))
        self.sock.listen(0)
        self.port: int = self.sock.getsockname()[1]
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.settimeout(0)
            filler.connect_ex((ADDRESS, self.port))
            self._fillers.append(filler)

    def close(self) -> None:
        for filler in self._fillers:
            filler.close()
        self.sock.close()


def count_descriptors() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def free_ports(count: int) -> list[int]:
    """So many TCP ports of `ADDRESS` on which nobody listens, in ascending order."""
    with ExitStack() as stack:
        held = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in held:
            one.bind((ADDRESS, 0))
        return sorted(one.getsockname()[1] for one in held)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, address: str = ADDRESS) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])
