"""AgentHandle against scripted agents: whatever they do becomes a state, never an exception."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from preflight.coordinator import handles
from preflight.coordinator.handles import AgentHandle
from preflight.model.observation import Confirmation, Facts, Failure, Outcome, Reason
from preflight.model.plan import PlannedNode, Share
from preflight.net.conversation import AgentEnd, CoordinatorEnd, conversation_in_process
from preflight.net.dialling import DialFailed
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
    Welcome,
)

NODE = PlannedNode(
    name="m1", roles=("worker",), addresses=("10.0.0.1",), control_host="10.0.0.1", control_port=1
)
SHARE = Share(rate=None, max_half_open=64, patience=1.0, deadline=1.0, full_size=8192)
OUTCOME = Outcome(probe=0, ports=((80, 80),), failure=Failure.RESET)
Script = Callable[[AgentEnd], Awaitable[None]]
Call = Callable[[Script], Awaitable[AgentHandle]]


async def welcome(agent: AgentEnd, version: int = WIRE_VERSION, time: float = 0.0) -> None:
    assert isinstance(await agent.receive(), Greet)
    await agent.send(
        Welcome(
            wire_version=version,
            version="0.1.0",
            instance="ab",
            time=time,
            facts=Facts(hostname="h"),
            bind_addresses=("10.0.0.1",),
        )
    )


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    running: list[asyncio.Task[None]] = []
    called: list[AgentHandle] = []
    ends: list[AgentEnd] = []

    async def greet(script: Script) -> AgentHandle:
        async def dial(_node: PlannedNode, _patience: float) -> CoordinatorEnd:
            ours, theirs = await conversation_in_process()
            ends.append(theirs)

            async def act() -> None:
                await script(theirs)

            running.append(asyncio.create_task(act()))
            return ours

        handle = AgentHandle(NODE)
        called.append(handle)
        await handle.greet(dial, "0" * 32, "me", 0.5)
        return handle

    yield greet
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for handle in called:
        await handle.release(0.1)
    for end in ends:
        await end.close()


async def test_a_whole_conversation(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await welcome(agent)
        while True:
            match await agent.receive():
                case Hold():
                    await agent.send(Held(listeners=()))
                case Start():
                    await agent.send(Beat())
                    await agent.send(Results(outcomes=(OUTCOME,)))
                    await agent.send(Progress(finished=1))
                    await agent.send(Done())
                case Ask():
                    await agent.send(
                        Seen(sightings=(), confirmation=Confirmation(instance="ab", held=()))
                    )
                case Release():
                    await agent.send(Released())
                    await agent.close()
                    return

    handle = await call(script)
    found: list[Outcome] = []
    finished: list[int] = []
    assert handle.ready
    await handle.hold((), 1.0, "reset")
    await handle.probe((), SHARE, 1.0, found.extend, finished.append)
    seen = await handle.ask((), 1.0)
    await handle.release(1.0)
    assert found == [OUTCOME]
    assert finished == [1]
    assert seen is not None
    assert handle.observation.state == "ready"
    assert handle.observation.confirmation == Confirmation(instance="ab", held=())


async def test_a_clock_three_years_off_is_measured_and_no_obstacle(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await welcome(agent, time=1.0)
        await agent.receive()

    handle = await call(script)
    assert handle.ready
    assert handle.observation.clock_offset_ms is not None
    assert handle.observation.clock_offset_ms < -1e12


async def test_a_refusal_is_told_in_the_agents_words(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await agent.receive()
        said = "run x holds this agent"
        await agent.send(Refused(wire_version=9, version="9.0", detail=said, reason=Reason.HELD))

    handle = await call(script)
    assert handle.observation.state == "refused"
    assert handle.observation.detail == "run x holds this agent"
    assert handle.observation.version == "9.0"
    assert handle.observation.reason is Reason.HELD


async def test_another_conversation_is_refused(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await welcome(agent, version=WIRE_VERSION + 1)

    observation = (await call(script)).observation
    assert (observation.state, observation.reason) == ("refused", Reason.VERSION)


async def test_a_closed_door_is_refused(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await agent.receive()
        await agent.close()

    handle = await call(script)
    assert handle.observation.state == "refused"
    assert "another key" in handle.observation.detail
    assert handle.observation.reason is Reason.KEY


async def test_silence_is_unreachable(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "SLOW_EXCHANGE", 0.1)

    async def script(_agent: AgentEnd) -> None:
        await asyncio.Event().wait()

    assert (await call(script)).observation.state == "unreachable"


def test_an_agent_that_was_never_called_is_not_blamed() -> None:
    assert AgentHandle(NODE).observation.reason is Reason.NOT_CALLED


async def test_nobody_there_keeps_the_reason() -> None:
    async def dial(_node: PlannedNode, _patience: float) -> CoordinatorEnd:
        raise DialFailed("unreachable", "connection to 10.0.0.1:1 was refused", Reason.NO_HOST)

    handle = AgentHandle(NODE)
    await handle.greet(dial, "0" * 32, "me", 0.5)
    assert handle.observation.state == "unreachable"
    assert "was refused" in handle.observation.detail
    assert handle.observation.reason is Reason.NO_HOST
    await handle.hold((), 0.1, "reset")
    assert await handle.ask((), 0.1) is None


async def test_an_agent_that_dies_in_the_middle_keeps_what_it_told(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await welcome(agent)
        assert isinstance(await agent.receive(), Start)
        await agent.send(Results(outcomes=(OUTCOME,)))
        await agent.close()

    handle = await call(script)
    found: list[Outcome] = []
    await handle.probe((), SHARE, 5.0, found.extend, lambda _: None)
    assert found == [OUTCOME]
    assert handle.observation.state == "lost"


async def test_an_agent_that_never_finishes_is_lost(call: Call) -> None:
    async def script(agent: AgentEnd) -> None:
        await welcome(agent)
        await asyncio.Event().wait()

    handle = await call(script)
    await handle.probe((), SHARE, 0.1, lambda _: None, lambda _: None)
    assert handle.observation.state == "lost"
    assert "finish probing within 0.1 s" in handle.observation.detail


async def test_an_agent_that_falls_silent_is_lost(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "BEAT_INTERVAL", 0.02)
    monkeypatch.setattr(handles, "SILENCE_LIMIT", 0.1)

    async def script(agent: AgentEnd) -> None:
        await welcome(agent)
        await asyncio.Event().wait()

    handle = await call(script)
    await handle.probe((), SHARE, 10.0, lambda _: None, lambda _: None)
    assert handle.observation.state == "lost"
    assert "nothing was heard" in handle.observation.detail


async def test_agents_are_not_blamed_where_the_coordinator_stood_still(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "STOOD_STILL", -10.0)

    async def script(agent: AgentEnd) -> None:
        await welcome(agent)

    handle = await call(script)
    await handle.probe((), SHARE, 10.0, lambda _: None, lambda _: None)
    assert handle.observation.state == "lost"
    assert handle.observation.reason is Reason.COORDINATOR_PAUSED
    assert "this coordinator stood still" in handle.observation.detail
