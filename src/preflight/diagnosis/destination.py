"""The destination's end of a probe: who was there to answer, port by port.

Silence, a refusal or a stranger's answer says something about the network only if the
destination's agent confirms afterwards, with the instance id of its greeting, that its
listener was up all the time and dropped nothing by its own limits.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from preflight.diagnosis.index import Index, canonical, is_vip
from preflight.model.cluster import Protocol
from preflight.model.observation import AgentObservation, Confirmation, ListenerState
from preflight.model.plan import Probe
from preflight.model.report import Cause
from preflight.ports import Ranges, subtract, union

STATE_CAUSES = {
    "unreachable": Cause.AGENT_UNREACHABLE,
    "refused": Cause.AGENT_REFUSED,
    "lost": Cause.AGENT_LOST,
}


class PortFact(Struct, frozen=True):
    """One thing that one agent says of some of its ports."""

    node: str
    kind: Literal["held", "dropped", "occupied", "denied"]
    owner: str = ""
    owner_listens: bool = False
    detail: str = ""
    at_vip: bool = False
    """Said of the VIP's address, and not of the node's own."""


class End(Struct, frozen=True, kw_only=True):
    """What is known of the destination's end of some ports. For a VIP: of any backend's."""

    ready: bool
    confirmed: bool
    """An agent there confirms, and is the one that greeted."""
    absence: Cause | None = None
    """Not confirmed: why."""
    held: bool = False
    """Our listener was up all the time, and dropped nothing by its own limits."""
    dropped: bool = False
    owner: str | None = None
    """Another program holds the port there (it may have no name that we can see)."""
    owner_listens: bool = False
    in_front: bool = False
    """That program holds a VIP, and no backend's own address: it is the one that balances."""
    denied: str | None = None


def confirmation_of(agent: AgentObservation) -> Confirmation | None:
    """The agent's word, if it is ready and still the one that greeted."""
    confirmation = agent.confirmation
    if agent.state != "ready" or confirmation is None or confirmation.instance != agent.instance:
        return None
    return confirmation


def lost_listeners(agent: AgentObservation) -> bool:
    """Whether it confirms less than it began to hold: it stood still, or lost a listener."""
    confirmation = confirmation_of(agent)
    if confirmation is None:
        return False
    held: dict[tuple[Protocol, str], Ranges] = {}
    for state in confirmation.held:
        if state.state == "listening":
            place = (state.protocol, canonical(state.address))
            held[place] = union(held.get(place, ()), state.ports)
    return any(
        subtract(state.ports, held.get((state.protocol, canonical(state.address)), ()))
        for state in agent.listeners
        if state.state == "listening"
    )


def port_facts(probe: Probe, index: Index) -> Iterator[tuple[PortFact, Ranges]]:
    """Everything that the ready agents behind the probe's address say of their ports."""
    for name in probe.answerers:
        agent = index.agents.get(name)
        if agent is None or agent.state != "ready":
            continue
        addresses = _listening_addresses(probe, name, index)
        for state in _matching(agent.listeners, probe, addresses):
            if state.state != "listening":
                yield _fact(name, state, probe), state.ports
        confirmation = confirmation_of(agent)
        if confirmation is None:
            continue
        for state in _matching(confirmation.held, probe, addresses):
            if state.state == "listening":
                yield PortFact(name, "held"), state.ports
        for count in confirmation.counts:
            if (
                count.dropped
                and count.protocol == probe.protocol
                and canonical(count.address) in addresses
            ):
                yield PortFact(name, "dropped"), count.ports


def end_of(facts: Iterable[PortFact], probe: Probe, index: Index) -> End:
    """Sum up what is said of the same ports."""
    facts = tuple(facts)
    agents = [index.agents[name] for name in probe.answerers if name in index.agents]
    confirmed = any(confirmation_of(agent) is not None for agent in agents)
    dropping = {fact.node for fact in facts if fact.kind == "dropped"}
    occupied = sorted(
        (fact for fact in facts if fact.kind == "occupied"),
        key=lambda fact: (not fact.owner_listens, fact.owner),
    )
    denied = sorted(fact.detail for fact in facts if fact.kind == "denied")
    return End(
        ready=any(agent.state == "ready" for agent in agents),
        confirmed=confirmed,
        absence=None if confirmed else _absence(agents),
        held=any(fact.kind == "held" and fact.node not in dropping for fact in facts),
        dropped=bool(dropping),
        owner=occupied[0].owner if occupied else None,
        owner_listens=bool(occupied) and occupied[0].owner_listens,
        in_front=bool(occupied) and all(fact.at_vip for fact in occupied),
        denied=denied[0] if denied else None,
    )


def _absence(agents: list[AgentObservation]) -> Cause:
    """The cause for which nobody confirms: of the agent that came furthest."""
    if any(agent.state in {"ready", "lost"} for agent in agents):
        return Cause.AGENT_LOST
    if any(agent.state == "refused" for agent in agents):
        return Cause.AGENT_REFUSED
    return Cause.AGENT_UNREACHABLE


def _listening_addresses(probe: Probe, node: str, index: Index) -> frozenset[str]:
    """Where a listener stands that answers this probe: behind a VIP, on the node's own address."""
    asked = canonical(probe.address)
    if not is_vip(probe) or node not in index.nodes:
        return frozenset({asked})
    own = map(canonical, index.nodes[node].addresses)
    return frozenset({asked, *(address for address in own if (":" in address) == (":" in asked))})


def _matching(
    states: tuple[ListenerState, ...], probe: Probe, addresses: frozenset[str]
) -> Iterator[ListenerState]:
    for state in states:
        if state.protocol == probe.protocol and canonical(state.address) in addresses:
            yield state


def _fact(node: str, state: ListenerState, probe: Probe) -> PortFact:
    kind: Literal["occupied", "denied"] = "occupied" if state.state == "occupied" else "denied"
    at_vip = is_vip(probe) and canonical(state.address) == canonical(probe.address)
    return PortFact(node, kind, state.owner, state.owner_listens, state.detail, at_vip)
