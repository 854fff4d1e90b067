"""Clean runs: a cluster of the requirements document's shape, nothing in its way.

The same agents are checked over IPv4, over IPv6 and over both.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.cluster import ClusterNode, ClusterVip
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.plan import Family
from preflight.ports import each_port, parse_ports
from tests.netns.harness import Checked, Cluster

CONTROL_PLANE, WORKER, CLIENT = "control-plane", "worker", "client"
ROLES = {
    "ops": [CLIENT],
    "cp1": [CONTROL_PLANE],
    "cp2": [CONTROL_PLANE],
    "cp3": [CONTROL_PLANE],
    "w1": [WORKER],
    "w2": [WORKER],
    "db1": ["mongodb"],
    "es1": ["elasticsearch"],
}
NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(ROLES, start=1)
]
BACKENDS = [node.addresses for node in NODES if ROLES[node.name] == [CONTROL_PLANE]]
VIPS: dict[Family, ClusterVip] = {
    4: ClusterVip("api", "10.77.100.10", 6443, CONTROL_PLANE, (CONTROL_PLANE, WORKER)),
    6: ClusterVip("api6", "fd77:100::10", 6443, CONTROL_PLANE, (CONTROL_PLANE, WORKER)),
}
RUNS: list[tuple[Family, ...]] = [(4,), (6,), (4, 6)]

DOCUMENT = """
worker control-plane tcp 6443
worker control-plane udp 8285
worker control-plane udp 8472
control-plane worker tcp 10250
control-plane worker udp 8285
control-plane worker udp 8472
control-plane control-plane tcp 6443
control-plane control-plane tcp 2379
control-plane control-plane tcp 2380
control-plane control-plane tcp 10250
control-plane control-plane udp 8472
control-plane control-plane udp 8285
control-plane VIP tcp 6443
worker VIP tcp 6443
worker mongodb tcp 25080
worker elasticsearch tcp 9200
client worker tcp 32080
client worker tcp 30180
client worker tcp 30080
client worker tcp 30000
client worker tcp 32767
"""
"""Every line of the requirements document: source role, destination role, protocol, port."""


@pytest.fixture(scope="module", params=RUNS, ids=["IPv4", "IPv6", "dual-stack"])
def run(request: pytest.FixtureRequest, cluster: Cluster) -> tuple[tuple[Family, ...], Checked]:
    """One check over these families."""
    families: tuple[Family, ...] = request.param
    nodes = [
        ClusterNode(
            node.name,
            tuple(a for a in node.addresses if (6 if ":" in a else 4) in families),
            tuple(ROLES[node.name]),
            embedded=node.name == "ops",
        )
        for node in NODES
    ]
    vips = [VIPS[family] for family in families]
    cluster.reshape(nodes, profile="apinizer", vips=vips)
    return families, cluster.run_check()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Lab(NODES) as lab:
        for number, vip in enumerate(VIPS.values()):
            backends = [addresses[number] for addresses in BACKENDS]
            lab.plant(ROUTER, *faults.balance(vip.address, vip.port, backends))
        started = Cluster(
            lab, tmp_path_factory.mktemp("clean"), ROLES, profile="apinizer", embedded=["ops"]
        )
        started.start_agents()
        yield started


def test_everything_is_open_and_proven(run: tuple[tuple[Family, ...], Checked]) -> None:
    families, checked = run
    assert checked.surprises({}) == []
    assert {flow.proof for flow in checked.all_flows} == {"agent"}
    assert {flow.family for flow in checked.all_flows} == {*families}
    assert checked.exit_code == 0
    assert checked.report is not None
    assert checked.report.summary.ok is True
    assert checked.report.summary.flows.open == checked.report.summary.flows.total


@pytest.mark.parametrize("line", DOCUMENT.strip().splitlines())
def test_every_line_of_the_document_is_in_the_report(
    run: tuple[tuple[Family, ...], Checked], line: str
) -> None:
    families, checked = run
    source, destination, protocol, port = line.split()
    for family in families:
        ends = {
            (a, b)
            for a, roles in ROLES.items()
            for b in ([VIPS[family].name] if destination == "VIP" else nodes_with(destination))
            if source in roles and a != b
        }
        found = {
            (flow.source, flow.destination)
            for flow in checked.all_flows
            if (flow.protocol, flow.family) == (protocol, family)
            and int(port) in each_port(parse_ports(flow.ports))
            and flow.verdict == "open"
        }
        assert ends <= found


def test_the_vip_is_counted(run: tuple[tuple[Family, ...], Checked]) -> None:
    families, checked = run
    for family in families:
        for source in ("cp1", "w1"):
            flow = checked.flow(source, VIPS[family].name)
            assert flow.backends is not None
            assert {*flow.backends} == {"cp1", "cp2", "cp3"}


def nodes_with(role: str) -> list[str]:
    return [name for name, roles in ROLES.items() if role in roles]
