"""What the bounds of a run leave out is untested, through the whole pipeline."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from preflight.model.plan import Limits
from preflight.model.report import Cause, Verdict
from preflight.planning import sample_ports
from preflight.ports import Ranges, count_ports, parse_ports, subtract, union
from preflight.render.table import render_table
from tests.memory.faults import Drop, Traffic
from tests.memory.running import Checked, check_in_memory, ports_planned, ports_told
from tests.memory.settings import WELL

RANGE = parse_ports("7000-7029")
SILENT = tuple(Drop(Traffic(f"s{s}", f"d{d}")) for s in (1, 2) for d in (1, 2, 3))


def ports_with(checked: Checked, verdict: Verdict) -> set[Ranges]:
    """By pair: the TCP ports with this verdict."""
    found: dict[tuple[str, str], Ranges] = {}
    for record in checked.report.flows:
        if record.protocol == "tcp" and record.verdict is verdict:
            pair = (record.source, record.destination)
            found[pair] = union(found.get(pair, ()), parse_ports(record.ports))
    return set(found.values())


async def test_what_a_sample_leaves_out_is_untested_and_never_open(tmp_path: Path) -> None:
    checked = await check_in_memory(replace(WELL, limits=Limits(sample=4)), tmp_path)
    tried = sample_ports(RANGE, 4)
    assert ports_told(checked.report) == ports_planned(checked.plan)
    assert ports_with(checked, Verdict.OPEN) == {tried}
    assert ports_with(checked, Verdict.UNTESTED) == {subtract(RANGE, tried)}
    left_out = [one for one in checked.report.flows if one.verdict is Verdict.UNTESTED]
    assert {(one.cause, one.ok) for one in left_out} == {(Cause.SKIPPED, None)}
    assert {one.detail for one in left_out} == {
        "left out by --sample, which tries 4 ports of each range"
    }
    assert checked.exit_code == 3
    # One finding says so, not one for every pair; and the table does in one line.
    assert [one.code for one in checked.report.findings] == ["plan-note"]
    page = io.StringIO()
    render_table(checked.report, Console(file=page, width=120))
    assert f"{6 * 26} flows not tested: left out by --sample" in page.getvalue()


async def test_a_blocked_port_of_a_sample_fails_the_run(tmp_path: Path) -> None:
    blocked = Drop(Traffic("s1", "d1", "tcp", "7029"))
    setting = replace(WELL, limits=Limits(sample=4), faults=(blocked,))
    checked = await check_in_memory(setting, tmp_path)
    assert checked.exit_code == 1
    assert ports_with(checked, Verdict.BLOCKED) == {((7029, 7029),)}


async def test_unanswered_syns_are_bounded_over_all_sources(tmp_path: Path) -> None:
    setting = replace(WELL, limits=Limits(max_half_open=40), faults=SILENT)
    checked = await check_in_memory(setting, tmp_path)
    flows = [one for one in checked.report.flows if one.protocol == "tcp"]
    silent = sum(
        count_ports(parse_ports(one.ports)) for one in flows if one.verdict is Verdict.BLOCKED
    )
    assert 0 < silent <= 40
    rest = {(one.verdict, one.cause) for one in flows if one.verdict is not Verdict.BLOCKED}
    assert rest == {(Verdict.UNTESTED, Cause.SKIPPED)}
