"""Large clusters through the whole pipeline in one process: half a million ports."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from preflight.lab.cluster import ClusterVip
from preflight.model.report import Cause, Report, Verdict
from preflight.planning import count
from preflight.ports import each_port
from preflight.render.json_report import render_json
from preflight.render.table import render_table
from tests.memory.faults import Balance, Drop, Traffic
from tests.memory.large import plant
from tests.memory.running import check_in_memory, ports_planned, ports_told
from tests.memory.scripted import ScriptedCluster
from tests.memory.setting import Machine, Setting

NUMBERS = {"control-plane": 3, "worker": 50, "mongodb": 3, "elasticsearch": 3, "client": 1}
MEGABYTE = 1_000_000
LARGEST_REPORT = 20 * MEGABYTE
LARGEST_TABLE = MEGABYTE // 5
BYTES_A_PORT = 150
"""Of a run file, for each port of which both ends tell one or more attempts of their own."""


def sixty_nodes() -> Setting:
    roles = [role for role, number in NUMBERS.items() for _ in range(number)]
    machines = tuple(
        Machine(f"{role}-{i}", (f"10.77.{i}.11",), (role,)) for i, role in enumerate(roles, 1)
    )
    api = ClusterVip("api", "10.77.100.10", 6443, "control-plane", ("control-plane", "worker"))
    planes = tuple(machine.name for machine in machines[:3])
    faults = (
        Balance("api", planes),
        Drop(Traffic(machines[-1].name, machines[10].name, "tcp", "30080")),
    )
    return Setting("sixty", machines, faults, vips=(api,))


def draw(report: Report) -> str:
    page = io.StringIO()
    render_table(report, Console(file=page, width=120))
    return page.getvalue()


async def test_one_port_of_sixty_nodes_is_found(tmp_path: Path) -> None:
    checked = await check_in_memory(sixty_nodes(), tmp_path)

    assert ports_told(checked.report) == ports_planned(checked.plan)
    assert checked.report.summary.flows.total == count(checked.plan).flows
    wrong = {
        (record.source, record.ports, record.cause)
        for record in checked.report.flows
        if record.verdict is not Verdict.OPEN
    }
    assert {ports for _, ports, _ in wrong} == {"30080"}
    assert {cause for _, _, cause in wrong} == {Cause.NO_ANSWER}
    assert "30080" in draw(checked.report)


@pytest.mark.parametrize("name", ["open", "tenth", "missing", "dropped"])
async def test_the_report_of_fifty_nodes_stays_small(name: str, tmp_path: Path) -> None:
    setting, truth = plant(name, 50)
    cluster = ScriptedCluster(setting, truth)
    checked = await check_in_memory(setting, tmp_path, cluster=cluster)
    report = checked.report

    assert ports_told(report) == ports_planned(checked.plan)
    assert len(render_json(report)) < LARGEST_REPORT
    assert len(draw(report)) < LARGEST_TABLE
    assert checked.run_file.stat().st_size < LARGEST_REPORT
    failing = sum(
        truth(probe.source, probe.destination, port) != "open"
        for probe in checked.plan.probes
        if probe.protocol == "tcp"
        for port in each_port(probe.ports)
    )
    assert report.summary.flows.blocked == failing
    assert (report.summary.flows.untested > 0) == (name == "missing")


@pytest.mark.parametrize(("name", "cause"), [("stalled", Cause.STALLED), ("closed", Cause.CLOSED)])
async def test_attempts_of_which_both_ends_tell_stay_small(
    name: str, cause: Cause, tmp_path: Path
) -> None:
    setting, truth = plant(name, 20)
    cluster = ScriptedCluster(setting, truth)
    checked = await check_in_memory(setting, tmp_path, cluster=cluster)

    wrong = [record for record in checked.report.flows if record.verdict is not Verdict.OPEN]
    assert {record.cause for record in wrong} == {cause}
    assert all(record.evidence.seen_by_destination for record in wrong)
    attempts = checked.report.summary.flows.blocked * (3 if name == "closed" else 1)
    assert checked.run_file.stat().st_size < BYTES_A_PORT * attempts
    assert len(render_json(checked.report)) < MEGABYTE
