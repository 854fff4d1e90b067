"""What a run will do, for programs: `preflight plan --format json`."""

from typing import Literal

import msgspec
from msgspec import Struct

from preflight.model.cluster import Expected, Protocol
from preflight.model.plan import Family, Limits, Plan, PlannedNode, PlannedRule, PlannedVip
from preflight.planning import PlanCount, count, sample_ports
from preflight.ports import format_ports


class PlannedFlow(Struct, frozen=True, kw_only=True):
    """A flow, with its ports as the report writes them."""

    source: str
    destination: str
    protocol: Protocol
    family: Family
    source_address: str
    destination_address: str
    ports: str
    tried: str
    """Those of the ports that are probed for this rule: all, or a sample of each range."""
    rule: str
    required: bool
    expected: Expected


class PlanDocument(Struct, frozen=True, kw_only=True):
    """`preflight.plan/1`. Fields are only ever added."""

    schema: Literal["preflight.plan/1"] = "preflight.plan/1"
    cluster: str
    profiles: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    vips: tuple[PlannedVip, ...]
    rules: tuple[PlannedRule, ...]
    flows: tuple[PlannedFlow, ...]
    limits: Limits
    count: PlanCount
    notes: tuple[str, ...]


def render_plan_json(plan: Plan) -> str:
    """The plan as JSON, indented."""
    document = PlanDocument(
        cluster=plan.cluster,
        profiles=plan.profiles,
        nodes=plan.nodes,
        vips=plan.vips,
        rules=plan.rules,
        flows=tuple(
            PlannedFlow(
                source=flow.source,
                destination=flow.destination,
                protocol=flow.protocol,
                family=flow.family,
                source_address=flow.source_address,
                destination_address=flow.destination_address,
                ports=format_ports(flow.ports),
                tried=format_ports(sample_ports(flow.ports, plan.limits.sample)),
                rule=flow.rule,
                required=flow.required,
                expected=flow.expected,
            )
            for flow in plan.flows
        ),
        limits=plan.limits,
        count=count(plan),
        notes=plan.notes,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
