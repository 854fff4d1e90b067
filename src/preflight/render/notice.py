"""What a run will do, for those who guard the network: a text to send to them beforehand."""

import math
import textwrap
from collections.abc import Iterable, Iterator

from preflight.diagnosis.naming import listed
from preflight.model.plan import Close, Plan
from preflight.planning import PlanCount, count, sample_ports
from preflight.ports import count_ports, format_ports
from preflight.render.plan_groups import FlowGroup, group_flows
from preflight.render.plan_text import place
from preflight.wire.challenge import MAGIC

_WIDTH = 78
_LOOKS_LIKE_A_SCAN = 20
"""Ports of one range; detectors of scans count about as many of one source."""
_BLANK = "_" * 30


def render_notice(plan: Plan) -> str:
    """A plain text, to be sent as it is once its blank lines are filled in."""
    counted = count(plan)
    sections = [
        _opening(plan, counted),
        ["WHO TO CALL", f"  Name and telephone: {_BLANK}", f"  When:               {_BLANK}"],
        ["WHAT WILL BE SEEN", *_manner(plan, counted)],
        ["HOW TO RECOGNISE IT", *_marks(plan.limits.close)],
        ["WHAT REMAINS", *_remains(counted)],
        ["CONNECTIONS OF THE TEST ITSELF", *_control(plan, counted)],
        ["CONNECTIONS THAT ARE TRIED"],
        *(list(_block(plan, group)) for group in group_flows(plan)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _opening(plan: Plan, counted: PlanCount) -> list[str]:
    return [
        f"NOTICE OF A CONNECTIVITY TEST: cluster {plan.cluster}",
        "",
        _wrapped(
            f"We will test whether the network lets through what the cluster {plan.cluster} needs "
            f"({', '.join(plan.profiles)}). The test runs between {len(plan.nodes)} machines of "
            "ours, with the tool preflight running on each of them. It is no attack: "
            f"only the {counted.flows:,} flows and the control connections listed below are "
            "tried, and no other address is contacted."
        ),
        *_looks_like(plan),
    ]


def _looks_like(plan: Plan) -> Iterator[str]:
    """Ranges that something that watches for scans will tell of."""
    wide = dict.fromkeys(
        f"{format_ports((one,))}/{flow.protocol}"
        for flow in plan.flows
        for one in flow.ports
        if count_ports(sample_ports((one,), plan.limits.sample)) >= _LOOKS_LIKE_A_SCAN
    )
    if wide:
        yield ""
        yield _wrapped(
            f"To an intrusion detection system it will look like a port scan of {listed([*wide])}: "
            "many ports are tried within seconds, from the sources that are listed with them."
        )


def _manner(plan: Plan, counted: PlanCount) -> Iterator[str]:
    rate = plan.limits.rate
    yield _item(
        f"{counted.connections:,} TCP connections, and {counted.datagrams:,} to "
        f"{counted.most_datagrams:,} UDP datagrams"
    )
    yield _item(
        "no limit on new connections a second"
        if rate is None
        else f"at most {rate:,.0f} new connections a second over all machines together"
    )
    yield _item(
        f"at most {plan.limits.max_half_open:,} TCP connections without an answer to their SYN"
    )
    if plan.limits.sample is not None:
        yield _item(
            f"a sample: of each range with more ports, only {plan.limits.sample:,} ports are tried"
        )
    yield _item(f"{math.ceil(counted.seconds):,} seconds at most, from first to last packet")


def _marks(close: Close) -> Iterator[str]:
    yield _item(
        f"every payload begins with the four bytes {MAGIC.hex(' ')} (hexadecimal), both ways, in "
        "TCP and in UDP"
    )
    yield _item("every payload ends with an HMAC-SHA256 over all of it, 32 bytes")
    yield _item(
        "connections are ended by the source with a reset (RST), so that none lingers in TIME_WAIT"
        if close == "reset"
        else "connections are ended in order, with FIN, by the source first"
    )
    yield _item(
        "payloads are 256 bytes, once for each pair of machines 8,192 bytes; nothing is sent to a "
        "port that another program holds"
    )


def _remains(counted: PlanCount) -> Iterator[str]:
    yield _item("the machines stop listening on these ports when the test ends: nothing stays open")
    yield _item(
        f"a firewall that sees all of it holds at most {counted.state_entries:,} entries in its "
        "state table, which go by themselves"
    )


def _control(plan: Plan, counted: PlanCount) -> Iterator[str]:
    if not counted.control:
        yield _item("none")
        return
    yield _item("for the time of the test only: TLS 1.3, both sides with certificates of our own")
    embedded = [node for node in plan.nodes if node.embedded]
    for node in embedded:
        yield _item(f"from: {', '.join(node.addresses)} ({node.name}, which runs the test)")
    if not embedded:
        yield _item(f"from: the machine that runs the test, {_BLANK}")
    for control in counted.control:
        yield _item(f"to: {place(control.address, control.port)}/tcp ({control.node})")


def _block(plan: Plan, group: FlowGroup) -> Iterator[str]:
    """The flows of a group in the form of a firewall request."""
    flows = {
        (flow.source, flow.destination, flow.family): flow
        for flow in plan.flows
        if (flow.rule, flow.protocol, flow.ports) == (group.rule.name, group.protocol, group.ports)
    }
    tried = sample_ports(group.ports, plan.limits.sample)
    ports = f"{', '.join(format_ports(tried).split(','))}/{group.protocol}"
    heading = f"--- {group.rule.name}: {format_ports(group.ports)}/{group.protocol}"
    if tried != group.ports:
        heading += f" ({count_ports(tried):,} of {count_ports(group.ports):,} ports)"
    yield heading
    yield _wrapped(f"{group.rule.why}.")
    for box in group.boxes:
        ours = [
            flow
            for (source, destination, family), flow in flows.items()
            if source in box.sources
            and destination in box.destinations
            and family in group.families
        ]
        among = " (each to each other)" if box.sources == box.destinations else ""
        yield f"SOURCE{among}:"
        yield from _addresses(plan, ((flow.source, flow.source_address) for flow in ours))
        yield "DESTINATION:"
        yield from _addresses(plan, ((flow.destination, flow.destination_address) for flow in ours))
        yield textwrap.fill(ports, width=_WIDTH, initial_indent="  ", subsequent_indent="  ")


def _addresses(plan: Plan, ends: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each address once, in the plan's order."""
    found: dict[str, dict[str, None]] = {}
    for name, address in ends:
        found.setdefault(name, {})[address] = None
    for known in (*(node.name for node in plan.nodes), *(vip.name for vip in plan.vips)):
        for address in found.get(known, ()):
            yield f"  {address} ({known})"


def _item(text: str) -> str:
    return textwrap.fill(
        text, width=_WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=_WIDTH, break_on_hyphens=False)
