"""The real program in a lab, for tests: `Cluster` starts agents, runs `check`, reads its report."""

import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from preflight.lab.cluster import ClusterNode, ClusterShape, ClusterVip, LabCluster
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.model.plan import Family
from preflight.model.report import Cause, FlowRecord, Report, Verdict, Where
from preflight.ports import Ranges, intersect, parse_ports, union

CHECK_PATIENCE = 60.0
STRANGERS = str(Path(__file__).with_name("strangers.py"))

ONE_PORT = """
name = "one-port"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000/tcp", "7000/udp"]
why = "the test asks for it"
source = "tests"
"""
"""A profile: role `source` to role `destination`, one port of each protocol."""


def profile_of(rules: Mapping[str, str]) -> str:
    """A profile whose rules, from role `source` to role `destination`, are NAME: PORTS.

    Ports as in "7000/tcp 7000-7009/udp".
    """
    text = 'name = "test"\n'
    for name, ports in rules.items():
        quoted = ", ".join(f'"{one}"' for one in ports.split())
        text += (
            f'[rules.{name}]\nfrom = ["source"]\nto = ["destination"]\nports = [{quoted}]\n'
            f'why = "the test asks for it"\nsource = "tests"\n'
        )
    return text


@dataclass(frozen=True)
class Told:
    """What a report says of a flow; None where a test has nothing to say about a field."""

    verdict: Verdict
    cause: Cause | None = None
    where: Where | None = None
    reported_by: str | None = None
    ok: bool | None = None

    @classmethod
    def by(cls, flow: FlowRecord) -> "Told":
        """What this record says."""
        return cls(flow.verdict, flow.cause, flow.where, flow.reported_by, flow.ok)


OPEN = Told(Verdict.OPEN, ok=True)


def blocked(cause: Cause, where: Where = Where.UNKNOWN, *, reported_by: str | None = None) -> Told:
    """Blocked, and required."""
    return Told(Verdict.BLOCKED, cause, where, reported_by, ok=False)


def intercepted(cause: Cause) -> Told:
    """Somebody else answered."""
    return Told(Verdict.INTERCEPTED, cause, ok=False)


def untested(cause: Cause, *, reported_by: str | None = None) -> Told:
    """Not looked at."""
    return Told(Verdict.UNTESTED, cause, reported_by=reported_by)


def ports_of(flows: Iterable[FlowRecord]) -> Ranges:
    """All ports of these records together."""
    return union(*(parse_ports(flow.ports) for flow in flows))


@dataclass(frozen=True)
class Checked:
    """A `check` that has ended."""

    exit_code: int
    report: Report | None
    """None where it printed none."""
    stdout: str
    stderr: str

    @property
    def all_flows(self) -> tuple[FlowRecord, ...]:
        """Every record of the report."""
        assert self.report is not None, self.stderr
        return self.report.flows

    def flows(
        self,
        source: str,
        destination: str,
        protocol: str = "tcp",
        port: int | None = None,
        family: Family | None = None,
    ) -> list[FlowRecord]:
        """The records of a pair, all of them or those that hold this port, of this family."""
        wanted = ((port, port),) if port is not None else None
        return [
            flow
            for flow in self.all_flows
            if (flow.source, flow.destination, flow.protocol) == (source, destination, protocol)
            and (wanted is None or intersect(parse_ports(flow.ports), wanted))
            and family in (None, flow.family)
        ]

    def flow(
        self,
        source: str,
        destination: str,
        protocol: str = "tcp",
        port: int | None = None,
        family: Family | None = None,
    ) -> FlowRecord:
        """The one record of a pair (and port, and family)."""
        found = self.flows(source, destination, protocol, port, family)
        assert len(found) == 1, found
        return found[0]

    def surprises(self, expected: Mapping[tuple[str, str, str, int], Told]) -> list[str]:
        """Where it says something else of (source, destination, protocol, port), in words.

        Each of the pair's families must say the same. What is expected of nobody must be open.
        """
        found = []
        for flow in self.all_flows:
            for first, last in parse_ports(flow.ports):
                for port in range(first, last + 1):
                    place = (flow.source, flow.destination, flow.protocol, port)
                    wanted = expected.get(place, OPEN)
                    if Told.by(flow) != wanted:
                        found.append(f"{place}: {Told.by(flow)}, not {wanted}: {flow.detail}")
        return found

    def finding_codes(self) -> set[str]:
        """Which findings there are."""
        assert self.report is not None, self.stderr
        return {finding.code for finding in self.report.findings}


class Cluster(LabCluster):
    """A cluster on a lab.

    `roles` gives the roles of each node that takes part; a lab's node without one (another
    load balancer, a bystander) is not in the cluster. `profile` is the text of a profile, the
    name of a built-in one, or a path.
    """

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        roles: Mapping[str, Sequence[str]],
        *,
        profile: str = ONE_PORT,
        vips: Sequence[ClusterVip] = (),
        embedded: Sequence[str] = (),
    ) -> None:
        if "\n" in profile:
            (folder / "profile.toml").write_text(profile)
            profile = "profile.toml"
        nodes = [
            ClusterNode(
                name,
                tuple(str(one.ip) for one in lab.nodes[name].interfaces),
                tuple(roles_of_node),
                embedded=name in embedded,
            )
            for name, roles_of_node in roles.items()
        ]
        super().__init__(lab, ClusterShape(nodes, vips, profile), folder=folder)
        self.where = next(iter(roles))

    def reshape(
        self,
        nodes: Sequence[ClusterNode] | None = None,
        *,
        profile: str | None = None,
        vips: Sequence[ClusterVip] = (),
    ) -> None:
        """Write another cluster file for the same agents and keys: other nodes, other rules.

        Agents know nothing of it: the coordinator tells them what to do.
        """
        text = "profile.toml"
        if profile is None or "\n" not in profile:
            text = profile or text
        else:
            (self.folder / text).write_text(profile)
        self.file.write_text(ClusterShape(nodes or [*self.nodes.values()], vips, text).toml())

    def run_check(self, *options: str, where: str | None = None) -> Checked:
        """Run `check --format json` to its end: on the first node, or on `where`."""
        return self.finish(self.begin_check(*options, where=where))

    def begin_check(self, *options: str, where: str | None = None) -> Popen:
        """Start `check --format json`, for a test that does something in the meantime."""
        return self.check(
            where or self.where,
            *("--format", "json", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def interrupt(self, check: Popen) -> Checked:
        """Ctrl-C, and what it still printed."""
        check.send_signal(signal.SIGINT)
        return self.finish(check)

    def finish(self, check: Popen) -> Checked:
        """Wait for a check. Its output must be a whole report or nothing."""
        stdout, stderr = check.communicate(timeout=CHECK_PATIENCE)
        report = msgspec.json.decode(stdout, type=Report) if stdout else None
        return Checked(check.returncode, report, stdout, stderr)


def start_strangers(lab: Lab, where: str, *places: str) -> Popen:
    """Foreign programs on a node (`strangers.py`); back when they hold their ports."""
    started = lab.popen(where, [sys.executable, STRANGERS, *places], stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started
