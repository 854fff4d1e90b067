"""Ctrl-C in every phase: what was learned is told, what was not is untested, nothing is guessed."""

import asyncio
from pathlib import Path

import pytest

from preflight.check import check
from preflight.coordinator.record import RunRecord
from preflight.model.report import Verdict
from tests.memory.agents import MemoryCluster
from tests.memory.running import (
    Watcher,
    check_in_memory,
    plan_setting,
    ports_planned,
    ports_told,
    verdicts_by_port,
)
from tests.memory.settings import TROUBLED

PHASES = ("greet", "listen", "probe", "second-look", "collect", "release")
every_phase = pytest.mark.parametrize("phase", PHASES)


async def test_run_has_all_these_phases(tmp_path: Path) -> None:
    checked = await check_in_memory(TROUBLED, tmp_path)

    assert tuple(phase.name for phase in checked.report.phases) == PHASES


@every_phase
async def test_interrupted_report_is_whole_and_true(phase: str, tmp_path: Path) -> None:
    truth = verdicts_by_port((await check_in_memory(TROUBLED, tmp_path)).report)
    stop = asyncio.Event()
    watcher = Watcher(lambda name: stop.set() if name == phase else None)
    checked = await check_in_memory(TROUBLED, tmp_path, observer=watcher, stop=stop)
    report = checked.report

    # With all that there is to know, nothing was cut short.
    cut_short = phase not in ("collect", "release")
    assert report.interrupted is cut_short
    assert ports_told(report) == ports_planned(checked.plan)
    assert ("interrupted" in {finding.code for finding in report.findings}) is cut_short
    for port, record in verdicts_by_port(report).items():
        if record.verdict is not Verdict.UNTESTED:
            assert record.verdict is truth[port].verdict
            # Without a second look, a refusal that was not said stays a silence.
            assert record.cause is truth[port].cause or phase == "second-look"
        if phase in ("greet", "listen"):
            assert record.verdict is Verdict.UNTESTED
        if phase in ("collect", "release"):
            assert record.verdict is truth[port].verdict


# From "listen" on: nobody has been called before.
@pytest.mark.parametrize("phase", PHASES[1:])
async def test_second_ctrl_c_breaks_off_and_the_agents_notice(phase: str, tmp_path: Path) -> None:
    def break_off(name: str) -> None:
        if name == phase:
            running.cancel()

    plan = plan_setting(TROUBLED, tmp_path)
    cluster = MemoryCluster(TROUBLED)
    with RunRecord(tmp_path / "run.json") as record:
        run = check(plan, cluster.dial, Watcher(break_off), record, asyncio.Event())
        running = asyncio.create_task(run)
        with pytest.raises(asyncio.CancelledError):
            await running

    await cluster.close()
    assert not any(host.alive for host in cluster.hosts.values())
    assert all(host.called for host in cluster.hosts.values())
