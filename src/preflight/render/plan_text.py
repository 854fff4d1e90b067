"""What a run will do, for the one who starts it: `preflight plan`."""

import math
import textwrap
from collections.abc import Iterator

from preflight.model.plan import Limits, Plan
from preflight.planning import PlanCount, count, sample_ports
from preflight.ports import count_ports, format_ports
from preflight.render.plan_groups import FlowGroup, box_lines, group_flows, name_nodes

_WIDTH = 100


def render_plan(plan: Plan) -> str:
    """The whole plan as text: nodes, flows by rule, cost, control connections, notes."""
    counted = count(plan)
    paragraphs = [
        [f"Plan for cluster {plan.cluster}, profile {', '.join(plan.profiles)}"],
        ["Nodes", *_node_lines(plan)],
        ["Flows", *(line for group in group_flows(plan) for line in _group_lines(plan, group))],
        ["Cost", *(f"  {line}" for line in cost_lines(counted, plan.limits))],
        ["Control connections (for the time of the run only)", *_control_lines(counted)],
    ]
    if plan.notes:
        paragraphs.append(["Notes", *(_wrapped(f"- {note}", 2) for note in plan.notes)])
    return "\n\n".join("\n".join(lines) for lines in paragraphs) + "\n"


def cost_lines(counted: PlanCount, limits: Limits) -> Iterator[str]:
    """How many, how fast, how long, and what it can leave behind."""
    yield (
        f"{counted.flows:,} probes (source, destination, protocol and port): "
        f"{counted.connections:,} TCP connections,"
    )
    yield f"and {counted.datagrams:,} UDP datagrams (at most {counted.most_datagrams:,})"
    if limits.rate is None:
        yield "rate: no limit"
    else:
        yield f"rate: at most {limits.rate:,.0f} new connections a second in the whole run"
    yield (f"without an answer: at most {limits.max_half_open:,} TCP connections in the whole run")
    if limits.sample is not None:
        yield f"sample: {limits.sample:,} ports of each range with more; the others are untested"
    if limits.close == "reset":
        yield "closing: the source resets each TCP connection; no side keeps it in TIME_WAIT"
    else:
        yield "closing: the source ends each TCP connection in order (FIN), and keeps TIME_WAIT"
    yield f"duration: {math.ceil(counted.seconds):,} s at most, all phases together"
    yield (
        f"firewall state: at most {counted.state_entries:,} entries in a table that sees all of it"
    )


def place(address: str, port: int) -> str:
    """`10.0.1.11:10888`, `[fd00::11]:10888`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _node_lines(plan: Plan) -> Iterator[str]:
    rows = [(node.name, ", ".join(node.addresses), ", ".join(node.roles)) for node in plan.nodes]
    rows += [
        (vip.name, place(vip.address, vip.port), f"VIP of {name_nodes(plan, vip.backends)}")
        for vip in plan.vips
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, address, roles in rows:
        yield f"  {name:<{widths[0]}}  {address:<{widths[1]}}  {roles}"


def _group_lines(plan: Plan, group: FlowGroup) -> Iterator[str]:
    marks = [f"IPv{family}" for family in group.families]
    if not group.required:
        marks.append("not required")
    if group.expected != "open":
        marks.append(f"must be {group.expected}")
    tried = sample_ports(group.ports, plan.limits.sample)
    if tried != group.ports:
        marks.append(f"{count_ports(tried):,} of {count_ports(group.ports):,} ports tried")
    heading = f"{group.rule.name}  {format_ports(group.ports)}/{group.protocol}"
    yield f"  {heading}  ({', '.join(marks)})"
    yield _wrapped(group.rule.why, 6)
    if tried != group.ports:
        yield _wrapped(f"tried: {', '.join(format_ports(tried).split(','))}", 6)
    for line in box_lines(plan, group):
        yield _wrapped(line, 4)


def _control_lines(counted: PlanCount) -> Iterator[str]:
    if not counted.control:
        yield "  none: every agent runs inside the coordinator"
    for control in counted.control:
        yield f"  coordinator → {control.node}  {place(control.address, control.port)}/tcp"


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
