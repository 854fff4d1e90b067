"""The run file, written on the way: the same report again, and some report after any kill."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from preflight.diagnosis import diagnose
from preflight.model.report import Verdict
from preflight.wire.runfile import decode_run
from tests.conformance.groups import GROUPS
from tests.memory.faults import Dies, Moment
from tests.memory.running import check_in_memory, ports_planned, ports_told, verdicts_by_port
from tests.memory.settings import TROUBLED


@pytest.mark.parametrize("group", GROUPS)
async def test_run_file_gives_the_printed_report_again(group: str, tmp_path: Path) -> None:
    checked = await check_in_memory(GROUPS[group].planted, tmp_path)
    run = decode_run(checked.run_file.read_bytes().splitlines(keepends=True))

    assert run.plan == checked.plan
    assert run.report == checked.report
    assert diagnose(run.plan, run.observations) == checked.report


@pytest.mark.parametrize(
    "death",
    [Dies("d1", moment, after) for moment in get_args(Moment) for after in (False, True)],
    ids=str,
)
async def test_run_file_of_a_run_that_lost_an_agent_is_no_different(
    death: Dies, tmp_path: Path
) -> None:
    faults = (*TROUBLED.faults, death)
    checked = await check_in_memory(replace(TROUBLED, faults=faults), tmp_path)
    run = decode_run(checked.run_file.read_bytes().splitlines(keepends=True))

    assert diagnose(run.plan, run.observations) == checked.report


async def test_run_file_that_a_kill_cut_off_still_gives_a_report(tmp_path: Path) -> None:
    checked = await check_in_memory(TROUBLED, tmp_path)
    truth = verdicts_by_port(checked.report)
    lines = checked.run_file.read_bytes().splitlines(keepends=True)
    assert len(lines) > 10
    for whole in range(1, len(lines)):
        for torn in (b"", lines[whole][: len(lines[whole]) // 2]):
            run = decode_run([*lines[:whole], torn])
            report = diagnose(run.plan, run.observations)
            assert report.interrupted
            assert ports_told(report) == ports_planned(checked.plan)
            proven = [r for r in verdicts_by_port(report).items() if r[1].verdict is Verdict.OPEN]
            assert all(truth[port].verdict is Verdict.OPEN for port, _ in proven)
