"""Findings about agents that are missing: nodes that one step would cure share a finding."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from preflight.diagnosis import catalog
from preflight.diagnosis.catalog import Kind, fix_for_absence
from preflight.diagnosis.destination import confirmation_of, lost_listeners
from preflight.diagnosis.grouping import list_nodes
from preflight.diagnosis.icmp import cause_of
from preflight.diagnosis.index import Index, canonical
from preflight.diagnosis.naming import listed
from preflight.diagnosis.notes import agent_note, was_not_called
from preflight.model.observation import AgentObservation, Failure, Reason
from preflight.model.plan import Plan, PlannedNode
from preflight.model.report import Cause, Finding, FlowRecord

_KINDS = {
    "unreachable": catalog.AGENT_UNREACHABLE,
    "refused": catalog.AGENT_REFUSED,
    "lost": catalog.AGENT_LOST,
}
_AGENT_CAUSES = frozenset({Cause.AGENT_UNREACHABLE, Cause.AGENT_REFUSED, Cause.AGENT_LOST})
_OF_ONE_NODE = frozenset({Reason.NOT_ITS_ADDRESS, Reason.NOT_AN_AGENT})
"""Reasons whose step names the node or its port."""


class Absence(Struct, frozen=True, kw_only=True):
    """What missing agents must have in common to be one finding."""

    kind: Kind
    reason: Reason
    embedded: bool
    dead: bool
    """Nobody answers at the node's own address, as the other nodes say."""
    port: int
    node: str
    """Empty where the step is the same for any node."""


def absence_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """One finding for all agents that are missing alike, in the plan's order."""
    untested: dict[str, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.cause in _AGENT_CAUSES:
            for end in {record.source, record.destination}:
                untested[end].append(number)
    dead = _dead_addresses(plan, index)
    alike: dict[Absence, list[PlannedNode]] = defaultdict(list)
    for node in plan.nodes:
        absence = _absence_of(node, index, dead, needed=node.name in untested)
        if absence is not None:
            alike[absence].append(node)
    for absence, nodes in alike.items():
        flows = {number for node in nodes for number in untested[node.name]}
        yield _tell(absence, nodes, plan, index, tuple(sorted(flows)))


def _absence_of(
    node: PlannedNode, index: Index, dead: frozenset[str], *, needed: bool
) -> Absence | None:
    """`needed`: flows are untested for want of this agent. None: nothing is to be told of it."""
    agent = index.agents[node.name]
    if was_not_called(agent, index):
        return None
    kind = _KINDS.get(agent.state)
    if needed and kind is None:
        if confirmation_of(agent) is None:
            kind = catalog.AGENT_LOST
        elif lost_listeners(agent):
            kind = catalog.AGENT_UNSTEADY
    if kind is None:
        return None
    unreached = agent.state == "unreachable"
    return Absence(
        kind=kind,
        reason=agent.reason,
        embedded=node.embedded,
        dead=unreached and not dead.isdisjoint(map(canonical, node.addresses)),
        port=node.control_port if unreached else 0,
        node=node.name if agent.reason in _OF_ONE_NODE else "",
    )


def _tell(
    absence: Absence, nodes: list[PlannedNode], plan: Plan, index: Index, flows: tuple[int, ...]
) -> Finding:
    names = [node.name for node in nodes]
    words = {
        "nodes": listed(names),
        "node": names[0],
        "places": list_nodes(names, plan),
        "hosts": listed([f"{node.name} ({node.control_host})" for node in nodes]),
        "host": nodes[0].control_host,
        "port": nodes[0].control_port,
        "them": "it" if len(nodes) == 1 else "them",
        "they_say": "it says" if len(nodes) == 1 else "they say",
    }
    fix = fix_for_absence(
        absence.kind,
        absence.reason,
        embedded=absence.embedded,
        dead=absence.dead,
        every=1 < len(nodes) == sum(not node.embedded for node in plan.nodes),
    )
    return absence.kind.fill(
        flows=flows,
        agents=f"{names[0]}'s agent" if len(names) == 1 else f"the agents of {words['nodes']}",
        detail=_detail([index.agents[name] for name in names]),
        fix=fix.format_map(words),
        **words,
    )


def _detail(agents: Sequence[AgentObservation]) -> str:
    """The first agent's clause, and how many more there are like it."""
    said, more = agent_note(agents[0]), len(agents) - 1
    return f"{said} (and {more} more like it)" if more else said


def _dead_addresses(plan: Plan, index: Index) -> frozenset[str]:
    """Addresses at which there is no host, as those say who tried, and nobody heard otherwise."""
    heard = {address for _, address in index.heard}
    dead = {address for _, address in index.no_neighbour}
    for probe in plan.probes:
        for outcome in index.outcomes.get(probe.id, ()):
            told = outcome.icmp if outcome.failure is Failure.ICMP else None
            if told is not None and cause_of(told) is Cause.ICMP_HOST_UNREACHABLE:
                dead.add(canonical(probe.address))
    return frozenset(dead - heard)
