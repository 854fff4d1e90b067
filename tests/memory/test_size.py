"""A cluster of 60 nodes, through the whole pipeline in one process."""

import io
import time
from pathlib import Path

from rich.console import Console

from preflight.lab.cluster import ClusterVip
from preflight.model.report import Cause, Verdict
from preflight.planning import count
from preflight.render.json_report import render_json
from preflight.render.table import render_table
from tests.memory.faults import Balance, Drop, Traffic
from tests.memory.running import check_in_memory, ports_planned, ports_told
from tests.memory.setting import Machine, Setting

NUMBERS = {"control-plane": 3, "worker": 50, "mongodb": 3, "elasticsearch": 3, "client": 1}
SECONDS = 60.0
"""Generous: the machines that run this are slow and shared."""


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


async def test_sixty_nodes_take_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    checked = await check_in_memory(sixty_nodes(), tmp_path)
    run = time.monotonic()
    page = io.StringIO()
    render_table(checked.report, Console(file=page, width=120))
    text = render_json(checked.report)
    ended = time.monotonic()
    flows = checked.report.summary.flows
    print(  # noqa: T201 - the measurement is for whoever runs this with -s
        f"{flows.total:,} flows of 60 nodes in {ended - began:.1f} s, "
        f"{ended - run:.1f} s of it to render {len(text):,} bytes of JSON and the table"
    )

    assert ports_told(checked.report) == ports_planned(checked.plan)
    assert flows.total == count(checked.plan).flows
    wrong = {
        (record.source, record.ports, record.cause)
        for record in checked.report.flows
        if record.verdict is not Verdict.OPEN
    }
    assert {ports for _, ports, _ in wrong} == {"30080"}
    assert {cause for _, _, cause in wrong} == {Cause.NO_ANSWER}
    assert "30080" in page.getvalue()
    assert ended - began < SECONDS
