"""Many agents, all pairs: what a whole `check` takes, and what it costs each process.

    python -m bench.many --agents 20 --range-sources 1 --range-destinations 10
    python -m bench.many --agents 50 --faults
    python -m bench.many --demo --rate 5000

Every node is a namespace in a subnet of its own behind one router, with a real agent
(`preflight serve`); a real `preflight check` runs in one more. Every node has every role that
a cluster's machine can have, so that all pairs and all rules of the profile apinizer are
checked; the NodePort range is between as many nodes as told. `--demo` is the cluster that
`preflight demo` shows. Each port's verdict and cause, under each rule, are compared with what
was planted; one wrong answer makes the exit status 1.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple, TypeAlias

import msgspec

from bench.accounting import (
    Memory,
    cpu_seconds,
    machine_seconds,
    memory,
    neighbour_table_overflows,
    wait_with_peak,
)
from preflight.config import load_cluster
from preflight.lab import demonstration, faults
from preflight.lab.cluster import ClusterNode, ClusterShape, LabCluster
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol
from preflight.model.plan import Flow
from preflight.model.report import Cause, Report
from preflight.planning import expand_flows
from preflight.ports import each_port, parse_ports

OBSERVER = LabNode("observer", ("10.76.0.11",))
"""Where `check` runs: no node of the cluster."""
PATIENCE = 300.0
MOST_AGENTS = 250
"""Each has a /24 of 10.77.0.0/16."""
FEWEST_WITH_FAULTS = 4
_SHOWN = 20

Key: TypeAlias = tuple[str, str, str, Protocol, int]
"""Rule, source, destination, protocol, port."""


class Planted(NamedTuple):
    """A fault, the one port that it is about, and what is then true of it."""

    where: str
    chain: str
    source: str | None
    """None: all sources."""
    destination: str
    protocol: Protocol
    port: int
    cause: Cause


@dataclass
class Setting:
    """A lab that is up, the cluster in it, and what is true of it."""

    lab: Lab
    cluster: LabCluster
    observer: str
    planted: Sequence[Planted]

    def truth(self) -> dict[Key, Cause | None]:
        """Each port of each flow: why it is blocked, None where it is open."""
        cluster, profile = load_cluster(self.cluster.file, resolve=_no_names)
        return {
            (flow.rule, flow.source, flow.destination, flow.protocol, port): self._cause(flow, port)
            for flow in expand_flows(cluster, profile)
            for port in each_port(flow.ports)
        }

    def _cause(self, flow: Flow, port: int) -> Cause | None:
        for fault in self.planted:
            about = (fault.destination, fault.protocol, fault.port)
            hit = about == (flow.destination, flow.protocol, port)
            if hit and fault.source in (None, flow.source):
                return fault.cause
        return None


class Measured(NamedTuple):
    """One run of `check`. Times in seconds."""

    wall: float
    phases: dict[str, float]
    coordinator: float
    """Its CPU time."""
    peak: float
    """Its largest RSS in MB."""
    agents: dict[str, float]
    """The CPU time of each."""
    machine: float
    """CPU time of everything that ran meanwhile."""
    memories: list[Memory]
    flows: int
    wrong: list[str]


def measure(setting: Setting, rate: str) -> Measured:
    """Run `check` once, and ask the kernel what it took."""
    pids = {name: agent.pid for name, agent in setting.cluster.agents.items()}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    spent, worked = getrusage(RUSAGE_CHILDREN), machine_seconds()
    fulls = neighbour_table_overflows()
    file = setting.cluster.folder / "report.json"
    options = ("--rate", rate, "--format", "json")
    with file.open("wb") as report_file, (file.parent / "check.log").open("wb") as log:
        began, started = time.time(), time.monotonic()
        check = setting.cluster.check(setting.observer, *options, stdout=report_file, stderr=log)
        peak = wait_with_peak(check, PATIENCE)
        wall = time.monotonic() - started
    if not file.stat().st_size:
        raise SystemExit((file.parent / "check.log").read_text())
    after = getrusage(RUSAGE_CHILDREN)
    if neighbour_table_overflows() != fulls:
        print("the kernel's neighbour table was full: raise net.ipv4.neigh.default.gc_thresh3")
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    return Measured(
        wall=wall,
        phases=_phases(report, began, began + wall),
        coordinator=after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime,
        peak=peak,
        agents={name: cpu_seconds(pid) - before[name] for name, pid in pids.items()},
        machine=machine_seconds() - worked,
        memories=[memory(pid) for pid in pids.values()],
        flows=report.summary.flows.total,
        wrong=list(_wrong(report, setting.truth())),
    )


def _phases(report: Report, began: float, ended: float) -> dict[str, float]:
    """The report's phases, and what comes before and after them."""
    phases = {phase.name: phase.elapsed_ms / 1000 for phase in report.phases}
    before = datetime.fromisoformat(report.started).timestamp() - began
    return {
        "start": before,
        **phases,
        "diagnosis and output": ended - began - before - sum(phases.values()),
    }


def _wrong(report: Report, truth: dict[Key, Cause | None]) -> Iterator[str]:
    left = dict(truth)
    for flow in report.flows:
        for port in each_port(parse_ports(flow.ports)):
            key = (flow.rule, flow.source, flow.destination, flow.protocol, port)
            name = f"{flow.source} -> {flow.destination} {port}/{flow.protocol} ({flow.rule})"
            told = f"{flow.verdict} ({flow.cause}): {flow.detail}"
            if key not in left:
                yield f"{name}: told twice, or not asked for: {told}"
                continue
            cause = left.pop(key)
            expected = ("open", None) if cause is None else ("blocked", cause)
            if (flow.verdict, flow.cause) != expected:
                yield f"{name}: {told}"
    yield from (f"nothing is told of {key}" for key in left)


@contextmanager
def demo() -> Iterator[Setting]:
    """The cluster of `preflight demo`, without faults."""
    shape = ClusterShape(demonstration.NODES, (demonstration.VIP,), name="demo")
    with tempfile.TemporaryDirectory() as made, Lab(demonstration.lab_nodes()) as lab:
        demonstration.plant_vip(lab)
        cluster = LabCluster(lab, shape, folder=Path(made))
        cluster.start_agents()
        yield Setting(lab, cluster, demonstration.OBSERVER, ())


@contextmanager
def all_pairs(chosen: argparse.Namespace) -> Iterator[Setting]:
    """As many agents as told, each with every role."""
    nodes = [
        ClusterNode(
            f"n{number}",
            (f"10.77.{number}.11",),
            tuple(_roles(number, chosen.range_sources, chosen.range_destinations)),
        )
        for number in range(1, chosen.agents + 1)
    ]
    machines = [LabNode(node.name, node.addresses) for node in nodes]
    planted = some_faults(nodes) if chosen.faults else ()
    with tempfile.TemporaryDirectory() as made, Lab([OBSERVER, *machines]) as lab:
        for fault in planted:
            lab.plant(fault.where, fault.chain)
        cluster = LabCluster(lab, ClusterShape(nodes, name="many"), folder=Path(made))
        began = time.monotonic()
        cluster.start_agents()
        print(f"{len(nodes)} agents started in {time.monotonic() - began:.1f} s", flush=True)
        yield Setting(lab, cluster, OBSERVER.name, planted)


def _roles(number: int, range_sources: int, range_destinations: int) -> Iterator[str]:
    """Clients come last and workers first; without a range everybody is a worker."""
    yield from ("control-plane", "mongodb", "elasticsearch")
    if not range_sources or number > range_sources:
        if not range_sources or number <= range_sources + range_destinations:
            yield "worker"
    else:
        yield "client"


def some_faults(nodes: Sequence[ClusterNode]) -> Sequence[Planted]:
    """One of each kind that a network team leaves behind."""
    (n1, a1), (n2, a2), (n3, a3), (n4, a4) = ((node.name, node.addresses[0]) for node in nodes[:4])
    dropped = faults.drop(Traffic("tcp", a1, a2, "6443"))
    dropped_udp = faults.drop(Traffic("udp", a1, a4, "8472"))
    reset = faults.reject(Traffic("tcp", (), a4, "2380"), TCP_RESET)
    refused = faults.reject(Traffic("tcp", (), a3, "10250"), "admin-prohibited", hook="input")
    return (
        Planted(ROUTER, dropped, n1, n2, "tcp", 6443, Cause.NO_ANSWER),
        Planted(ROUTER, dropped_udp, n1, n4, "udp", 8472, Cause.NO_ANSWER),
        Planted(ROUTER, reset, None, n4, "tcp", 2380, Cause.RESET),
        Planted(n3, refused, None, n3, "tcp", 10250, Cause.ICMP_ADMIN_PROHIBITED),
    )


def _no_names(name: str) -> tuple[str, ...]:
    raise AssertionError(f"{name} is no address")


def show(run: Measured) -> None:
    """One run, in a few lines."""
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in run.phases.items())
    spent = sorted(run.agents.values())
    whole, processors = run.coordinator + sum(spent), run.wall * (os.cpu_count() or 1)
    pss = sorted(one.pss for one in run.memories)
    rss = sorted(one.rss for one in run.memories)
    print(
        f"wall {run.wall:.2f} s: {phases}\n"
        f"  CPU: coordinator {run.coordinator:.2f} s; agents {statistics.median(spent):.2f} s "
        f"(median), {spent[-1]:.2f} s (most); together {whole:.1f} s, "
        f"{whole / processors:.0%} of the machine; all else "
        f"{(run.machine - whole) / processors:.0%}\n"
        f"  memory: coordinator {run.peak:.0f} MB (RSS, peak); agents PSS "
        f"{statistics.median(pss):.1f} MB (median), {pss[-1]:.1f} MB (most), "
        f"RSS {statistics.median(rss):.1f}, {rss[-1]:.1f} MB\n"
        f"  {run.flows:,} flows, wrong answers: {len(run.wrong)}",
        flush=True,
    )
    for wrong in run.wrong[:_SHOWN]:
        print(f"    {wrong}")
    if len(run.wrong) > _SHOWN:
        print(f"    and {len(run.wrong) - _SHOWN:,} more")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--agents", type=int, default=20, choices=range(2, MOST_AGENTS + 1),
                        metavar="N")  # fmt: skip
    parser.add_argument("--range-sources", type=int, default=0, help="nodes that sweep the range")
    parser.add_argument("--range-destinations", type=int, default=10, help="nodes that hold it")
    parser.add_argument("--demo", action="store_true", help="the cluster of `preflight demo`")
    parser.add_argument("--faults", action="store_true", help="plant four faults")
    parser.add_argument("--rate", default="max", help="as of `check`")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.faults and chosen.agents < FEWEST_WITH_FAULTS:
        parser.error(f"--faults needs {FEWEST_WITH_FAULTS} agents")
    runs = []
    with demo() if chosen.demo else all_pairs(chosen) as setting:
        for _ in range(chosen.rounds):
            runs.append(measure(setting, chosen.rate))
            show(runs[-1])
    walls = [run.wall for run in runs]
    print(f"median wall of {len(runs)}: {statistics.median(walls):.2f} s")
    sys.exit(any(run.wrong for run in runs))


if __name__ == "__main__":
    main()
