"""Plan and observations by the keys that the rules ask for: pure look-up, no judgement."""

import ipaddress
from collections import defaultdict
from functools import lru_cache

import msgspec
from msgspec import Struct

from preflight.columns import each_sighting
from preflight.model.observation import (
    AgentObservation,
    Failure,
    Observations,
    Outcome,
    Reason,
    Sighting,
    Sightings,
)
from preflight.model.plan import Plan, PlannedNode, Probe
from preflight.ports import Ranges, union

_NOTHING_HEARD = frozenset(
    {
        Failure.NO_ANSWER,
        Failure.NO_NEIGHBOUR,
        Failure.NO_ROUTE,
        Failure.SEND_DENIED,
        Failure.ICMP,
        Failure.SKIPPED,
        Failure.LOCAL_LIMIT,
    }
)
"""An ICMP error may be anybody's: it is no word from the address itself."""


class Index(Struct, frozen=True):
    """One run's observations, each found in one step and in an order of its own."""

    plan: Plan
    interrupted: bool
    nodes: dict[str, PlannedNode]
    agents: dict[str, AgentObservation]
    """One for each planned node, whether or not anything was heard of it."""
    instances: dict[str, str]
    """Instance id -> the node that greeted with it."""
    outcomes: dict[int, tuple[Outcome, ...]]
    """`Probe.id` -> its outcomes, without the full-size ones."""
    full_size: dict[int, tuple[Outcome, ...]]
    no_neighbour: dict[tuple[str, str], Outcome]
    """(source, probed address) -> an outcome in which nobody answered ARP or ND for it."""
    heard: frozenset[tuple[str, str]]
    """(source, probed address) from which something came back, whatever it was."""
    claimed: frozenset[tuple[str, int]]
    """Source address and port of every listed attempt."""
    node_addresses: frozenset[str]
    """Every address that a planned node is known to have."""
    translated: dict[tuple[str, str], frozenset[str]]
    """(source, destination) -> addresses that the source was seen under, and never left from."""
    untranslated: frozenset[tuple[str, str]]
    """(source, probed address) between which connections were proven, and each listener saw the
    address that they left from."""
    denied: dict[tuple[str, str], Ranges]
    """(source, probed address) -> UDP ports that the source's own kernel would not send to."""
    challenged: dict[str, tuple[Sightings, ...]]
    """Probe id in hexadecimal -> who saw it."""
    unchallenged: dict[tuple[str, int], tuple[Sighting, ...]]
    """(node, listener's port) -> TCP connections that never sent a valid challenge."""


@lru_cache(maxsize=65_536)
def canonical(address: str) -> str:
    """One spelling for each address (RFC 5952), without its zone; other text as it is."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def index_observations(plan: Plan, observations: Observations) -> Index:
    """Sort everything, so that no verdict depends on the order in which things were heard."""
    agents = {node.name: _missing(node.name) for node in plan.nodes}
    for agent in sorted(observations.agents, key=_agent_order, reverse=True):
        if agent.node in agents:
            agents[agent.node] = agent
    outcomes: dict[int, list[Outcome]] = defaultdict(list)
    full_size: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in observations.outcomes:
        kept = full_size if outcome.size >= plan.limits.full_size else outcomes
        kept[outcome.probe].append(outcome)
    challenged: dict[str, tuple[Sightings, ...]] = {}
    unchallenged: dict[tuple[str, int], list[Sighting]] = defaultdict(list)
    for seen in observations.sightings:
        for probe_id in seen.probe_ids:
            challenged[probe_id] = (*challenged.get(probe_id, ()), seen)
        if not seen.probe_ids and seen.protocol == "tcp":
            for sighting in each_sighting((seen,)):
                unchallenged[sighting.node, sighting.port].append(sighting)
    in_order = {probe: _in_order(found) for probe, found in outcomes.items()}
    return Index(
        plan=plan,
        interrupted=observations.interrupted,
        nodes={node.name: node for node in plan.nodes},
        agents=agents,
        instances={agent.instance: name for name, agent in agents.items() if agent.instance},
        outcomes=in_order,
        full_size={probe: _in_order(found) for probe, found in full_size.items()},
        no_neighbour={
            (probe.source, canonical(probe.address)): outcome
            for probe in plan.probes
            for outcome in in_order.get(probe.id, ())
            if outcome.failure is Failure.NO_NEIGHBOUR
        },
        heard=frozenset(
            (probe.source, canonical(probe.address))
            for probe in plan.probes
            for outcome in in_order.get(probe.id, ())
            if outcome.failure not in _NOTHING_HEARD
        ),
        claimed=frozenset(
            (canonical(attempts.local_address), local_port)
            for outcome in observations.outcomes
            for attempts in outcome.unanswered
            for local_port in attempts.local_ports
        ),
        node_addresses=frozenset(
            canonical(address)
            for node in plan.nodes
            for address in (*node.addresses, *agents[node.name].facts.addresses)
        ),
        translated=_translated(plan, in_order),
        untranslated=_untranslated(plan, in_order),
        denied={
            (probe.source, canonical(probe.address)): denied
            for probe in plan.probes
            if probe.protocol == "udp"
            if (denied := _denied(in_order.get(probe.id, ())))
        },
        challenged=challenged,
        unchallenged={place: tuple(found) for place, found in unchallenged.items()},
    )


def is_vip(probe: Probe) -> bool:
    """Whether the probe asks a virtual address: any of several nodes may answer."""
    return probe.answerers != (probe.destination,)


def addresses_of(index: Index, names: tuple[str, ...]) -> frozenset[str]:
    """Every address that these nodes are known to have, in canonical spelling."""
    found: set[str] = set()
    for name in names:
        if name in index.nodes:
            found.update(map(canonical, index.nodes[name].addresses))
            found.update(map(canonical, index.agents[name].facts.addresses))
    return frozenset(found)


def _translated(
    plan: Plan, outcomes: dict[int, tuple[Outcome, ...]]
) -> dict[tuple[str, str], frozenset[str]]:
    observed: dict[tuple[str, str], set[str]] = defaultdict(set)
    local: dict[tuple[str, str], set[str]] = defaultdict(set)
    for probe in plan.probes:
        pair = (probe.source, probe.destination)
        for outcome in outcomes.get(probe.id, ()):
            if outcome.observed_source:
                observed[pair].add(canonical(outcome.observed_source))
            if outcome.local_address:
                local[pair].add(canonical(outcome.local_address))
    return {pair: frozenset(seen - local[pair]) for pair, seen in observed.items()}


def _untranslated(
    plan: Plan, outcomes: dict[int, tuple[Outcome, ...]]
) -> frozenset[tuple[str, str]]:
    same: dict[tuple[str, str], bool] = {}
    for probe in plan.probes:
        way = (probe.source, canonical(probe.address))
        for outcome in outcomes.get(probe.id, ()) if probe.protocol == "tcp" else ():
            seen, local = outcome.observed_source, outcome.local_address
            if seen and local:
                same[way] = same.get(way, True) and canonical(seen) == canonical(local)
    return frozenset(way for way, is_same in same.items() if is_same)


def _denied(outcomes: tuple[Outcome, ...]) -> Ranges:
    return union(*(o.ports for o in outcomes if o.failure is Failure.SEND_DENIED))


def _missing(node: str) -> AgentObservation:
    return AgentObservation(
        node=node, state="unreachable", reason=Reason.NOT_CALLED, detail="no conversation"
    )


def _agent_order(agent: AgentObservation) -> tuple[bool, bytes]:
    """Where an agent is told of twice, the ready one counts (it comes last in reverse)."""
    return agent.state != "ready", msgspec.json.encode(agent, order="sorted")


def _in_order(outcomes: list[Outcome]) -> tuple[Outcome, ...]:
    if len(outcomes) == 1:
        return tuple(outcomes)
    return tuple(sorted(outcomes, key=msgspec.json.encode))
