"""Agents that end in the middle of a run cost their own flows, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from preflight.model.report import Cause, Verdict
from tests.memory.faults import Dies, Moment
from tests.memory.running import check_in_memory, ports_planned, ports_told
from tests.memory.settings import TROUBLED, WELL

DEATHS = [
    Dies(node, moment, after_reply, nonsense)
    for node in ("s1", "d1")
    for moment in get_args(Moment)
    for after_reply in (False, True)
    for nonsense in (False, True)
]


def name_of(death: Dies) -> str:
    how = "after" if death.after_reply else "before"
    return f"{death.node}-{how}-{death.at}{'-with-nonsense' if death.nonsense else ''}"


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
async def test_agent_that_dies_costs_its_own_flows_only(death: Dies, tmp_path: Path) -> None:
    checked = await check_in_memory(replace(WELL, faults=(death,)), tmp_path)
    report = checked.report

    assert ports_told(report) == ports_planned(checked.plan)
    assert not report.interrupted
    # Nothing is wrong with this network: a false fail would show as blocked.
    assert {flow.verdict for flow in report.flows} <= {Verdict.OPEN, Verdict.UNTESTED}
    for flow in report.flows:
        if death.node not in (flow.source, flow.destination):
            assert flow.verdict is Verdict.OPEN, flow
        if flow.verdict is Verdict.UNTESTED:
            assert flow.cause in (Cause.AGENT_LOST, Cause.AGENT_REFUSED), flow
            assert flow.ok is None


@pytest.mark.parametrize(
    ("moment", "state"),
    [("greet", "refused"), ("hold", "lost"), ("start", "lost"), ("ask", "lost")],
)
async def test_report_says_how_the_agent_was_lost(
    moment: Moment, state: str, tmp_path: Path
) -> None:
    checked = await check_in_memory(replace(WELL, faults=(Dies("s1", moment),)), tmp_path)
    states = {agent.node: agent.state for agent in checked.report.agents}

    assert states == {"s1": state, "s2": "ready", "d1": "ready", "d2": "ready", "d3": "ready"}
    assert all(agent.detail for agent in checked.report.agents if agent.state != "ready")
    assert checked.exit_code == (0 if moment == "ask" else 3)


async def test_what_was_proven_before_the_source_died_stays_proven(tmp_path: Path) -> None:
    checked = await check_in_memory(replace(WELL, faults=(Dies("s1", "results"),)), tmp_path)
    verdicts = {flow.verdict for flow in checked.report.flows if flow.source == "s1"}

    assert verdicts == {Verdict.OPEN, Verdict.UNTESTED}


async def test_all_agents_may_die_each_at_another_moment(tmp_path: Path) -> None:
    moments = (*get_args(Moment),)[:5]
    deaths = tuple(
        Dies(machine.name, moment) for machine, moment in zip(WELL.machines, moments, strict=True)
    )
    checked = await check_in_memory(replace(WELL, faults=deaths), tmp_path)

    assert ports_told(checked.report) == ports_planned(checked.plan)
    assert checked.exit_code == 3


async def test_faults_are_not_blamed_where_the_destination_does_not_confirm(
    tmp_path: Path,
) -> None:
    faults = (*TROUBLED.faults, Dies("d1", "ask"))
    checked = await check_in_memory(replace(TROUBLED, faults=faults), tmp_path)
    told = {
        flow.verdict
        for flow in checked.report.flows
        if flow.destination == "d1" and flow.protocol == "tcp"
    }

    assert told == {Verdict.UNTESTED}
