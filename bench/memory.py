"""The run of a whole cluster in memory: planning, messages, diagnosis, rendering; no network.

    python -m bench.memory                              # every setting, and how it grows
    python -m bench.memory --only tenth --profile diagnosis
    python -m bench.memory --only open --nodes 100 --shape all

The cluster has the apinizer profile's roles, and every client sweeps the NodePort range of every
worker. Coordinator, messages, grouping, run file and diagnosis are the real ones; what the
agents find is planted (`tests.memory.large`). Each case has a process of its own.
"""

import argparse
import asyncio
import cProfile
import io
import pstats
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from tests.memory.large import SETTINGS, plant
from tests.memory.scripted import ScriptedCluster

from preflight.check import Narrowing, check, plan_run
from preflight.config import load_cluster
from preflight.coordinator.observer import SilentObserver
from preflight.coordinator.orders import first_orders, share_out
from preflight.coordinator.record import RunRecord
from preflight.diagnosis import diagnose
from preflight.model.observation import Observations
from preflight.model.plan import Limits, Plan
from preflight.model.report import Report
from preflight.render.json_report import render_json
from preflight.render.table import render_table
from preflight.wire.messages import PREFIX as LENGTH
from preflight.wire.messages import (
    Ask,
    Held,
    Hold,
    Results,
    Seen,
    Start,
    ToAgent,
    ToCoordinator,
    decode_for_agent,
    decode_for_coordinator,
    encode_message,
)
from preflight.wire.runfile import (
    AgentLine,
    Line,
    OutcomesLine,
    RunLine,
    SightingsLine,
    decode_run,
    encode_line,
)

STAGES = ("planning", "run", "messages", "run file", "diagnosis", "json", "table")
Result = TypeVar("Result")


@dataclass
class Measured:
    """What one case took."""

    title: str
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Stage -> (wall, CPU) of each round."""
    peaks: dict[str, int] = field(default_factory=dict)
    """Stage -> the process's largest memory so far, in MB."""
    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    profile: str = ""


class Stopwatch:
    """Times stages, several times each, and profiles one of them."""

    def __init__(self, title: str, rounds: int, profiled: str | None) -> None:
        self.measured = Measured(title)
        self._rounds = rounds
        self._profiled = profiled

    def time(self, stage: str, work: Callable[[], Result], *, once: bool = False) -> Result:
        """Do it; return what the last round returns."""
        for _ in range(0 if once else self._rounds - 1):
            with self._clock(stage):
                work()
        with self._clock(stage):
            result = work()
        self.measured.peaks[stage] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return result

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        profile = cProfile.Profile() if stage == self._profiled else None
        wall, cpu = time.perf_counter(), time.process_time()
        if profile:
            profile.enable()
        yield
        if profile:
            profile.disable()
        times = time.perf_counter() - wall, time.process_time() - cpu
        self.measured.seconds[stage].append(times)
        if profile:
            text = io.StringIO()
            pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(35)
            self.measured.profile = text.getvalue()


def measure(name: str, nodes: int, shape: str, rounds: int, profiled: str | None) -> Measured:
    """One case, from the cluster file to the table."""
    setting, truth = plant(name, nodes, shape)
    watch = Stopwatch(f"{name}, {nodes} nodes ({shape})", rounds, profiled)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        file = setting.write(folder)
        plan = watch.time("planning", lambda: _plan(file))
        lines: list[Line] = []
        record = _Keeping(folder / "run.json", lines)
        report = watch.time(
            "run", lambda: _run(plan, ScriptedCluster(setting, truth), record), once=True
        )
        run_file = (folder / "run.json").read_bytes()
    sizes = watch.measured.sizes
    sizes["plan"] = len(encode_line(RunLine(version="", started="", plan=plan)))
    messages = watch.time("messages", lambda: _carry(plan, lines))
    sizes["messages"], sizes["largest message"] = sum(messages), max(messages)
    sizes["run file"] = len(run_file)
    run = watch.time("run file", lambda: decode_run(run_file.splitlines(keepends=True)))
    report = watch.time("diagnosis", lambda: _diagnose_again(run.plan, run.observations, report))
    sizes["report"] = len(watch.time("json", lambda: render_json(report)))
    sizes["table"] = len(watch.time("table", lambda: _draw(report)))
    watch.measured.counts = {
        "flows": report.summary.flows.total,
        "records": report.summary.records,
        "findings": len(report.findings),
    }
    return watch.measured


class _Keeping(RunRecord):
    """A run file that also keeps its lines: they are what was said in messages."""

    def __init__(self, path: Path, lines: list[Line]) -> None:
        super().__init__(path)
        self._lines = lines

    def write(self, line: Line) -> None:
        self._lines.append(line)
        super().write(line)


def _plan(file: Path) -> Plan:
    cluster, profile = load_cluster(file)
    return plan_run(cluster, profile, Narrowing(), limits=Limits(rate=None), deadline=None)


def _run(plan: Plan, cluster: ScriptedCluster, record: RunRecord) -> Report:
    async def run() -> Report:
        report = await check(plan, cluster.dial, SilentObserver(), record, asyncio.Event())
        await cluster.close()
        return report

    with record:
        return asyncio.run(run())


def _carry(plan: Plan, lines: list[Line]) -> list[int]:
    """Every large message of the run, encoded and decoded; their sizes."""
    agents = {line.agent.node: line.agent for line in lines if isinstance(line, AgentLine)}
    orders = first_orders(plan, agents)
    shares = share_out(plan.limits, orders)
    to_agents: list[ToAgent] = [
        Start(orders=ours, share=shares[source]) for source, ours in orders.items()
    ]
    to_coordinator: list[ToCoordinator] = []
    for node, agent in agents.items():
        to_agents.append(Hold(listens=tuple(one for one in plan.listens if one.node == node)))
        to_coordinator.append(Held(listeners=agent.listeners))
    for line in lines:
        if isinstance(line, OutcomesLine):
            to_coordinator.append(Results(outcomes=line.outcomes))
        elif isinstance(line, SightingsLine):
            confirmation = agents[line.node].confirmation
            assert confirmation is not None  # it has told what it saw
            to_coordinator.append(Seen(sightings=line.sightings, confirmation=confirmation))
            asked = tuple(one for seen in line.sightings for one in seen.probe_ids)
            to_agents.append(Ask(probe_ids=asked))
    sizes = []
    for order in to_agents:
        sent = encode_message(order)
        decode_for_agent(sent[LENGTH.size :])
        sizes.append(len(sent))
    for reply in to_coordinator:
        sent = encode_message(reply)
        decode_for_coordinator(sent[LENGTH.size :])
        sizes.append(len(sent))
    return sizes


def _diagnose_again(plan: Plan, observations: Observations, printed: Report) -> Report:
    report = diagnose(plan, observations)
    if report.flows != printed.flows or report.findings != printed.findings:
        raise SystemExit("the run file gives another report")
    return report


def _draw(report: Report) -> str:
    page = io.StringIO()
    render_table(report, Console(file=page, width=120))
    return page.getvalue()


def show(measured: Measured) -> None:
    """Print one case."""
    counts = ", ".join(f"{number:,} {what}" for what, number in measured.counts.items())
    print(f"\n{measured.title}: {counts}")
    for stage, times in measured.seconds.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"  {stage:10} {wall:7.3f} s wall {cpu:7.3f} s CPU  {measured.peaks[stage]:5} MB")
    for what, size in measured.sizes.items():
        print(f"  {what:16} {size:13,} bytes")
    print(measured.profile, end="", flush=True)


def main() -> None:
    """Run the cases one after the other, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=[*SETTINGS], help="a setting")
    parser.add_argument("--nodes", action="append", type=int, help="default: 10, 20, 50")
    parser.add_argument("--shape", choices=["roles", "all"], default="roles")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    chosen = parser.parse_args()
    for name in chosen.only or SETTINGS:
        for nodes in chosen.nodes or (10, 20, 50):
            arguments = (name, nodes, chosen.shape, chosen.rounds, chosen.profile)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                show(pool.submit(measure, *arguments).result())


if __name__ == "__main__":
    main()
