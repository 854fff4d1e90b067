"""The demo ends with 0 only if the report says what was planted, and nothing else."""

from dataclasses import replace

import msgspec
import pytest

from preflight.lab import demonstration
from preflight.lab.demonstration import ON_THE_LAB, Planted, surprises
from preflight.model.report import Cause, FlowCounts, FlowRecord, Report, Summary, Verdict

DROP, REJECT, HOLE = ON_THE_LAB


def told(fault: Planted, source: str) -> FlowRecord:
    """The record that a report should have of a planted fault."""
    return FlowRecord(
        source=source,
        destination=fault.destination,
        protocol=fault.protocol,
        family=4,
        source_address="10.0.0.1",
        destination_address="10.0.0.2",
        ports=fault.ports,
        rule="any",
        required=True,
        expected="open",
        verdict=fault.verdict,
        ok=False,
        cause=fault.cause,
        reported_by=fault.reported_by,
    )


def report_of(*flows: FlowRecord) -> Report:
    return Report(
        cluster="demo",
        profiles=("apinizer",),
        started="",
        finished="",
        interrupted=False,
        phases=(),
        summary=Summary(ok=False, records=len(flows), flows=FlowCounts()),
        agents=(),
        rules=(),
        flows=flows,
        findings=(),
    )


ALL_TOLD = [told(fault, source) for fault in ON_THE_LAB for source in fault.sources]
OPEN = msgspec.structs.replace(
    told(replace(HOLE, ports="30000-31499,31510-32767", verdict=Verdict.OPEN, cause=None), "ops"),
    ok=True,
)


def test_a_report_of_just_what_was_planted_has_no_surprises() -> None:
    assert surprises(report_of(*ALL_TOLD, OPEN), ON_THE_LAB) == []
    assert surprises(report_of(OPEN), ()) == []


@pytest.mark.parametrize("missing", range(len(ALL_TOLD)))
def test_every_flow_that_a_fault_hits_must_be_told(missing: int) -> None:
    flows = [flow for index, flow in enumerate(ALL_TOLD) if index != missing]
    (surprise,) = surprises(report_of(*flows), ON_THE_LAB)
    assert surprise.startswith("not found: ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": Verdict.OPEN, "cause": None},
        {"verdict": Verdict.UNTESTED},
        {"cause": Cause.NO_ANSWER},
        {"reported_by": "10.77.1.1"},
    ],
)
def test_a_fault_that_is_told_wrongly_is_not_found(wrong: dict[str, object]) -> None:
    flow = msgspec.structs.replace(told(REJECT, "cp1"), **wrong)
    others = [one for one in ALL_TOLD if (one.destination, one.source) != ("w2", "cp1")]
    assert surprises(report_of(flow, *others), ON_THE_LAB) == [f"not found: {REJECT.words}"]


def test_a_hole_must_be_told_to_the_port() -> None:
    others = [one for one in ALL_TOLD if one.destination != "w1"]
    narrow = told(replace(HOLE, ports="31500-31508"), "ops")
    assert surprises(report_of(narrow, *others), ON_THE_LAB) == [f"not found: {HOLE.words}"]
    wide = told(replace(HOLE, ports="31500-31510"), "ops")
    assert len(surprises(report_of(wide, *others), ON_THE_LAB)) == 2
    parts = [told(replace(HOLE, ports=ports), "ops") for ports in ("31500", "31501-31509")]
    assert surprises(report_of(*parts, *others), ON_THE_LAB) == []


def test_what_was_not_planted_is_named() -> None:
    (surprise,) = surprises(report_of(told(DROP, "w1")), ())
    assert surprise == "not planted: w1 -> db1 25080/tcp blocked (no-answer)"


def test_both_forms_of_the_demo_have_the_same_nodes() -> None:
    on_loopback = demonstration.loopback_nodes()
    assert [node.name for node in on_loopback] == [node.name for node in demonstration.NODES]
    assert {node.addresses[0][:7] for node in on_loopback} == {"127.77."}
    agents = [node for node in on_loopback if not node.embedded]
    assert all(node.control == f"{node.addresses[0]}:10888" for node in agents)
