"""One source, one destination, the NodePort range: preflight beside nmap and beside C.

    python -m bench.sweep                   # everything, seven rounds
    python -m bench.sweep --rounds 3 --only open --only dropped

Two namespaces behind a router. In each round every program runs once in each setting, in turn,
so that what else the machine does falls on all of them alike. Each answer is compared with what
was planted: speed with a wrong answer counts as nothing. preflight's time is that of its phases
between the agents (`probe` and `second-look`, as the report has them) at `--rate max`; everybody
else's that of the whole process.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from preflight.lab import faults
from preflight.lab.cluster import ClusterNode, ClusterShape, LabCluster
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause, Report, Verdict
from preflight.ports import each_port, parse_ports

SOURCE, DESTINATION = "source", "destination"
ADDRESSES = {SOURCE: "10.77.1.11", DESTINATION: "10.77.2.11"}
FIRST, LAST = 30_000, 32_767
PORTS = range(FIRST, LAST + 1)
RANGE = f"{FIRST}-{LAST}"
PATIENCE = 600.0
"""Seconds that one program may take: nmap needs minutes where everything is dropped."""

UNTOLD = "untold"
"""Lost so often that nothing is claimed: no answer, and no wrong one."""

PROFILE = f"""
name = "range"
[rules.nodeports]
from = ["source"]
to = ["destination"]
ports = ["{RANGE}/tcp"]
why = "bench"
source = "bench"
"""

States: TypeAlias = dict[int, str]
"""Port -> open, closed or silent."""


class Measured(NamedTuple):
    """One run of one program."""

    seconds: float
    states: States
    note: str = ""


class Setting(NamedTuple):
    """What is planted, and what is then true of each port."""

    where: str
    faults: tuple[str, ...]
    truth: Callable[[int], str]


def _to_range(ports: str = RANGE) -> Traffic:
    return Traffic("tcp", destination=ADDRESSES[DESTINATION], ports=ports)


def _every_tenth(port: int) -> bool:
    return port % 10 == 0


_TENTH = ",".join(str(port) for port in PORTS if _every_tenth(port))

SETTINGS = {
    "open": Setting(ROUTER, (), lambda _: "open"),
    "closed": Setting(
        DESTINATION,
        (faults.reject(_to_range(), TCP_RESET, hook="input"),),
        lambda _: "closed",
    ),
    "tenth-dropped": Setting(
        ROUTER,
        (faults.drop(_to_range(_TENTH)),),
        lambda port: "silent" if _every_tenth(port) else "open",
    ),
    "dropped": Setting(ROUTER, (faults.drop(_to_range()),), lambda _: "silent"),
    "loss-5": Setting(ROUTER, (faults.loss(_to_range(), 5, way="both"),), lambda _: "open"),
    "loss-20": Setting(ROUTER, (faults.loss(_to_range(), 20, way="both"),), lambda _: "open"),
}


@dataclass
class Bench:
    """The lab, and every program that can be run in it."""

    lab: Lab
    folder: Path
    cluster: LabCluster
    floor: Path | None
    nmap: str | None
    slow: bool
    programs: dict[str, Callable[[], Measured]] = field(init=False)

    def __post_init__(self) -> None:
        self.programs = {"preflight": self._preflight}
        if self.floor:
            self.programs["C loop, same listener"] = self._floor
        if self.nmap:
            self.programs["nmap -sT -T4"] = lambda: self._nmap("-sT", "-T4")
            self.programs["nmap -sT -T4 --min-rate 20000"] = lambda: self._nmap(
                "-sT", "-T4", "--min-rate", "20000"
            )
            self.programs["nmap -sS -T4"] = lambda: self._nmap("-sS", "-T4")

    def runs_in(self, program: str, setting: str) -> bool:
        """Whether it is worth its time: nmap takes minutes to call everything silent."""
        minutes = setting == "dropped" and program in ("nmap -sT -T4", "nmap -sS -T4")
        return self.slow or not minutes

    def _preflight(self) -> Measured:
        check = self.cluster.check(
            SOURCE, "--rate", "max", "--format", "json",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        began = time.monotonic()
        stdout, stderr = check.communicate(timeout=PATIENCE)
        whole = time.monotonic() - began
        if not stdout:
            raise SystemExit(stderr)
        report = msgspec.json.decode(stdout, type=Report)
        states: States = {}
        for flow in report.flows:
            state = _STATES.get((flow.verdict, flow.cause), f"{flow.verdict} {flow.cause}")
            states.update(dict.fromkeys(each_port(parse_ports(flow.ports)), state))
        phases = {phase.name: phase.elapsed_ms / 1000 for phase in report.phases}
        seconds = phases["probe"] + phases.get("second-look", 0.0)
        return Measured(seconds, states, f"whole command {whole:.2f} s")

    def _floor(self) -> Measured:
        with self._listening() as challenge:
            done = self.lab.run(
                SOURCE,
                [
                    *(str(self.floor), ADDRESSES[DESTINATION], str(FIRST), str(LAST)),
                    *(str(challenge), "256", "1000", "2"),
                ],
                patience=PATIENCE,
            )
        seconds, *lines = done.stdout.splitlines()
        states = {int(port): line.split()[0] for line in lines for port in line.split()[1:]}
        return Measured(float(seconds), states)

    def _nmap(self, *options: str) -> Measured:
        argv = [str(self.nmap), "-n", "-Pn", *options, "-p", RANGE, "-oX", "-"]
        with self._listening():
            began = time.monotonic()
            done = self.lab.run(SOURCE, [*argv, ADDRESSES[DESTINATION]], patience=PATIENCE)
            seconds = time.monotonic() - began
        return Measured(seconds, _read_nmap(done.stdout))

    @contextmanager
    def _listening(self) -> Iterator[Path]:
        """The listener engine alone, holding the range. Yields a challenge that it answers."""
        challenge = self.folder / "challenge"
        argv = [sys.executable, "-m", "bench.listening", ADDRESSES[DESTINATION]]
        holder = self.lab.popen(
            DESTINATION,
            [*argv, str(FIRST), str(LAST), str(challenge)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "{'listening'}":
            raise SystemExit("the ports can't be held")
        try:
            yield challenge
        finally:
            self.lab.end(holder)


_STATES = {
    (Verdict.OPEN, None): "open",
    (Verdict.DEGRADED, Cause.LOSS): "open",
    (Verdict.BLOCKED, Cause.RESET): "closed",
    (Verdict.BLOCKED, Cause.NO_ANSWER): "silent",
    (Verdict.UNTESTED, Cause.LOSS): UNTOLD,
}


def _read_nmap(text: str) -> States:
    words = {"filtered": "silent"}
    states: States = {}
    for host in ET.fromstring(text).iter("host"):  # noqa: S314 - nmap's, that we started
        for extra in host.iter("extraports"):
            state = extra.get("state", "")
            for reason in extra.iter("extrareasons"):
                for port in each_port(parse_ports(reason.get("ports", ""))):
                    states[port] = words.get(state, state)
        for told in host.iter("port"):
            found = told.find("state")
            assert found is not None
            state = found.get("state", "")
            states[int(told.get("portid", "0"))] = words.get(state, state)
    return states


@contextmanager
def bench(*, slow: bool) -> Iterator[Bench]:
    """The lab with both agents up."""
    nodes = [LabNode(name, (address,)) for name, address in ADDRESSES.items()]
    with tempfile.TemporaryDirectory() as made, Lab(nodes) as lab:
        folder = Path(made)
        (folder / "profile.toml").write_text(PROFILE)
        members = [ClusterNode(name, (ADDRESSES[name],), (name,)) for name in ADDRESSES]
        shape = ClusterShape(members, profile=str(folder / "profile.toml"))
        cluster = LabCluster(lab, shape, folder=folder)
        cluster.start_agents()
        yield Bench(lab, folder, cluster, _compile(folder), shutil.which("nmap"), slow)


def _compile(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", choices=[*SETTINGS], help="a setting")
    parser.add_argument("--alone", action="store_true", help="preflight, and nothing beside it")
    parser.add_argument("--slow", action="store_true", help="nmap's minutes of silence as well")
    chosen = parser.parse_args()
    for needed in ("nmap", "cc"):
        if shutil.which(needed) is None:
            print(f"{needed} is not installed: its rows are left out", file=sys.stderr)
    with bench(slow=chosen.slow) as made:
        for name in chosen.only or SETTINGS:
            _compare(made, name, chosen.rounds, alone=chosen.alone)


def _compare(made: Bench, name: str, rounds: int, *, alone: bool) -> None:
    setting = SETTINGS[name]
    if setting.faults:
        made.lab.plant(setting.where, *setting.faults)
    truth = {port: setting.truth(port) for port in PORTS}
    runs: dict[str, list[Measured]] = defaultdict(list)
    for _ in range(rounds):
        for program, run in made.programs.items():
            if made.runs_in(program, name) and (program == "preflight" or not alone):
                runs[program].append(run())
    made.lab.flush(setting.where)
    print(f"\n{name}: medians of {rounds} interleaved runs")
    own = statistics.median(one.seconds for one in runs["preflight"])
    for program, measured in runs.items():
        seconds = [one.seconds for one in measured]
        wrong = [
            sum(one.states.get(p) not in (truth[p], UNTOLD) for p in PORTS) for one in measured
        ]
        untold = [sum(one.states.get(p) == UNTOLD for p in PORTS) for one in measured]
        print(
            f"  {program:32} {statistics.median(seconds):7.3f} s  "
            f"({min(seconds):.3f} to {max(seconds):.3f})  "
            f"preflight/this {own / statistics.median(seconds):5.2f}  "
            f"wrong answers {sum(wrong)}, untold {sum(untold)}  {measured[0].note}",
            flush=True,
        )


if __name__ == "__main__":
    main()
