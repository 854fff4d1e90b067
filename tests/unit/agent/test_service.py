"""An agent as its coordinator meets it: who gets the lease, what ends it, what is left then."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import TypeVar

import pytest

from preflight.agent import lease as lease_module
from preflight.agent import service, session
from preflight.agent.lease import Lease, Pulse
from preflight.agent.listeners import Listeners
from preflight.agent.service import Agent
from preflight.errors import LimitError
from preflight.model.observation import Facts, ListenerState, Reason
from preflight.model.plan import Listen, Probe, ProbeOrder, Share
from preflight.net.conversation import (
    ConversationEnded,
    CoordinatorEnd,
    agent_end,
    conversation_in_process,
    coordinator_end,
)
from preflight.wire.messages import (
    WIRE_VERSION,
    Ask,
    Beat,
    Done,
    Greet,
    Held,
    Hold,
    Progress,
    Refused,
    Release,
    Released,
    Results,
    Seen,
    Start,
    ToCoordinator,
    Welcome,
    encode_message,
)

HOST = "127.77.21.1"
PORT = 7000
KEY = b"k" * 32
RUN = "ab" * 16
GREET = Greet(
    wire_version=WIRE_VERSION,
    version="0.1.0",
    run_id=RUN,
    coordinator="root@jump (pid 4711)",
    node="n1",
    addresses=(HOST,),
)
HOLD = Hold(listens=(Listen(node="n1", protocol="tcp", address=HOST, ports=((PORT, PORT + 9),)),))
SHARE = Share(rate=None, max_half_open=64, patience=1.0, deadline=10.0, full_size=8192)
Reply = TypeVar("Reply", bound=ToCoordinator)
Call = Callable[..., Awaitable[CoordinatorEnd]]


def order(*, second_look: bool = False) -> ProbeOrder:
    probe = Probe(
        id=0,
        source="n1",
        destination="n1",
        protocol="tcp",
        address=HOST,
        ports=((PORT, PORT + 9),),
        answerers=("n1",),
    )
    return ProbeOrder(probe=probe, second_look=second_look)


@pytest.fixture
def agent() -> Agent:
    return Agent(KEY)


@pytest.fixture
async def call(agent: Agent) -> AsyncIterator[Call]:
    """Connect to the agent, as its control port does; with a greeting, if there is one."""
    conversing: list[asyncio.Task[None]] = []
    opened: list[CoordinatorEnd] = []

    async def connect(greet: Greet | None = None) -> CoordinatorEnd:
        ours, theirs = await conversation_in_process()
        opened.append(ours)

        async def converse() -> None:
            try:
                await agent.converse(theirs)
            finally:
                await theirs.close()

        conversing.append(asyncio.create_task(converse()))
        if greet is not None:
            await ours.send(greet)
        return ours

    yield connect
    for one in opened:
        await one.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*conversing)  # raises what an agent should never raise
    assert not is_held(PORT)


async def expect(conversation: CoordinatorEnd, kind: type[Reply]) -> Reply:
    """The next message of this kind; beats and progress may come before it."""
    async with asyncio.timeout(5):
        while not isinstance(message := await conversation.receive(), kind):
            assert isinstance(message, Beat | Progress | Results), message
    return message


async def expect_end(conversation: CoordinatorEnd) -> None:
    async def read_on() -> None:
        while True:
            await conversation.receive()

    async with asyncio.timeout(5):
        with pytest.raises(ConversationEnded):
            await read_on()


def is_held(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


async def test_a_whole_lease(call: Call, agent: Agent) -> None:
    coordinator = await call(GREET)
    welcome = await expect(coordinator, Welcome)
    assert (welcome.instance, welcome.bind_addresses) == (agent.instance.hex(), (HOST,))
    await coordinator.send(Beat())
    await expect(coordinator, Beat)
    await coordinator.send(HOLD)
    held = await expect(coordinator, Held)
    assert [(one.state, one.ports) for one in held.listeners] == [
        ("listening", ((PORT, PORT + 9),))
    ]
    await coordinator.send(Start(orders=(order(),), share=SHARE))
    results = await expect(coordinator, Results)
    assert [(one.failure, one.ports) for one in results.outcomes] == [(None, ((PORT, PORT + 9),))]
    await expect(coordinator, Done)
    await coordinator.send(Ask(probe_ids=()))
    seen = await expect(coordinator, Seen)
    assert seen.confirmation.held == held.listeners
    await coordinator.send(Release())
    await expect(coordinator, Released)
    assert not is_held(PORT)


async def test_a_second_coordinator_is_told_who_holds_the_lease(call: Call) -> None:
    first = await call(GREET)
    await expect(first, Welcome)
    second = await call(GREET)
    refused = await expect(second, Refused)
    assert refused.detail.startswith(f"run {RUN[:8]} of root@jump (pid 4711) holds this agent")
    assert refused.reason is Reason.HELD
    await expect_end(second)
    await first.send(Beat())
    await expect(first, Beat)
    await first.send(Release())
    await expect(first, Released)
    await expect_end(first)
    await expect(await call(GREET), Welcome)


@pytest.mark.parametrize(
    ("change", "words", "reason"),
    [
        ({"wire_version": WIRE_VERSION + 1}, "install the same version on both", Reason.VERSION),
        ({"run_id": "not hexadecimal"}, "can't read the coordinator's greeting", Reason.VERSION),
        ({"run_id": "abcd"}, "can't read the coordinator's greeting", Reason.VERSION),
        ({"addresses": ("m1.example",)}, "can't read the coordinator's greeting", Reason.VERSION),
        ({"node": "n" * 300}, "can't read the coordinator's greeting", Reason.VERSION),
        (
            {"addresses": (HOST, "192.0.2.1")},
            "192.0.2.1 is not an address of this machine",
            Reason.NOT_ITS_ADDRESS,
        ),
    ],
)
async def test_greetings_that_are_refused(
    call: Call, change: dict[str, object], words: str, reason: Reason
) -> None:
    fields = {name: getattr(GREET, name) for name in GREET.__struct_fields__}
    refused = await expect(await call(Greet(**{**fields, **change})), Refused)
    assert words in refused.detail
    assert refused.reason is reason
    # It cost the agent nothing.
    await expect(await call(GREET), Welcome)


def test_a_machines_other_addresses_are_those_that_somebody_could_mean() -> None:
    addresses = ("10.0.1.12", "127.0.0.1", "169.254.3.4", "::1", "fd00::12", "fe80::1")
    facts = Facts(hostname="m1", addresses=addresses)
    assert list(service._reachable(facts)) == ["10.0.1.12", "fd00::12"]


async def test_what_is_no_greeting_is_refused(call: Call) -> None:
    beating = await call()
    await beating.send(Beat())
    assert "did not greet first" in (await expect(beating, Refused)).detail


async def test_bytes_that_are_no_message_are_answered_with_a_sentence(agent: Agent) -> None:
    left, right = socket.socketpair()
    ours = coordinator_end(*(streams := await asyncio.open_connection(sock=left)))
    theirs = agent_end(*await asyncio.open_connection(sock=right))
    conversing = asyncio.create_task(agent.converse(theirs))
    streams[1].write(b"\0\0\0\4nope")
    refused = await expect(ours, Refused)
    assert "install the same version on both" in refused.detail
    assert refused.reason is Reason.VERSION
    await conversing
    await theirs.close()
    await ours.close()


async def test_silence_is_no_greeting(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "GREETING_PATIENCE", 0.05)
    await expect_end(await call())


async def hold(coordinator: CoordinatorEnd) -> None:
    await expect(coordinator, Welcome)
    await coordinator.send(HOLD)
    await expect(coordinator, Held)
    assert is_held(PORT)


async def test_a_closed_connection_frees_everything(call: Call, agent: Agent) -> None:
    coordinator = await call(GREET)
    await hold(coordinator)
    await coordinator.send(Start(orders=(order(second_look=True),), share=SHARE))
    coordinator.abort()
    await lease_ends(agent)
    assert not is_held(PORT)


async def lease_ends(agent: Agent) -> None:
    async with asyncio.timeout(5):
        while agent._lease is not None:  # noqa: ASYNC110 - the agent tells nobody of it
            await asyncio.sleep(0.01)


async def test_a_silent_coordinator_loses_its_lease(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LEASE_SECONDS", 0.2)
    coordinator = await call(GREET)
    await hold(coordinator)
    await expect_end(coordinator)
    assert not is_held(PORT)


async def test_a_coordinator_that_does_not_read_loses_its_lease(
    call: Call, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle: what we have to tell it fills every buffer."""
    monkeypatch.setattr(session, "LEASE_SECONDS", 0.5)
    coordinator = await call(GREET)
    await hold(coordinator)
    transport = coordinator._writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    coordinator._writer.write(encode_message(Beat()) * 300_000)
    await lease_ends(agent)
    assert not is_held(PORT)


@pytest.mark.parametrize("message", [GREET, b"\0\0\0\4nope"])
async def test_nonsense_ends_the_lease(call: Call, message: Greet | bytes) -> None:
    coordinator = await call(GREET)
    await hold(coordinator)
    data = message if isinstance(message, bytes) else encode_message(message)
    coordinator._writer.write(data)
    await expect_end(coordinator)
    assert not is_held(PORT)


async def test_who_is_asked_in_the_middle_tells_what_it_has(call: Call) -> None:
    """Ctrl-C: a second look takes ten seconds, and its first port is known at once."""
    coordinator = await call(GREET)
    await hold(coordinator)
    await coordinator.send(Start(orders=(order(second_look=True),), share=SHARE))
    async with asyncio.timeout(5):
        progress = await coordinator.receive()
        while not (isinstance(progress, Progress) and progress.finished):
            assert isinstance(progress, Progress), "results are told when they are asked for"
            progress = await coordinator.receive()
        await coordinator.send(Ask(probe_ids=()))
        found: list[tuple[tuple[int, int], ...]] = []
        while not isinstance(message := await coordinator.receive(), Seen):
            if isinstance(message, Results):
                found += [outcome.ports for outcome in message.outcomes]
    assert found == [((PORT, PORT),)]


async def test_an_agent_that_stood_still_confirms_nothing(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = await call(GREET)
    await hold(coordinator)
    monkeypatch.setattr(lease_module, "MAX_PAUSE", -1.0)
    await coordinator.send(Ask(probe_ids=()))
    assert (await expect(coordinator, Seen)).confirmation.held == ()


async def test_too_few_descriptors_is_a_refusal(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold_nothing(*_: object) -> tuple[ListenerState, ...]:
        raise LimitError("holding 9 ports needs 300 open files")

    monkeypatch.setattr(Listeners, "hold", hold_nothing)
    coordinator = await call(GREET)
    await expect(coordinator, Welcome)
    await coordinator.send(HOLD)
    refused = await expect(coordinator, Refused)
    assert refused.detail == "holding 9 ports needs 300 open files"
    assert refused.reason is Reason.DESCRIPTORS
    await expect_end(coordinator)


def test_a_lease_is_renewed_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    clock = SimpleNamespace(
        monotonic=lambda: now,
        time=lambda: 0.0,
        gmtime=time.gmtime,
        strftime=time.strftime,
    )
    monkeypatch.setattr(lease_module, "time", clock)
    lease = Lease.begin(RUN, "me")
    now += 4
    assert lease.seconds_left == 6
    lease.renew()
    assert lease.seconds_left == 10
    now += 11
    assert lease.seconds_left == 0
    assert "since 00:00:00 UTC" in lease.describe()


async def test_the_pulse_notices_a_pause_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(lease_module, "PULSE_SECONDS", 0.0)
    pulse = Pulse()
    pulse.start()
    await asyncio.sleep(0)
    assert not pulse.paused
    now += 3
    assert pulse.paused, "nobody has woken up yet"
    for _ in range(3):
        await asyncio.sleep(0)
    assert pulse.paused, "it goes on, and has not forgotten"
    pulse.start()
    assert not pulse.paused
    pulse.stop()
