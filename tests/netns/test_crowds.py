"""Crowds at the ports of a run, idle or hostile: none stops it, none makes it lie."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preflight.lab.network import Lab
from preflight.lab.topology import LabNode
from preflight.model.report import Verdict
from preflight.wire.challenge import MAGIC, MAX_SIZE, encode_challenge, new_challenge
from tests.netns.harness import Cluster, profile_of

SOURCE, DESTINATION, OUTSIDE = "10.77.1.11", "10.77.2.11", "10.77.3.11"
NODES = [
    LabNode("source", (SOURCE,)),
    LabNode("destination", (DESTINATION,)),
    LabNode("outside", (OUTSIDE,)),
]
FIRST, LAST = 30_000, 32_767
ROLES = {"source": ["source"], "destination": ["destination"]}
RANGE = profile_of({"node-ports": f"{FIRST}-{LAST}/tcp", "vxlan": "8472/udp"})
SLOWLY = ("--rate", "400", "--deadline", "30")
"""Seven seconds for the range: the crowd is there for most of them."""
CROWD = str(Path(__file__).with_name("crowd.py"))
IDLE = 10_000

UNFINISHED = encode_challenge(new_challenge(bytes(16), MAX_SIZE), bytes(32))[:-1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    with Lab(NODES) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("crowds"), ROLES, profile=RANGE)
        cluster.start_agents()
        yield lab, cluster


@contextmanager
def crowd(lab: Lab, where: str, *words: str, size: int) -> Iterator[None]:
    """Afterwards: it was there, at least so many in all, before it was told to go."""
    program = lab.popen(
        where, [sys.executable, CROWD, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield
    said, _ = program.communicate(timeout=30)
    lab.end(program)
    there, made = said.splitlines()
    assert there == "there"
    assert int(made) >= size


def test_ten_thousand_idle_connections(shared: tuple[Lab, Cluster]) -> None:
    lab, cluster = shared
    with crowd(
        lab, "outside", "connect", str(IDLE), DESTINATION, str(FIRST), str(LAST), "", size=IDLE
    ):
        checked = cluster.run_check(*SLOWLY)
    assert checked.surprises({}) == []
    assert checked.exit_code == 0


@pytest.mark.parametrize(
    "words",
    [MAGIC[:2], b"SSH-2.0-x\r\n", b"GET /healthz HTTP/1.0\r\n\r\n", b"GET ", UNFINISHED],
    ids=["partial-magic", "garbage", "health-check", "half-a-health-check", "unfinished"],
)
def test_hostile_connections(shared: tuple[Lab, Cluster], words: bytes) -> None:
    """On few ports, and as fast as they can: what is closed on them comes again."""
    lab, cluster = shared
    with crowd(
        lab, "outside", "connect", "30", DESTINATION, "30000", "30004", words.hex(), size=30
    ):
        checked = cluster.run_check("--port", "30000-30499")
    assert checked.surprises({}) == []
    assert checked.exit_code == 0


def test_a_flood_of_datagrams_that_are_not_ours(shared: tuple[Lab, Cluster]) -> None:
    lab, cluster = shared
    with crowd(lab, "outside", "flood", "10000", DESTINATION, "8472", "00" * 64, size=1_000):
        checked = cluster.run_check()
    assert {flow.verdict for flow in checked.flows("source", "destination")} == {Verdict.OPEN}
    vxlan = checked.flow("source", "destination", "udp")
    assert vxlan.verdict in (Verdict.OPEN, Verdict.DEGRADED)  # on a slow machine with some loss
    assert checked.exit_code == 0


def test_no_time_wait_and_fewer_ephemeral_ports_than_connections(
    shared: tuple[Lab, Cluster],
) -> None:
    lab, cluster = shared
    before = lab.run("source", ["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).stdout
    lab.set_sysctl("source", "net.ipv4.ip_local_port_range", "40000 40999")
    try:
        for _ in range(3):
            checked = cluster.run_check("--rate", "max")
            assert checked.surprises({}) == []
    finally:
        lab.set_sysctl("source", "net.ipv4.ip_local_port_range", before.strip())
    # The control connections are TLS over TCP, and closed as usual: one for each agent and run.
    assert time_wait(lab, "source") + time_wait(lab, "destination") <= 2 * 3


def time_wait(lab: Lab, where: str) -> int:
    """What `ss -s` counts."""
    told = lab.run(where, ["cat", "/proc/net/sockstat"]).stdout
    found = re.search(r"^TCP:.* tw (\d+)", told, re.MULTILINE)
    assert found is not None
    return int(found[1])
