"""Cells to records: ports of one flow that share a result, with their evidence added up."""

from collections import defaultdict
from collections.abc import Sequence

from preflight.diagnosis.cells import Cell
from preflight.diagnosis.grading import apply_grade, grade_flow
from preflight.diagnosis.judgement import Judgement, Scene
from preflight.diagnosis.notes import LEFT_OUT
from preflight.diagnosis.tally import Part, Tally, add_up
from preflight.diagnosis.wording import Story, explain
from preflight.model.plan import Flow, Limits
from preflight.model.report import (
    Cause,
    Evidence,
    FlowRecord,
    IcmpEvidence,
    Verdict,
)
from preflight.ports import Ranges, format_ports, intersect, subtract, union

_OWN_FAULT = frozenset({Cause.NO_ROUTE, Cause.NO_NEIGHBOUR, Cause.SEND_DENIED})
"""With these the packet never came as far as a firewall that could be meant to block it."""


def records_of_flow(
    flow: Flow, scene: Scene, judged: Sequence[tuple[Cell, Judgement]], *, strict: bool
) -> list[tuple[FlowRecord, Ranges]]:
    """The records of one flow with their ports, in the order of their first ports."""
    parts: dict[Judgement, list[Part]] = defaultdict(list)
    for cell, judgement in judged:
        ports = intersect(cell.ports, flow.ports)
        if ports:
            parts[judgement].append(Part(cell, ports))
    proven = union(*(p.ports for j, found in parts.items() if j.proof for p in found))
    grade = grade_flow(flow, scene, proven) if proven else None
    stories = [
        Story(
            flow=flow,
            ports=union(*(part.ports for part in found)),
            judgement=apply_grade(judgement, grade) if grade and judgement.proof else judgement,
            tally=add_up(found, scene),
            grade=grade if judgement.proof else None,
            limits=scene.plan.limits,
            vip=scene.vip,
        )
        for judgement, found in parts.items()
    ]
    left = subtract(flow.ports, union(*(story.ports for story in stories)))
    if left:
        stories.append(_unplanned(flow, left, scene.plan.limits))
    stories.sort(key=lambda story: story.ports)
    return [(_record(story, strict=strict), story.ports) for story in stories]


def unplanned_record(flow: Flow, limits: Limits) -> FlowRecord:
    """A flow that no probe of the plan is for."""
    return _record(_unplanned(flow, flow.ports, limits), strict=False)


def is_ok(flow: Flow, judgement: Judgement, *, strict: bool) -> bool | None:
    """Whether this is what the rule wants; None: not known."""
    verdict = judgement.verdict
    if verdict is Verdict.UNTESTED:
        return None
    if flow.expected == "blocked":
        if verdict is not Verdict.BLOCKED:
            return False
        own = judgement.own_doing or judgement.cause in _OWN_FAULT
        return True if judgement.held and not own else None
    if verdict is Verdict.OPEN:
        return True
    return not strict if verdict is Verdict.DEGRADED else not flow.required


def _unplanned(flow: Flow, ports: Ranges, limits: Limits) -> Story:
    note = "the plan has no probe for it"
    if limits.sample is not None:
        note = f"{LEFT_OUT}, which tries {limits.sample} ports of each range"
    judgement = Judgement(verdict=Verdict.UNTESTED, cause=Cause.SKIPPED, note=note, held=False)
    return Story(
        flow=flow, ports=ports, judgement=judgement, tally=Tally(), grade=None, limits=limits
    )


def _record(story: Story, *, strict: bool) -> FlowRecord:
    flow, judgement, tally = story.flow, story.judgement, story.tally
    return FlowRecord(
        source=flow.source,
        destination=flow.destination,
        protocol=flow.protocol,
        family=flow.family,
        source_address=flow.source_address,
        destination_address=flow.destination_address,
        ports=format_ports(story.ports),
        rule=flow.rule,
        required=flow.required,
        expected=flow.expected,
        verdict=judgement.verdict,
        ok=is_ok(flow, judgement, strict=strict),
        cause=judgement.cause,
        where=judgement.where,
        reported_by=judgement.reported_by,
        proof=judgement.proof,
        rtt_ms=tally.rtt_ms,
        loss=story.grade.loss if story.grade is not None else None,
        observed_source=tally.observed_source,
        backends=tally.backends or None,
        detail=explain(story),
        evidence=_evidence(judgement, tally),
    )


def _evidence(judgement: Judgement, tally: Tally) -> Evidence:
    icmp = judgement.icmp
    return Evidence(
        attempts=tally.attempts,
        answered=tally.answered,
        errno=tally.errno if judgement.proof is None else None,
        operation=tally.operation if judgement.proof is None else None,
        icmp=IcmpEvidence(icmp.type, icmp.code, icmp.sender) if icmp is not None else None,
        icmp_seen=tally.icmp_seen if icmp is not None else None,
        seen_by_destination=judgement.seen,
        retransmits=tally.retransmits if judgement.proof is not None else None,
        where_possible=judgement.where_possible,
        answered_by=judgement.answered_by,
        owner=judgement.owner,
        first_bytes=tally.first_bytes,
    )
