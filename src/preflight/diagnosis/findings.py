"""What there is to tell of a run: troubles with flows, then with nodes, then notes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from preflight.diagnosis import catalog
from preflight.diagnosis.absence import absence_findings
from preflight.diagnosis.catalog import Kind, fix_for
from preflight.diagnosis.destination import confirmation_of, port_facts
from preflight.diagnosis.grouping import (
    Group,
    describe,
    group_records,
    list_ends,
    name_nodes,
    short_ports,
)
from preflight.diagnosis.index import Index, canonical, is_vip
from preflight.diagnosis.notes import AT_SPEED, LEFT_OUT
from preflight.diagnosis.surroundings import node_findings
from preflight.diagnosis.unheld import unheld_vips, vip_findings
from preflight.model.observation import Failure
from preflight.model.plan import Plan, Probe
from preflight.model.report import Cause, Finding, FlowRecord, Verdict

_WRONG = frozenset({Verdict.BLOCKED, Verdict.INTERCEPTED})
_PROVEN = frozenset({Verdict.OPEN, Verdict.DEGRADED})
_KINDS_BY_CAUSE = {
    Cause.NO_BACKEND: catalog.NO_BACKEND,
    Cause.LOSS: catalog.DEGRADED_LOSS,
    Cause.PATH_MTU: catalog.PATH_MTU,
}
_KINDS_UNTESTED = {
    Cause.LOSS: catalog.TOO_LOSSY,
    Cause.NO_NEIGHBOUR: catalog.NO_NEIGHBOUR,
    Cause.SKIPPED: catalog.NOT_TESTED,
}
_SEVERITIES = ("error", "warning", "info")


def list_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> tuple[Finding, ...]:
    """Every finding of a run: that it was interrupted, then errors first."""
    found = [
        *_flow_findings(plan, index, records),
        *vip_findings(plan, index, records),
        *_unsteady_vips(plan, index, records),
        *_source_findings(plan, index, records),
        *absence_findings(plan, index, records),
        *node_findings(plan, index, records),
        *(catalog.PLAN_NOTE.fill(note=note) for note in plan.notes),
    ]
    found.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    interrupted = (catalog.INTERRUPTED.fill(),) if index.interrupted else ()
    return (*interrupted, *found)


def _flow_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    chosen: dict[Kind, list[int]] = defaultdict(list)
    unheld = set(unheld_vips(plan, index, records))
    for number, record in enumerate(records):
        kind = None if number in unheld else _kind_of(record)
        # One finding says that the run was interrupted, or what the plan left out; that is enough.
        said = index.interrupted or record.detail.startswith(LEFT_OUT)
        if kind is not None and not (kind is catalog.NOT_TESTED and said):
            chosen[kind].append(number)
    for kind, numbers in chosen.items():
        for group in group_records(records, numbers):
            yield _tell(kind, group, plan, records)


def _kind_of(record: FlowRecord) -> Kind | None:
    """The kind of finding that a record calls for, if any."""
    if record.verdict is Verdict.UNTESTED:
        if record.detail.startswith(AT_SPEED):
            return catalog.TOO_FAST
        return _KINDS_UNTESTED.get(record.cause) if record.cause is not None else None
    if record.expected == "blocked":
        return catalog.EXPOSED if record.verdict is not Verdict.BLOCKED else None
    if record.cause is None:
        return None
    if record.verdict in _WRONG and not record.required:
        return catalog.BLOCKED_OPTIONAL
    if record.verdict is Verdict.INTERCEPTED:
        return catalog.INTERCEPTED
    return _KINDS_BY_CAUSE.get(record.cause, catalog.BLOCKED)


def _tell(kind: Kind, group: Group, plan: Plan, records: Sequence[FlowRecord]) -> Finding:
    trouble = group.trouble
    sources, destinations = list_ends(group, records)
    words = {
        "sources": sources,
        "destinations": destinations,
        "ports": short_ports(group.ports),
        "protocol": trouble.protocol,
        "reporter": trouble.reporter or "a device",
        "answered_by": trouble.answered_by or "another node",
    }
    fix = fix_for(trouble.cause, trouble.where).format_map(words)
    return kind.fill(
        flows=group.flows,
        flow=describe(group, plan),
        verdict=trouble.verdict.value,
        cause=_cause_in_words(group),
        detail=_detail(group, records),
        fix=fix,
        **words,
    )


def _cause_in_words(group: Group) -> str:
    trouble = group.trouble
    cause = trouble.cause.value if trouble.cause is not None else "proven"
    if trouble.answered_by is not None:
        return f"{cause} ({trouble.answered_by})"
    return f"{cause}, by {trouble.reporter}" if trouble.reporter is not None else cause


def _detail(group: Group, records: Sequence[FlowRecord]) -> str:
    """The first record's sentence, and how many more say the like."""
    detail = records[group.flows[0]].detail
    more = len(group.flows) - 1
    return f"{detail} (and {more} more like it)" if more else detail


def _unsteady_vips(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """VIPs that are open, but not with every connection."""
    failing = {
        (probe.source, probe.destination)
        for probe in plan.probes
        if is_vip(probe) and _all_confirmed(probe, index)
        if _some_failed(probe, index) or _one_is_never_met(probe, index)
    }
    numbers = [
        number
        for number, record in enumerate(records)
        if record.verdict in _PROVEN and (record.source, record.destination) in failing
    ]
    for group in group_records(records, numbers):
        yield _tell(catalog.VIP_UNSTEADY, group, plan, records)


def _some_failed(probe: Probe, index: Index) -> bool:
    well = {None, Failure.CONNECTED_ONLY, Failure.SKIPPED}
    return any(outcome.failure not in well for outcome in index.outcomes.get(probe.id, ()))


def _one_is_never_met(probe: Probe, index: Index) -> bool:
    """Whether a backend listens, answered nothing, and attempts got lost as often as if they had
    been led there. Each of them was followed by another one that met a backend which answers.
    """
    outcomes = [o for o in index.outcomes.get(probe.id, ()) if o.failure is None]
    answered = sum(outcome.answered for outcome in outcomes)
    lost = sum(outcome.attempts for outcome in outcomes) - answered
    listening = {fact.node for fact, _ in port_facts(probe, index) if fact.kind == "held"}
    never = listening - {outcome.answered_by for outcome in outcomes}
    # An equal part of the attempts is a backend's; half of that is no accident.
    return bool(never) and lost >= max(2.0, answered / (2 * len(probe.answerers)))


def _all_confirmed(probe: Probe, index: Index) -> bool:
    """Whether every backend's agent was there to answer: else a failure may be our own."""
    agents = [index.agents.get(name) for name in probe.answerers]
    return all(agent is not None and confirmation_of(agent) is not None for agent in agents)


def _source_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """Sources that leave from, or are seen under, another address than the plan's."""
    observed: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    others: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    hidden: dict[str, set[tuple[str, str]]] = defaultdict(set)
    vips = {vip.name for vip in plan.vips}
    addresses = {
        (flow.source, flow.destination, canonical(flow.destination_address)): flow.source_address
        for flow in plan.flows
    }
    for probe in plan.probes:
        pair = (probe.source, probe.destination, canonical(probe.address))
        address = addresses.get(pair)
        if address is None:
            continue
        for outcome in index.outcomes.get(probe.id, ()):
            local = canonical(outcome.local_address or address)
            seen = canonical(outcome.observed_source or local)
            translated = seen not in {canonical(address), local}
            if translated and probe.destination in vips:
                hidden[probe.destination].add((probe.source, seen))
            elif translated:
                observed[probe.source, address, local, seen].append(probe.destination)
            if _is_other(local, address) and not index.nodes[probe.source].nat:
                others[probe.source, address, local].append(probe.destination)
    for (source, address, local, seen), names in observed.items():
        yield catalog.NAT_OBSERVED.fill(
            flows=_flows_between(records, source, address, names),
            source=source,
            destinations=name_nodes(tuple(dict.fromkeys(names)), plan),
            observed=seen,
            left=local,
            address=address,
        )
    for vip, pairs in hidden.items():
        yield catalog.VIP_HIDES_SOURCE.fill(
            destinations=vip,
            sources=name_nodes(tuple(sorted({source for source, _ in pairs})), plan),
            observed=", ".join(sorted({seen for _, seen in pairs})),
        )
    for (source, address, local), names in others.items():
        yield catalog.OTHER_SOURCE.fill(
            flows=_flows_between(records, source, address, names),
            source=source,
            destinations=name_nodes(tuple(dict.fromkeys(names)), plan),
            local=local,
            address=address,
        )


def _is_other(local: str, address: str) -> bool:
    """Whether the kernel chose another source address than the plan's. It leaves for any
    loopback address from 127.0.0.1: that is no choice of this machine's routes.
    """
    planned = canonical(address)
    return local != planned and not (_is_loopback(local) and _is_loopback(planned))


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")


def _flows_between(
    records: Sequence[FlowRecord], source: str, address: str, destinations: Sequence[str]
) -> tuple[int, ...]:
    wanted = set(destinations)
    return tuple(
        number
        for number, record in enumerate(records)
        if record.source == source
        and record.source_address == address
        and record.destination in wanted
    )
