"""Observations of both ends to a report. Pure: a run file gives the same report again."""

from collections import defaultdict
from collections.abc import Iterable

from preflight.diagnosis.cells import cut_cells
from preflight.diagnosis.confidence import measure_paths
from preflight.diagnosis.findings import list_findings
from preflight.diagnosis.index import Index, canonical, index_observations
from preflight.diagnosis.judgement import Scene, make_scene
from preflight.diagnosis.records import records_of_flow, unplanned_record
from preflight.diagnosis.rules import judge
from preflight.model.cluster import Protocol
from preflight.model.observation import ListenerStatus, Observations
from preflight.model.plan import Family, Flow, Plan, PlannedNode, Probe
from preflight.model.report import (
    AgentRecord,
    FlowCounts,
    FlowRecord,
    ListenerRecord,
    Report,
    RuleRecord,
    Summary,
    Verdict,
)
from preflight.ports import Ranges, count_ports, format_ports, subtract, union

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNTESTED = 3

_WORST_FIRST = (
    Verdict.INTERCEPTED,
    Verdict.BLOCKED,
    Verdict.UNTESTED,
    Verdict.DEGRADED,
    Verdict.OPEN,
)
"""Of a port that two rules ask for; loss is told by record, so that they may differ."""

_Key = tuple[str, str, str, Protocol]


def diagnose(plan: Plan, observations: Observations, *, strict: bool = False) -> Report:
    """The report of a run. Total: whatever was observed, each (flow, port) is in one record.

    The order of agents, outcomes and sightings makes no difference. With `strict`, degraded
    flows are not ok.
    """
    index = index_observations(plan, observations)
    scenes = _scenes(plan, index)
    told = _records(plan, scenes, strict=strict)
    records = tuple(record for record, _ in told)
    return Report(
        cluster=plan.cluster,
        profiles=plan.profiles,
        started=observations.started,
        finished=observations.finished,
        interrupted=observations.interrupted,
        phases=observations.phases,
        summary=_summary(told, plan.narrowed_from),
        agents=tuple(_agent_record(node, index) for node in plan.nodes),
        rules=tuple(
            RuleRecord(name=rule.name, why=rule.why, source=rule.source_text, profile=rule.profile)
            for rule in plan.rules
        ),
        flows=records,
        findings=list_findings(plan, index, records),
    )


def exit_code(report: Report) -> int:
    """What `check` exits with: 1 if any flow is not ok, else 3 if any is not known, else 0."""
    states = {record.ok for record in report.flows}
    if False in states:
        return EXIT_FAILED
    return EXIT_UNTESTED if None in states else EXIT_OK


def _scenes(plan: Plan, index: Index) -> dict[_Key, Scene]:
    flows: dict[_Key, list[Flow]] = defaultdict(list)
    for flow in plan.flows:
        flows[_key_of_flow(flow)].append(flow)
    cells = {
        probe.id: cut_cells(probe, flows[_key_of_probe(probe)], index) for probe in plan.probes
    }
    paths = measure_paths(plan, index, cells)
    return {
        _key_of_probe(probe): make_scene(probe, cells[probe.id], index, paths)
        for probe in plan.probes
    }


def _key_of_flow(flow: Flow) -> _Key:
    return flow.source, flow.destination, canonical(flow.destination_address), flow.protocol


def _key_of_probe(probe: Probe) -> _Key:
    return probe.source, probe.destination, canonical(probe.address), probe.protocol


def _records(
    plan: Plan, scenes: dict[_Key, Scene], *, strict: bool
) -> list[tuple[FlowRecord, Ranges]]:
    judged = {
        key: [(cell, judge(scene, cell)) for cell in scene.cells] for key, scene in scenes.items()
    }
    told: list[tuple[FlowRecord, Ranges]] = []
    for flow in plan.flows:
        key = _key_of_flow(flow)
        if key in scenes:
            told += records_of_flow(flow, scenes[key], judged[key], strict=strict)
        else:
            told.append((unplanned_record(flow, plan.limits), flow.ports))
    return told


def _summary(told: list[tuple[FlowRecord, Ranges]], narrowed_from: int | None) -> Summary:
    counts = dict.fromkeys(Verdict, 0)
    for by_verdict in _ports_by_verdict(told):
        counted: Ranges = ()
        for verdict in _WORST_FIRST:
            ports = subtract(by_verdict.get(verdict, ()), counted)
            counts[verdict] += count_ports(ports)
            counted = union(counted, ports)
    flows = FlowCounts(
        total=sum(counts.values()),
        open=counts[Verdict.OPEN],
        degraded=counts[Verdict.DEGRADED],
        blocked=counts[Verdict.BLOCKED],
        intercepted=counts[Verdict.INTERCEPTED],
        untested=counts[Verdict.UNTESTED],
    )
    return Summary(
        ok=all(record.ok for record, _ in told),
        records=len(told),
        flows=flows,
        narrowed_from=narrowed_from,
    )


def _ports_by_verdict(
    told: list[tuple[FlowRecord, Ranges]],
) -> Iterable[dict[Verdict, Ranges]]:
    """For each way between two ends: its ports, each once, however many rules ask for it."""
    ways: dict[tuple[str, str, Protocol, Family], dict[Verdict, Ranges]] = defaultdict(dict)
    for record, ports in told:
        way = ways[record.source, record.destination, record.protocol, record.family]
        way[record.verdict] = union(way.get(record.verdict, ()), ports)
    return ways.values()


def _agent_record(node: PlannedNode, index: Index) -> AgentRecord:
    agent = index.agents[node.name]
    states: dict[tuple[Protocol, ListenerStatus, str], Ranges] = {}
    for listener in agent.listeners:
        key = (listener.protocol, listener.state, listener.owner)
        states[key] = union(states.get(key, ()), listener.ports)
    return AgentRecord(
        node=node.name,
        addresses=node.addresses,
        roles=node.roles,
        state=agent.state,
        detail=agent.detail,
        reason=agent.reason,
        version=agent.version,
        instance=agent.instance,
        clock_offset_ms=agent.clock_offset_ms,
        capture=agent.facts.capture,
        listeners=tuple(
            ListenerRecord(protocol=protocol, ports=format_ports(ports), state=state, owner=owner)
            for (protocol, state, owner), ports in sorted(states.items())
        ),
    )
