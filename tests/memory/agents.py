"""Agents of a memory network: they speak the real conversation, and probe without sockets."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TypeAlias

import preflight
from preflight.columns import pack_sightings
from preflight.model.observation import Facts, Outcome
from preflight.model.plan import PlannedNode
from preflight.net.conversation import (
    AgentEnd,
    ConversationEnded,
    CoordinatorEnd,
    conversation_in_process,
)
from preflight.net.dialling import DialFailed
from preflight.probes.grouping import group_results
from preflight.wire.messages import (
    WIRE_VERSION,
    Ask,
    Beat,
    Done,
    Greet,
    Held,
    Hold,
    Progress,
    Release,
    Released,
    Results,
    Seen,
    Start,
    ToAgent,
    ToCoordinator,
    Welcome,
)
from tests.memory.faults import Absent, Dies, ForeignAgent, Moment, NoAgent
from tests.memory.hosts import Host
from tests.memory.network import MemoryNetwork
from tests.memory.probing import Source
from tests.memory.setting import Machine, Setting

Replies: TypeAlias = tuple[ToCoordinator, ...]

NONSENSE = b"\0\0\0\4none"
_MOMENTS: dict[type[ToAgent], Moment] = {
    Greet: "greet",
    Hold: "hold",
    Start: "start",
    Ask: "ask",
    Release: "release",
}


class MemoryCluster:
    """All machines of a setting; `dial` opens conversations with their agents."""

    def __init__(self, setting: Setting) -> None:
        self.network = MemoryNetwork(setting)
        self.hosts = {machine.name: Host(machine, self.network) for machine in setting.machines}
        self._setting = setting
        self._tasks: list[asyncio.Task[None]] = []

    async def dial(self, node: PlannedNode, patience: float) -> CoordinatorEnd:
        """As `preflight.coordinator.handles.Dial`."""
        if self.network.has(Absent(node.name)) or self.network.has(NoAgent(node.name)):
            raise DialFailed("unreachable", f"nobody answered within {patience:g} s")
        if self.network.has(ForeignAgent(node.name)):
            raise DialFailed("refused", "it has another key file")
        ours, theirs = await conversation_in_process()
        agent = MemoryAgent(self, node.name, theirs)
        self._tasks.append(asyncio.create_task(agent.converse()))
        return ours

    def make_source(self, machine: Machine, run_id: bytes) -> Source:
        """Where the probes of an agent come from."""
        return Source(machine, self.network, self.hosts, run_id)

    def death_of(self, node: str) -> Dies | None:
        """How its agent ends in the middle of the run, if it does."""
        return next((one for one in self.network.planted(Dies) if one.node == node), None)

    async def close(self) -> None:
        """Wait until all agents were released. Raises what they raised."""
        async with asyncio.timeout(5):
            await asyncio.gather(*self._tasks)


class MemoryAgent:
    """One agent in one conversation."""

    def __init__(self, cluster: MemoryCluster, node: str, conversation: AgentEnd) -> None:
        self._cluster = cluster
        self._host: Host = cluster.hosts[node]
        self._host.called = True
        self._conversation = conversation
        self._death = cluster.death_of(node)
        self._source: Source | None = None

    async def converse(self) -> None:
        """Until the release, the end of the conversation, or its own."""
        with contextlib.suppress(ConversationEnded):
            while await self._serve(await self._conversation.receive()):
                pass
        self._host.alive = False
        await self._conversation.close()

    async def _serve(self, message: ToAgent) -> bool:
        """Answer one message. False: that was the last one."""
        moment = _MOMENTS.get(type(message))
        dying = self._death if self._death is not None and self._death.at == moment else None
        if dying is not None and not dying.after_reply:
            return await self._die(dying)
        replies = await self._replies_to(message)
        half = self._death is not None and self._death.at == "results" and moment == "start"
        for reply in replies[: len(replies) // 2] if half else replies:
            await self._conversation.send(reply)
        if half or dying is not None:
            return await self._die(dying or self._death)
        return not isinstance(message, Release)

    async def _replies_to(self, message: ToAgent) -> Replies:
        match message:
            case Greet():
                return (self._greet_back(message),)
            case Hold():
                return (Held(listeners=self._host.hold(message.listens)),)
            case Start():
                return await self._probe(message)
            case Ask():
                confirmation = self._host.confirm()
                seen = pack_sightings(self._host.seen(message.probe_ids))
                return (Seen(sightings=seen, confirmation=confirmation),)
            case Release():
                return (Released(),)
            case Beat():
                return (Beat(),)

    def _greet_back(self, greet: Greet) -> Welcome:
        self._source = self._cluster.make_source(self._host.machine, bytes.fromhex(greet.run_id))
        own = self._host.machine.addresses
        return Welcome(
            wire_version=WIRE_VERSION,
            version=preflight.__version__,
            instance=self._host.instance,
            time=time.time(),
            facts=Facts(hostname=self._host.machine.name, addresses=own),
            bind_addresses=own,
        )

    async def _probe(self, start: Start) -> Replies:
        assert self._source is not None  # the coordinator greets first
        self._source.begin(start.share)
        replies: list[ToCoordinator] = []
        finished = 0
        for order in sorted(start.orders, key=lambda one: len(one.probe.ports)):
            outcomes: Sequence[Outcome] = tuple(
                group_results(
                    order.probe.id,
                    self._source.carry_out(order),
                    second_look=order.second_look,
                )
            )
            finished += sum(last - first + 1 for first, last in order.probe.ports)
            replies.append(Results(outcomes=tuple(outcomes)))
            # Told at once, as agents do: sixty of them on one slow processor are not silent.
            await self._conversation.send(Progress(finished=finished))
            await asyncio.sleep(0)  # the others' turn
        return (*replies, Done())

    async def _die(self, death: Dies | None) -> bool:
        self._host.alive = False
        if death is not None and death.nonsense:
            self._conversation._writer.write(NONSENSE)
        return False
