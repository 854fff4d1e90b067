"""The real program in a lab, for tests: `Cluster` starts agents, runs `check`, reads its report."""

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from preflight.lab.cluster import ClusterNode, ClusterShape, ClusterVip, LabCluster
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.model.report import FlowRecord, Report
from preflight.ports import intersect, parse_ports

CHECK_PATIENCE = 60.0

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


@dataclass(frozen=True)
class Checked:
    """A `check` that has ended."""

    exit_code: int
    report: Report | None
    """None where it printed none."""
    stdout: str
    stderr: str

    def flows(
        self, source: str, destination: str, protocol: str = "tcp", port: int | None = None
    ) -> list[FlowRecord]:
        """The records of a pair, all of them or those that hold this port."""
        assert self.report is not None, self.stderr
        wanted = ((port, port),) if port is not None else None
        return [
            flow
            for flow in self.report.flows
            if (flow.source, flow.destination, flow.protocol) == (source, destination, protocol)
            and (wanted is None or intersect(parse_ports(flow.ports), wanted))
        ]

    def flow(
        self, source: str, destination: str, protocol: str = "tcp", port: int | None = None
    ) -> FlowRecord:
        """The one record of a pair (and port)."""
        found = self.flows(source, destination, protocol, port)
        assert len(found) == 1, found
        return found[0]

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
        roles: dict[str, Sequence[str]],
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
