"""The phases of a run against scripted agents: in order, bounded, and complete when cut short."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from preflight.coordinator import run as run_module
from preflight.coordinator.observer import SilentObserver
from preflight.coordinator.run import gather_observations
from preflight.model.observation import (
    AgentState,
    Attempts,
    Confirmation,
    Facts,
    Failure,
    ListenerState,
    Observations,
    Outcome,
    Sightings,
)
from preflight.model.plan import Limits, Listen, Plan, PlannedNode, Probe
from preflight.net.conversation import (
    AgentEnd,
    ConversationEnded,
    CoordinatorEnd,
    conversation_in_process,
)
from preflight.net.dialling import DialFailed
from preflight.wire.messages import (
    WIRE_VERSION,
    Ask,
    Beat,
    Done,
    Greet,
    Held,
    Hold,
    Refused,
    Release,
    Released,
    Results,
    Seen,
    Start,
    ToAgent,
    Welcome,
)
from preflight.wire.runfile import AgentLine, Line, OutcomesLine, PhaseLine, SightingsLine

PHASES = ["greet", "listen", "probe", "collect", "release"]
HELD = (ListenerState(protocol="tcp", address="10.0.0.2", ports=((80, 81),), state="listening"),)


def make_plan() -> Plan:
    """a must reach two ports of b."""
    return Plan(
        run_id="ab" * 16,
        cluster="c",
        profiles=("p",),
        nodes=tuple(
            PlannedNode(
                name=name, roles=(), addresses=(address,), control_host=address, control_port=1
            )
            for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
        ),
        vips=(),
        rules=(),
        flows=(),
        listens=(Listen(node="b", protocol="tcp", address="10.0.0.2", ports=((80, 81),)),),
        probes=(
            Probe(
                id=0,
                source="a",
                destination="b",
                protocol="tcp",
                address="10.0.0.2",
                ports=((80, 81),),
                answerers=("b",),
            ),
        ),
        limits=Limits(),
    )


def unanswered(port: int, probe_id: str) -> Outcome:
    attempts = Attempts(probe_ids=(probe_id,), ports=(port,), local_ports=(1,))
    return Outcome(
        probe=0,
        ports=((port, port),),
        failure=Failure.SILENT_AFTER_CONNECT,
        unanswered=(attempts,),
    )


def sightings(*probe_ids: str) -> Sightings:
    return Sightings(
        node="b",
        protocol="tcp",
        address="10.0.0.2",
        ports=(80,) * len(probe_ids),
        source_address="10.0.0.1",
        source_ports=(1,) * len(probe_ids),
        probe_ids=probe_ids,
        answered=False,
    )


@dataclass
class ScriptedAgent:
    """Does what it is told, with the results that it is given."""

    name: str
    results: tuple[Outcome, ...] = ()
    untold: tuple[Outcome, ...] = ()
    """What it found, and tells only when it is asked."""
    on_hold: Callable[[], None] | None = None
    """Instead of an answer."""
    refusal: str = ""
    """Instead of holding ports: it says so, and ends the conversation."""
    never_done: bool = False
    heard: list[ToAgent] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def converse(self, end: AgentEnd) -> None:
        try:
            while True:
                message = await end.receive()
                if not isinstance(message, Beat):
                    self.heard.append(message)
                await self.answer(end, message)
        except ConversationEnded:
            pass
        finally:
            await end.close()
            self.ended.set()

    async def answer(self, end: AgentEnd, message: ToAgent) -> None:
        match message:
            case Greet():
                await end.send(
                    Welcome(
                        wire_version=WIRE_VERSION,
                        version="0.1.0",
                        instance=self.name,
                        time=0.0,
                        facts=Facts(),
                        bind_addresses=(),
                    )
                )
            case Hold():
                await self.hold(end)
            case Start():
                if self.results:
                    await end.send(Results(outcomes=self.results))
                self.started.set()
                if not self.never_done:
                    await end.send(Done())
            case Ask():
                await self.tell(end, message)
            case Release():
                await end.send(Released())
            case Beat():
                await end.send(Beat())

    async def hold(self, end: AgentEnd) -> None:
        if self.refusal:
            await end.send(Refused(wire_version=1, version="0.1.0", detail=self.refusal))
            raise ConversationEnded
        if self.on_hold is not None:
            self.on_hold()
        else:
            await end.send(Held(listeners=HELD if self.name == "b" else ()))

    async def tell(self, end: AgentEnd, message: Ask) -> None:
        if self.untold:
            await end.send(Results(outcomes=self.untold))
            self.untold = ()
        seen = (sightings(*message.probe_ids),) if message.probe_ids else ()
        confirmation = Confirmation(instance=self.name, held=HELD)
        await end.send(Seen(sightings=seen, confirmation=confirmation))

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.heard]


class Watching(SilentObserver):
    """Remembers what it was told of agents."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.states: dict[str, str] = {}
        self.over = False

    def phase(self, name: str, bound: float) -> None:
        assert bound > 0
        self.phases.append(name)

    def agent(self, node: str, state: str, detail: str) -> None:
        del detail
        self.states[node] = state

    def finished(self) -> None:
        self.over = True


class World:
    """Two scripted agents, and a run of the plan with them."""

    def __init__(self) -> None:
        self.a = ScriptedAgent("a")
        self.b = ScriptedAgent("b")
        self.missing: set[str] = set()
        self.stop = asyncio.Event()
        self.lines: list[Line] = []
        self.observer = Watching()
        self.conversing: list[asyncio.Task[None]] = []

    async def dial(self, node: PlannedNode, _: float) -> CoordinatorEnd:
        if node.name in self.missing:
            raise DialFailed("unreachable", "nobody there")
        ours, theirs = await conversation_in_process()
        agent = self.a if node.name == "a" else self.b
        self.conversing.append(asyncio.create_task(agent.converse(theirs)))
        return ours

    async def run(self) -> Observations:
        return await gather_observations(
            make_plan(), self.dial, "me", self.observer, self.lines.append, self.stop
        )

    def state(self, observations: Observations, name: str) -> AgentState:
        return next(one.state for one in observations.agents if one.node == name)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    async with asyncio.timeout(5):
        await asyncio.gather(*world.conversing)


async def test_a_whole_run(world: World) -> None:
    world.a.results = (unanswered(80, "aa"), Outcome(probe=0, ports=((81, 81),), failure=None))
    seen = await world.run()
    assert [phase.name for phase in seen.phases] == PHASES == world.observer.phases
    assert seen.outcomes == world.a.results
    assert seen.sightings == (sightings("aa"),)
    assert not seen.interrupted
    assert world.a.kinds() == ["Greet", "Hold", "Start", "Ask", "Release"]
    assert world.b.kinds() == ["Greet", "Hold", "Ask", "Release"]
    assert world.observer.over


async def test_everything_is_recorded_as_it_comes(world: World) -> None:
    world.a.results = (unanswered(80, "aa"),)
    seen = await world.run()
    agents = {line.agent.node: line.agent for line in world.lines if isinstance(line, AgentLine)}
    assert tuple(agents.values()) == seen.agents
    assert [one.outcomes for one in world.lines if isinstance(one, OutcomesLine)] == [seen.outcomes]
    told = [one.sightings for one in world.lines if isinstance(one, SightingsLine)]
    assert sum(told, ()) == seen.sightings
    assert [one.phase for one in world.lines if isinstance(one, PhaseLine)] == list(seen.phases)
    kinds = [type(line) for line in world.lines]
    assert kinds.index(AgentLine) < kinds.index(OutcomesLine) < kinds.index(SightingsLine)


async def test_stopping_asks_about_everything_that_was_found(world: World) -> None:
    """An outcome that was told last would else look as if its destination had seen nothing."""
    world.a.results = (unanswered(80, "aa"),)
    world.a.untold = (unanswered(81, "bb"),)
    world.a.never_done = True
    running = asyncio.create_task(world.run())
    await world.a.started.wait()
    world.stop.set()
    seen = await running
    assert seen.interrupted
    assert seen.outcomes == (unanswered(80, "aa"), unanswered(81, "bb"))
    assert seen.sightings == (sightings("aa", "bb"),)
    assert world.b.heard[-2] == Ask(probe_ids=("aa", "bb"))
    assert world.a.kinds()[-1] == world.b.kinds()[-1] == "Release"


async def test_many_attempts_are_asked_about_in_several_questions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "IDS_AT_ONCE", 2)
    world.a.results = tuple(unanswered(80, name) for name in ("aa", "bb", "cc"))
    seen = await world.run()
    asked = [message.probe_ids for message in world.b.heard if isinstance(message, Ask)]
    assert asked == [("aa", "bb"), ("cc",)]
    assert seen.sightings == (sightings("aa", "bb"), sightings("cc"))


async def test_what_is_told_too_late_to_be_asked_about_is_left_out(world: World) -> None:
    world.a.untold = (unanswered(80, "aa"),)  # the run is not stopped: it is asked once only
    assert (await world.run()).outcomes == ()


async def test_stopped_before_it_began(world: World) -> None:
    world.stop.set()
    seen = await world.run()
    assert seen.interrupted
    assert [phase.name for phase in seen.phases] == PHASES
    assert world.conversing == []
    assert {agent.state for agent in seen.agents} == {"unreachable"}


async def test_stopped_while_the_ports_are_opened(world: World) -> None:
    world.b.on_hold = world.stop.set
    seen = await world.run()
    assert "Start" not in world.a.kinds()
    assert world.b.kinds() == ["Greet", "Hold", "Ask", "Ask", "Release"]
    assert {agent.state for agent in seen.agents} == {"ready"}


async def test_a_second_interrupt_waits_for_nobody(world: World) -> None:
    world.a.never_done = True
    running = asyncio.create_task(world.run())
    await world.a.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(1):
        await world.a.ended.wait()
        await world.b.ended.wait()
    assert "Release" not in world.a.kinds() + world.b.kinds()
    assert world.observer.over


async def test_a_missing_agent_costs_its_own_part_only(world: World) -> None:
    world.missing = {"a"}
    seen = await world.run()
    assert (world.state(seen, "a"), world.state(seen, "b")) == ("unreachable", "ready")
    assert world.b.kinds() == ["Greet", "Hold", "Ask", "Release"]


async def test_a_refusal_is_not_forgotten_when_its_connection_closes(world: World) -> None:
    """Too few descriptors: the agent says so, and ends the conversation."""
    world.b.refusal = "needs 300 open files"
    seen = await world.run()
    assert world.state(seen, "b") == "refused"
    assert [one.detail for one in seen.agents if one.node == "b"] == ["needs 300 open files"]
    assert world.a.kinds()[-2:] == ["Ask", "Release"]


async def test_a_destination_that_is_lost_while_others_probe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "GRACE", 0.0)
    monkeypatch.setattr(run_module, "first_orders", lambda *_: {"a": ()})
    world.a.never_done = True
    running = asyncio.create_task(world.run())
    await world.a.started.wait()
    world.conversing[1].cancel()  # b's, in the order of the plan
    await asyncio.gather(world.conversing.pop(1), return_exceptions=True)
    world.stop.set()
    seen = await running
    assert world.state(seen, "b") == "lost"
    assert world.observer.states == {"a": "ready", "b": "lost"}
