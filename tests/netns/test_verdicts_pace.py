"""Firewalls that mind how fast connections are made: what they refuse is no hole.

A working port may be open, degraded or untested, and is never blocked; a hole is blocked.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause, Verdict
from preflight.ports import count_ports
from tests.netns.harness import OPEN, Checked, Cluster, Told, blocked, ports_of, profile_of

NODES = [LabNode(name, (f"10.77.{number}.11",)) for number, name in enumerate(("a", "b"), start=1)]
RANGE = "30000-32767"
HOLES = "30100-30119"
BRIEFLY = 3_000
"""Milliseconds that a second look at reset ports may take on a busy machine: 600 else."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    with Lab(NODES) as lab:
        folder = tmp_path_factory.mktemp("pace")
        roles = {"a": ["source"], "b": ["destination"]}
        profile = profile_of({"web": "7000/tcp", "range": f"{RANGE}/tcp"})
        cluster = Cluster(lab, folder, roles, profile=profile)
        cluster.start_agents()
        yield lab, cluster


def check(shared: tuple[Lab, Cluster], chain: str) -> Checked:
    lab, cluster = shared
    table = lab.plant(ROUTER, chain)
    checked = cluster.run_check()
    lab.flush(ROUTER, table)
    return checked


def limited(verdict: str, rate: int) -> str:
    """Beyond so many SYNs a second, this verdict."""
    match = "tcp dport 7000-32767 tcp dport != 10888 tcp flags & (syn|ack) == syn"
    rule = f"{match} limit rate over {rate}/second counter {verdict}"
    return f"{{\ntype filter hook forward priority filter; policy accept;\n{rule}\n}}"


@pytest.mark.parametrize(
    "verdict", ["reject with tcp reset", "reject with icmp type admin-prohibited", "drop"]
)
def test_what_a_limit_refused_is_not_blocked(shared: tuple[Lab, Cluster], verdict: str) -> None:
    checked = check(shared, limited(verdict, 200))
    told = {flow.verdict for flow in checked.all_flows}
    assert Verdict.UNTESTED in told
    assert told <= {Verdict.OPEN, Verdict.DEGRADED, Verdict.UNTESTED}
    assert {flow.cause for flow in checked.all_flows} <= {None, Cause.LOSS}
    assert checked.exit_code == 3


def test_what_was_reset_for_the_pace_is_told_so(shared: tuple[Lab, Cluster]) -> None:
    checked = check(shared, limited("reject with tcp reset", 200))
    assert "too-fast" in checked.finding_codes()
    untested = [flow for flow in checked.all_flows if flow.verdict == "untested"]
    assert count_ports(ports_of(untested)) > 1_000
    assert {flow.rule for flow in untested} == {"range"}
    assert "--rate" in untested[0].detail


@pytest.mark.parametrize("cause", [Cause.RESET, Cause.NO_ANSWER])
def test_holes_are_holes_and_soon_known(shared: tuple[Lab, Cluster], cause: Cause) -> None:
    traffic = Traffic("tcp", ports=HOLES)
    reset = cause is Cause.RESET
    checked = check(shared, faults.reject(traffic, TCP_RESET) if reset else faults.drop(traffic))
    told = {flow.ports: Told.by(flow) for flow in checked.flows("a", "b")}
    assert told == {"7000": OPEN, "30000-30099,30120-32767": OPEN, HOLES: blocked(cause)}
    assert checked.report is not None
    took = {phase.name: phase.elapsed_ms for phase in checked.report.phases}
    # Few silent ports among many that work are not tried again.
    assert ("second-look" in took) is reset
    assert took.get("second-look", 0.0) < BRIEFLY
