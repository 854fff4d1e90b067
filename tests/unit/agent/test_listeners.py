import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from preflight.agent.listeners import Listeners
from preflight.columns import each_sighting
from preflight.model.observation import ListenerState
from preflight.model.plan import Listen
from preflight.net import binding, tcp_listener
from preflight.net.backlog import backlog_overflows
from preflight.net.limits import open_descriptors, raise_descriptor_limit
from preflight.ports import Ranges
from preflight.wire.challenge import new_challenge
from tests.unit.net.listening_side import (
    ADDRESS,
    INSTANCE,
    KEY,
    RUN,
    WILDCARD,
    ask_tcp,
    ask_udp,
    connect,
    eventually,
    free_port,
    read_block,
    small_challenge,
)

NODE_PORTS: Ranges = ((30_000, 32_767),)

HOLDER = """
import socket, sys
holder = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def listeners() -> AsyncIterator[Listeners]:
    held = Listeners(node="m1", run_id=RUN, instance=INSTANCE, key=KEY)
    yield held
    await held.release()


def tcp(ports: Ranges, address: str = ADDRESS, *, only_if_local: bool = False) -> Listen:
    return Listen(
        node="m1", protocol="tcp", address=address, ports=ports, only_if_local=only_if_local
    )


def udp(ports: Ranges, address: str = ADDRESS) -> Listen:
    return Listen(node="m1", protocol="udp", address=address, ports=ports)


@contextmanager
def other_program(address: str, port: int) -> Iterator[int]:
    """A program that listens there; its pid."""
    command = [sys.executable, "-c", HOLDER, address, str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "holding\n"
        yield program.pid
        assert program.stdin is not None
        program.stdin.close()


async def test_holds_both_protocols_and_families_and_groups_ports(listeners: Listeners) -> None:
    port = free_port("::1")
    states = await listeners.hold(
        [
            tcp(((6_443, 6_443), (10_250, 10_259))),
            udp(((8_472, 8_472),)),
            tcp(((port, port),), "::1"),
        ]
    )
    assert set(states) == {
        ListenerState(
            protocol="tcp",
            address=ADDRESS,
            ports=((6_443, 6_443), (10_250, 10_259)),
            state="listening",
        ),
        ListenerState(protocol="udp", address=ADDRESS, ports=((8_472, 8_472),), state="listening"),
        ListenerState(protocol="tcp", address="::1", ports=((port, port),), state="listening"),
    }
    assert set(listeners.confirm().held) == set(states)
    assert listeners.confirm().instance == INSTANCE.hex()
    assert ask_tcp(ADDRESS, 10_255) is not None
    assert ask_tcp("::1", port) is not None
    _, block = small_challenge()
    assert await asyncio.to_thread(ask_udp, ADDRESS, 8_472, block) is not None


async def test_binds_the_literal_address_only(listeners: Listeners) -> None:
    await listeners.hold([tcp(((6_443, 6_443),))])
    with pytest.raises(ConnectionRefusedError):
        connect("127.76.0.1", 6_443)


async def test_names_the_program_that_listens_there(listeners: Listeners) -> None:
    with other_program(ADDRESS, 9_200) as pid:
        states = await listeners.hold([tcp(((9_200, 9_201),))])
    by_state = {state.state: state for state in states}
    assert by_state["listening"].ports == ((9_201, 9_201),)
    occupied = by_state["occupied"]
    assert occupied.ports == ((9_200, 9_200),)
    assert occupied.owner_listens
    assert occupied.owner.endswith(f"(pid {pid})")
    assert "python" in occupied.owner
    assert [state.ports for state in listeners.confirm().held] == [((9_201, 9_201),)]


async def test_a_program_on_the_wildcard_is_in_the_way(listeners: Listeners) -> None:
    port = free_port(WILDCARD)
    with other_program(WILDCARD, port) as pid:
        (state,) = await listeners.hold([tcp(((port, port),))])
    assert (state.state, state.owner_listens) == ("occupied", True)
    assert str(pid) in state.owner


async def test_an_outgoing_connection_is_in_the_way_and_does_not_listen(
    listeners: Listeners,
) -> None:
    with closing(socket.create_server((ADDRESS, 0))) as far, closing(socket.socket()) as outgoing:
        outgoing.bind((ADDRESS, 30_080))
        outgoing.connect(far.getsockname())
        states = await listeners.hold([tcp(((30_079, 30_081),))])
    by_state = {state.state: state for state in states}
    assert by_state["listening"].ports == ((30_079, 30_079), (30_081, 30_081))
    occupied = by_state["occupied"]
    assert occupied.owner.startswith("an outgoing connection of ")
    assert occupied.owner.endswith(f"(pid {os.getpid()})")
    assert not occupied.owner_listens


async def test_a_udp_port_in_use_is_occupied(listeners: Listeners) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind((ADDRESS, 8_472))
        (state,) = await listeners.hold([udp(((8_472, 8_472),))])
    assert (state.state, state.owner_listens) == ("occupied", False)
    assert state.owner.endswith(f"(pid {os.getpid()})")


async def test_an_address_of_another_machine_is_denied(listeners: Listeners) -> None:
    (state,) = await listeners.hold([tcp(((6_443, 6_444),), "192.0.2.1")])
    assert (state.state, state.ports) == ("denied", ((6_443, 6_444),))
    assert state.detail == "address 192.0.2.1 is not on this machine"
    assert listeners.confirm().held == ()


async def test_a_vip_that_is_elsewhere_is_left_out(listeners: Listeners) -> None:
    assert await listeners.hold([tcp(((6_443, 6_443),), "192.0.2.1", only_if_local=True)]) == ()
    (state,) = await listeners.hold([tcp(((6_443, 6_443),), only_if_local=True)])
    assert state.state == "listening"


async def test_what_is_held_stays_held_when_more_is_asked_for(listeners: Listeners) -> None:
    await listeners.hold([tcp(((6_443, 6_443),))])
    with closing(connect(ADDRESS, 6_443)):
        (state,) = await listeners.hold([tcp(((6_443, 6_444),))])
        assert state.ports == ((6_443, 6_444),)
        await eventually(lambda: listeners.confirm().counts[0].accepted == 1)


async def test_the_whole_node_port_range_is_ready_soon(
    listeners: Listeners, record_property: Callable[[str, object], None]
) -> None:
    begun = time.monotonic()
    states = await listeners.hold([tcp(NODE_PORTS)])
    elapsed = time.monotonic() - begun
    record_property("seconds", elapsed)
    assert sum(last - first + 1 for state in states for first, last in state.ports) == 2_768
    held = [state.ports for state in states if state.state == "listening"]
    assert ask_tcp(ADDRESS, held[0][0][0]) is not None
    assert ask_tcp(ADDRESS, held[0][-1][1]) is not None
    assert elapsed < 5


async def test_tells_sightings_and_counts(listeners: Listeners) -> None:
    await listeners.hold([tcp(((6_443, 6_444),)), udp(((8_472, 8_472),))])
    proven = new_challenge(RUN)
    assert ask_tcp(ADDRESS, 6_443, proven) is not None
    challenge, block = small_challenge()
    assert await asyncio.to_thread(ask_udp, ADDRESS, 8_472, block) is not None
    with closing(connect(ADDRESS, 6_444)) as silent:
        own = silent.getsockname()
        await eventually(lambda: len(listeners.seen(())) == 1)
    asked = [proven.probe_id.hex(), challenge.probe_id.hex(), "00" * 16, "nonsense"]
    found = list(each_sighting(listeners.seen(asked)))
    assert [(one.node, one.protocol, one.port, one.probe_id, one.answered) for one in found] == [
        ("m1", "tcp", 6_443, proven.probe_id.hex(), True),
        ("m1", "udp", 8_472, challenge.probe_id.hex(), True),
        ("m1", "tcp", 6_444, None, False),
    ]
    assert (found[-1].source_address, found[-1].source_port) == own
    counts = {count.protocol: count for count in listeners.confirm().counts}
    assert (counts["tcp"].ports, counts["tcp"].accepted, counts["tcp"].answered) == (
        ((6_443, 6_444),),
        2,
        1,
    )
    assert (counts["udp"].accepted, counts["udp"].answered, counts["udp"].dropped) == (1, 1, 0)


async def test_ports_that_dropped_something_are_counted_apart(listeners: Listeners) -> None:
    await listeners.hold([tcp(((6_443, 6_445),))])
    assert listeners._tcp is not None
    listeners._tcp._max_connections = 1
    with closing(connect(ADDRESS, 6_444)), closing(connect(ADDRESS, 6_443)):
        await eventually(lambda: len(listeners.confirm().counts) == 2)
    by_drops = {count.dropped: count.ports for count in listeners.confirm().counts}
    assert by_drops == {0: ((6_443, 6_443), (6_445, 6_445)), 1: ((6_444, 6_444),)}


async def test_a_full_backlog_counts_as_dropped(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops a SYN that we never hear of: silence proves nothing then."""
    monkeypatch.setattr(binding, "BACKLOG", 1)
    await listeners.hold([tcp(((6_443, 6_444),))])
    before = backlog_overflows()
    with ExitStack() as sources, listeners._journal._lock:  # the accepting thread waits for it
        while backlog_overflows() == before:
            source = sources.enter_context(closing(socket.socket()))
            source.settimeout(0)
            source.connect_ex((ADDRESS, 6_444))
            await asyncio.sleep(0.001)
    by_ports = {count.ports: count.dropped for count in listeners.confirm().counts}
    assert by_ports[(6_443, 6_443),] == 0
    assert by_ports[(6_444, 6_444),] > 0


async def test_a_loop_that_stood_still_vouches_for_no_silence(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_listener, "MAX_ROUND", 0.2)
    await listeners.hold([tcp(((6_443, 6_443),)), udp(((8_472, 8_472),))])
    assert len(listeners.confirm().held) == 2
    with listeners._journal._lock, closing(connect(ADDRESS, 6_443)):
        await asyncio.sleep(0.3)  # the accepting thread waits for the lock, amid a round
    await eventually(lambda: [one.protocol for one in listeners.confirm().held] == ["udp"])
    assert ask_tcp(ADDRESS, 6_443) is not None


async def test_release_leaves_nothing(listeners: Listeners) -> None:
    before = open_descriptors()
    await listeners.hold([tcp(((30_000, 30_099),)), udp(((30_000, 30_099),))])
    with closing(connect(ADDRESS, 30_050)) as source:
        await listeners.release()
        assert read_block(source, 1) == b""
    await listeners.release()
    assert open_descriptors() == before
    assert "tcp-listeners" not in {thread.name for thread in threading.enumerate()}
    assert listeners.confirm().held == ()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in (30_000, 30_050, 30_099):
            with socket.socket(socket.AF_INET, kind) as again:
                again.bind((ADDRESS, port))


async def test_cancelled_it_leaves_nothing(listeners: Listeners) -> None:
    holding = asyncio.create_task(listeners.hold([tcp(NODE_PORTS)]))
    await asyncio.sleep(0)  # until it first lets the loop have its turn
    assert not holding.done()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    with pytest.raises(ConnectionRefusedError):
        connect(ADDRESS, 30_000)


FEW_DESCRIPTORS = """
import asyncio, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[2])))
from preflight.agent.listeners import Listeners
from preflight.errors import LimitError
from preflight.model.plan import Listen

async def hold():
    listeners = Listeners(node="m1", run_id=bytes(16), instance=bytes(16), key=bytes(32))
    listen = Listen(node="m1", protocol="tcp", address=sys.argv[1], ports=((30000, 30499),))
    try:
        (state,) = await listeners.hold([listen])
        print(state.state, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    except LimitError as error:
        print(error)
        try:
            socket.create_connection((sys.argv[1], 30000))
        except ConnectionRefusedError:
            print("nothing is bound")
    finally:
        await listeners.release()

asyncio.run(hold())
"""


def _with_hard_limit(limit: int) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, ADDRESS, str(limit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return ran.stdout


def test_too_few_descriptors_are_one_clear_sentence() -> None:
    message, bound = _with_hard_limit(512).splitlines()
    assert "holding 500 ports needs " in message
    assert "hard limit of this process is 512" in message
    assert int(message.split("needs ")[1].split()[0]) > 512
    assert bound == "nothing is bound"


def test_the_soft_limit_is_raised_first() -> None:
    assert _with_hard_limit(1_024) == "listening 1024\n"
    assert raise_descriptor_limit() >= 1_024


WITHOUT_RIGHTS = """
import asyncio, encodings.idna, os, sys  # before the interpreter's files are out of reach
from preflight.agent.listeners import Listeners
from preflight.model.plan import Listen
if os.geteuid() == 0:
    os.setuid(65534)

async def hold():
    listeners = Listeners(node="m1", run_id=bytes(16), instance=bytes(16), key=bytes(32))
    ports = tuple((int(port), int(port)) for port in sys.argv[2:])
    listen = Listen(node="m1", protocol="tcp", address=sys.argv[1], ports=ports)
    try:
        for state in await listeners.hold([listen]):
            print(state.state, state.ports, state.owner_listens, state.owner or state.detail)
    finally:
        await listeners.release()

asyncio.run(hold())
"""


def test_without_rights_it_says_what_it_may_not_and_can_not_see() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("everybody may bind port 80 here")
    with closing(socket.create_server((ADDRESS, 9_200))):
        ran = subprocess.run(
            [sys.executable, "-c", WITHOUT_RIGHTS, ADDRESS, "80", "9200", "9201"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    assert set(ran.stdout.splitlines()) == {
        "denied ((80, 80),) False port 80 may not be bound without root or CAP_NET_BIND_SERVICE",
        "occupied ((9200, 9200),) True another program (pid not visible without root)",
        "listening ((9201, 9201),) False ",
    }
