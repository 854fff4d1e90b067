"""The whole pipeline of `check` on a memory network."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preflight.check import Narrowing, check, plan_run
from preflight.config import load_cluster
from preflight.coordinator.observer import RunObserver, SilentObserver
from preflight.coordinator.record import RunRecord
from preflight.diagnosis import exit_code
from preflight.model.cluster import Protocol
from preflight.model.plan import Plan
from preflight.model.report import FlowRecord, Report
from preflight.ports import Ranges, count_ports, each_port, parse_ports, union
from tests.memory.agents import MemoryCluster
from tests.memory.setting import Setting

Told = dict[tuple[str, str, str, Protocol], Ranges]
"""(Rule, source, destination's address, protocol) -> ports."""


@dataclass(frozen=True)
class Checked:
    """A check that has ended."""

    plan: Plan
    report: Report
    exit_code: int
    run_file: Path


class Watcher(SilentObserver):
    """Tells of each phase's beginning."""

    def __init__(self, on_phase: Callable[[str], None]) -> None:
        self._on_phase = on_phase

    def phase(self, name: str, bound: float) -> None:  # noqa: ARG002 - as the protocol has it
        self._on_phase(name)


def plan_setting(setting: Setting, folder: Path) -> Plan:
    """From the files of a setting to its plan, as the command does it."""
    cluster, profile = load_cluster(setting.write(folder))
    return plan_run(cluster, profile, Narrowing(), limits=setting.limits, deadline=setting.deadline)


async def check_in_memory(
    setting: Setting,
    folder: Path,
    *,
    cluster: MemoryCluster | None = None,
    observer: RunObserver | None = None,
    stop: asyncio.Event | None = None,
) -> Checked:
    """Run a check of that setting; the run file is written in `folder`."""
    plan = plan_setting(setting, folder)
    cluster = cluster or MemoryCluster(setting)
    try:
        return await _check(plan, cluster, folder, observer or SilentObserver(), stop)
    finally:
        await cluster.close()


async def _check(
    plan: Plan,
    cluster: MemoryCluster,
    folder: Path,
    observer: RunObserver,
    stop: asyncio.Event | None,
) -> Checked:
    run_file = folder / "run.json"
    with RunRecord(run_file) as record:
        report = await check(plan, cluster.dial, observer, record, stop or asyncio.Event())
    return Checked(plan, report, exit_code(report), run_file)


def ports_planned(plan: Plan) -> Told:
    """Every flow of a plan."""
    return {
        (flow.rule, flow.source, flow.destination_address, flow.protocol): flow.ports
        for flow in plan.flows
    }


def ports_told(report: Report) -> Told:
    """Every flow of a report. Raises `AssertionError` where a port is told of twice."""
    told: dict[tuple[str, str, str, Protocol], list[Ranges]] = defaultdict(list)
    for record in report.flows:
        key = (record.rule, record.source, record.destination_address, record.protocol)
        told[key].append(parse_ports(record.ports))
    whole = {key: union(*parts) for key, parts in told.items()}
    for key, parts in told.items():
        assert sum(map(count_ports, parts)) == count_ports(whole[key]), key
    return whole


def verdicts_by_port(report: Report) -> dict[tuple[object, ...], FlowRecord]:
    """The record of each single port of each flow."""
    return {
        (record.rule, record.source, record.destination_address, record.protocol, port): record
        for record in report.flows
        for port in each_port(parse_ports(record.ports))
    }
