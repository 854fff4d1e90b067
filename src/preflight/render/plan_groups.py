"""A plan's flows, grouped for reading: nodes that have the same flows under a rule together."""

from collections.abc import Iterable

from msgspec import Struct

from preflight.model.cluster import Protocol
from preflight.model.plan import Family, Flow, Plan, PlannedRule
from preflight.ports import Ranges
from preflight.render.naming import Box, boxes

_FEW = 12
"""Up to so many nodes are listed by name."""


class FlowGroup(Struct, frozen=True, kw_only=True):
    """Flows of one rule, protocol and set of ports."""

    rule: PlannedRule
    protocol: Protocol
    ports: Ranges
    required: bool
    expected: str
    families: tuple[Family, ...]
    boxes: tuple[Box, ...]


def group_flows(plan: Plan) -> tuple[FlowGroup, ...]:
    """Every flow of the plan in exactly one group (in one for each set of families)."""
    rules = {rule.name: rule for rule in plan.rules}
    gathered: dict[tuple[str, Protocol, Ranges], dict[Family, list[Flow]]] = {}
    for flow in plan.flows:
        families = gathered.setdefault((flow.rule, flow.protocol, flow.ports), {})
        families.setdefault(flow.family, []).append(flow)
    groups: list[FlowGroup] = []
    for (rule, protocol, ports), by_family in gathered.items():
        alike: dict[frozenset[tuple[str, str]], list[Family]] = {}
        for family, flows in by_family.items():
            pairs = frozenset((flow.source, flow.destination) for flow in flows)
            alike.setdefault(pairs, []).append(family)
        one = next(iter(by_family.values()))[0]
        groups.extend(
            FlowGroup(
                rule=rules[rule],
                protocol=protocol,
                ports=ports,
                required=one.required,
                expected=one.expected,
                families=tuple(sorted(families)),
                boxes=tuple(boxes(sorted(pairs))),
            )
            for pairs, families in alike.items()
        )
    return tuple(groups)


def box_lines(plan: Plan, group: FlowGroup) -> list[str]:
    """`w1, w2 → m1, m2, m3`, a line for each box of a group."""
    return [_both(plan, box) for box in group.boxes]


def name_nodes(plan: Plan, names: Iterable[str]) -> str:
    """Nodes by name, in the plan's order; of many, whole roles by their role."""
    wanted = set(names)
    known = [*(node.name for node in plan.nodes), *(vip.name for vip in plan.vips)]
    parts: list[str] = []
    if len(wanted) > _FEW:
        for role in dict.fromkeys(role for node in plan.nodes for role in node.roles):
            members = {node.name for node in plan.nodes if role in node.roles}
            if len(members) > 1 and members <= wanted:
                parts.append(f"all {len(members)} nodes with role {role}")
                wanted -= members
    return ", ".join([*parts, *(name for name in known if name in wanted)])


def _both(plan: Plan, box: Box) -> str:
    if box.sources == box.destinations:
        return f"{name_nodes(plan, box.sources)} → each other"
    return f"{name_nodes(plan, box.sources)} → {name_nodes(plan, box.destinations)}"
