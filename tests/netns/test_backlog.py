"""A kernel that lets few connections wait: what it drops is never called blocked.

Eight sources begin at the same ports at the same time, a crowd of strangers beside them.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from preflight.lab import faults
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause, Verdict
from tests.netns.harness import Cluster, profile_of
from tests.netns.test_crowds import CROWD

SOURCES = tuple(f"s{number}" for number in range(1, 9))
ADDRESS = "10.77.99.11"
NODES = [
    LabNode("destination", (ADDRESS,)),
    *(LabNode(name, (f"10.77.{number}.11",)) for number, name in enumerate(SOURCES, start=1)),
]
ROLES = {name: ["source"] for name in SOURCES} | {"destination": ["destination"]}
PROFILE = profile_of({"services": "30000-30099/tcp"})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    with Lab(NODES) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("backlog"), ROLES, profile=PROFILE)
        cluster.start_agents()
        yield lab, cluster


def settle(lab: Lab, *, somaxconn: int, cookies: int, abort: int = 0) -> None:
    lab.set_sysctl("destination", "net.core.somaxconn", str(somaxconn))
    lab.set_sysctl("destination", "net.ipv4.tcp_syncookies", str(cookies))
    lab.set_sysctl("destination", "net.ipv4.tcp_abort_on_overflow", str(abort))


@contextmanager
def bursts(lab: Lab, count: int, ports: str) -> Iterator[None]:
    """Strangers at the node s8, so many at once, evenly over the ports."""
    strangers = lab.popen(
        "s8",
        [sys.executable, CROWD, "burst", str(count), ADDRESS, *ports.split("-"), b"?".hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    yield
    said, _ = strangers.communicate(timeout=30)
    lab.end(strangers)
    assert said.startswith("there\n")


def drops(lab: Lab) -> int:
    """By the backlogs of the destination's kernel, since it was made."""
    lines = lab.run("destination", ["cat", "/proc/net/netstat"]).stdout.splitlines()
    counters = dict(zip(lines[0].split(), lines[1].split(), strict=True))
    return int(counters["ListenDrops"])


@pytest.mark.parametrize(("cookies", "abort"), [(1, 0), (0, 0), (1, 1)])
def test_too_few_may_wait(shared: tuple[Lab, Cluster], cookies: int, abort: int) -> None:
    lab, cluster = shared
    settle(lab, somaxconn=1, cookies=cookies, abort=abort)
    before = drops(lab)
    with bursts(lab, 200, "30000-30003"):
        checked = cluster.run_check("--rate", "max")
    assert drops(lab) > before
    verdicts = {flow.verdict for flow in checked.all_flows}
    assert verdicts <= {Verdict.OPEN, Verdict.DEGRADED, Verdict.UNTESTED}, checked.all_flows
    assert checked.exit_code in (0, 3)
    assert "small-backlog" in checked.finding_codes()


@pytest.mark.parametrize("cookies", [1, 0])
def test_where_the_kernel_dropped_silence_is_untested(
    shared: tuple[Lab, Cluster], cookies: int
) -> None:
    """A port is silent by the network's fault, and the node's own kernel drops there as well:
    nobody can tell which it was.
    """
    lab, cluster = shared
    settle(lab, somaxconn=1, cookies=cookies)
    table = lab.plant(ROUTER, faults.drop(Traffic("tcp", "10.77.1.11", ADDRESS, "30007-30008")))
    before = drops(lab)
    with bursts(lab, 200, "30007-30007"):
        checked = cluster.run_check("--from", "s1")
    assert drops(lab) > before
    lab.flush(ROUTER, table)
    crowded = checked.flow("s1", "destination", port=30_007)
    assert (crowded.verdict, crowded.cause) == (Verdict.UNTESTED, Cause.SKIPPED)
    assert "had to drop" in crowded.detail
    assert checked.flow("s1", "destination", port=30_008).verdict is Verdict.BLOCKED
    assert checked.flow("s1", "destination", port=30_009).verdict is Verdict.OPEN


def test_with_room_for_all_a_dropped_port_is_blocked(shared: tuple[Lab, Cluster]) -> None:
    """The same, and nothing to hide behind: also where SYN cookies are off."""
    lab, cluster = shared
    settle(lab, somaxconn=128, cookies=0)
    table = lab.plant(ROUTER, faults.drop(Traffic("tcp", (), ADDRESS, "30007")))
    checked = cluster.run_check()
    lab.flush(ROUTER, table)
    for name in SOURCES:
        assert checked.flow(name, "destination", port=30_007).verdict is Verdict.BLOCKED
        assert checked.flow(name, "destination", port=30_008).verdict is Verdict.OPEN
    assert "small-backlog" not in checked.finding_codes()


def test_fifty_at_once_at_every_port_lose_nothing(shared: tuple[Lab, Cluster]) -> None:
    """With the backlog of old kernels. In lockstep, which fifty nodes never are."""
    lab, cluster = shared
    settle(lab, somaxconn=128, cookies=1)
    before = drops(lab)
    with bursts(lab, 50 * 100, "30000-30099"):
        checked = cluster.run_check("--rate", "200", "--deadline", "30")
    assert checked.surprises({}) == []
    assert checked.exit_code == 0
    assert drops(lab) == before
