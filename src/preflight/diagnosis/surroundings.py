"""Findings about nodes: their agents, ports held by others, clocks and settings."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from preflight.diagnosis import catalog
from preflight.diagnosis.destination import confirmation_of
from preflight.diagnosis.index import Index
from preflight.diagnosis.notes import agent_note
from preflight.model.cluster import Protocol
from preflight.model.observation import AgentObservation, ListenerState
from preflight.model.plan import Plan, PlannedNode
from preflight.model.report import Cause, Finding, FlowRecord
from preflight.ports import Ranges, format_ports, intersect, parse_ports, union

CLOCK_LIMIT_MS = 500.0
"""Clocks further apart than this are told of."""
_MINUTE_MS = 60_000.0
NODE_PORTS = ((30_000, 65_535),)
"""Ports that an outgoing connection may have as its local port, where services listen too."""

_AGENT_KINDS = {
    "unreachable": catalog.AGENT_UNREACHABLE,
    "refused": catalog.AGENT_REFUSED,
    "lost": catalog.AGENT_LOST,
}
_HELD_CAUSES = frozenset({Cause.PORT_IN_USE, Cause.BIND_DENIED})
_AGENT_CAUSES = frozenset({Cause.AGENT_UNREACHABLE, Cause.AGENT_REFUSED, Cause.AGENT_LOST})


def node_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """Everything about the nodes, in the plan's order."""
    for node in plan.nodes:
        agent = index.agents[node.name]
        yield from _agent(node, agent, records)
        yield from _occupied(agent, records)
        yield from _clock(agent)
        if node.nat:
            yield catalog.NAT_NODE.fill(node=node.name)
        yield from _local_ports(plan, agent)


def _agent(
    node: PlannedNode, agent: AgentObservation, records: Sequence[FlowRecord]
) -> Iterator[Finding]:
    flows = tuple(
        number
        for number, record in enumerate(records)
        if record.cause in _AGENT_CAUSES and node.name in {record.source, record.destination}
    )
    unconfirmed = bool(flows) and confirmation_of(agent) is None
    kind = _AGENT_KINDS.get(agent.state, catalog.AGENT_LOST if unconfirmed else None)
    if kind is not None:
        yield kind.fill(
            flows=flows,
            node=node.name,
            host=node.control_host,
            port=node.control_port,
            detail=agent_note(agent),
        )


def _occupied(agent: AgentObservation, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """One finding for each program that holds ports, and one for ports that may not be bound."""
    held: dict[tuple[Protocol, str], list[ListenerState]] = defaultdict(list)
    denied: dict[tuple[Protocol, str], list[ListenerState]] = defaultdict(list)
    for listener in sorted(agent.listeners, key=lambda listener: listener.ports):
        if listener.state == "occupied":
            held[listener.protocol, listener.owner].append(listener)
        elif listener.state == "denied":
            denied[listener.protocol, listener.detail].append(listener)
    for (protocol, owner), states in held.items():
        silent = not any(state.owner_listens for state in states)
        yield catalog.PORT_OCCUPIED.fill(
            flows=_flows_on(states, agent.node, records),
            node=agent.node,
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
    return tuple(
        number
        for number, record in enumerate(records)
        if record.destination == node
        and record.protocol == states[0].protocol
        and (record.proof == "connection" or record.cause in _HELD_CAUSES)
        and intersect(parse_ports(record.ports), ports)
    )


def _ports(states: Sequence[ListenerState]) -> str:
    return format_ports(union(*(state.ports for state in states)))
