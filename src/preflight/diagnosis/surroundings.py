"""Findings about nodes: ports held by others, clocks and settings."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from preflight.diagnosis import catalog
from preflight.diagnosis.backlogs import small_backlogs
from preflight.diagnosis.index import Index, canonical
from preflight.diagnosis.naming import listed
from preflight.model.cluster import Protocol
from preflight.model.observation import AgentObservation, ListenerState
from preflight.model.plan import Plan, PlannedNode
from preflight.model.report import Cause, Finding, FlowRecord
from preflight.ports import Ranges, format_ports, intersect, overlap, parse_ports, union

CLOCK_LIMIT_MS = 500.0
"""Clocks further apart than this are told of."""
_MINUTE_MS = 60_000.0
NODE_PORTS = ((30_000, 65_535),)
"""Ports that an outgoing connection may have as its local port, where services listen too."""

_HELD_CAUSES = frozenset({Cause.PORT_IN_USE, Cause.BIND_DENIED})


def node_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """Everything about the nodes but for missing agents, in the plan's order."""
    for node in plan.nodes:
        agent = index.agents[node.name]
        yield from _occupied(node, agent, records)
        yield from _clock(agent)
        if node.nat:
            yield catalog.NAT_NODE.fill(node=node.name)
        yield from _local_ports(plan, agent)
    yield from small_backlogs(plan, index)


def _occupied(
    node: PlannedNode, agent: AgentObservation, records: Sequence[FlowRecord]
) -> Iterator[Finding]:
    """One finding for each program that holds ports, and one for ports that may not be bound.

    What it holds at an address that is not of the node's own, as a VIP's is, is told apart.
    """
    own = set(map(canonical, node.addresses))
    held: dict[tuple[Protocol, str, bool], list[ListenerState]] = defaultdict(list)
    denied: dict[tuple[Protocol, str], list[ListenerState]] = defaultdict(list)
    for listener in sorted(agent.listeners, key=lambda listener: listener.ports):
        if listener.state == "occupied":
            is_own = canonical(listener.address) in own
            held[listener.protocol, listener.owner, is_own].append(listener)
        elif listener.state == "denied":
            denied[listener.protocol, listener.detail].append(listener)
    for (protocol, owner, _), states in held.items():
        silent = not any(state.owner_listens for state in states)
        yield catalog.PORT_OCCUPIED.fill(
            flows=_flows_on(states, agent.node, records),
            node=agent.node,
            place=_place(node, states),
            ports=_ports(states),
            protocol=protocol,
            owner=owner or "another program",
            detail=" It does not listen there." if silent and protocol == "tcp" else "",
        )
    for (protocol, detail), states in denied.items():
        yield catalog.BIND_DENIED.fill(
            flows=_flows_on(states, agent.node, records),
            node=agent.node,
            ports=_ports(states),
            protocol=protocol,
            detail=detail,
        )


def _clock(agent: AgentObservation) -> Iterator[Finding]:
    offset = agent.clock_offset_ms
    if offset is not None and abs(offset) > CLOCK_LIMIT_MS:
        size = abs(offset)
        yield catalog.CLOCK_OFFSET.fill(
            node=agent.node,
            offset=f"{size / 1000:.1f} s" if size < _MINUTE_MS else f"{size / _MINUTE_MS:,.0f} min",
            direction="ahead of" if offset > 0 else "behind",
        )


def _local_ports(plan: Plan, agent: AgentObservation) -> Iterator[Finding]:
    own = agent.facts.local_port_range
    if own is None:
        return
    planned: Ranges = union(*(one.ports for one in plan.listens if one.node == agent.node))
    shared = intersect(intersect(planned, NODE_PORTS), (own,))
    if shared:
        first, last = own
        ports = format_ports(shared)
        yield catalog.LOCAL_PORT_RANGE.fill(
            node=agent.node, ports=ports, first=first, last=last, reserve=ports
        )


def _flows_on(
    states: Sequence[ListenerState], node: str, records: Sequence[FlowRecord]
) -> tuple[int, ...]:
    ports = union(*(state.ports for state in states))
    addresses = {canonical(state.address) for state in states}
    return tuple(
        number
        for number, record in enumerate(records)
        if (record.destination == node or canonical(record.destination_address) in addresses)
        and record.protocol == states[0].protocol
        and (record.proof == "connection" or record.cause in _HELD_CAUSES)
        and overlap(parse_ports(record.ports), ports)
    )


def _place(node: PlannedNode, states: Sequence[ListenerState]) -> str:
    """The node's name; with the addresses, where its first one is not among them."""
    addresses = dict.fromkeys(canonical(state.address) for state in states)
    if canonical(node.addresses[0]) in addresses:
        return node.name
    return f"{node.name} ({listed(list(addresses))})"


def _ports(states: Sequence[ListenerState]) -> str:
    return format_ports(union(*(state.ports for state in states)))
