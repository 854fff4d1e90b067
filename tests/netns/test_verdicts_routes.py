"""What ends at the source's own kernel, and destinations whose agents can't be asked.

One check of all of them. The source, `near` and `mute` are on one link, and everybody else is
behind the router; the coordinator is elsewhere, and reaches them all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.lab.cluster import ClusterNode
from preflight.lab.network import DeadRoute, Lab
from preflight.lab.topology import LabNode
from preflight.model.cluster import Protocol
from preflight.model.plan import Family
from preflight.model.report import Cause, Where
from tests.netns.harness import OPEN, Checked, Cluster, Told, blocked, untested

SOURCE = {4: "10.77.1.11", 6: "fd77:1::11"}
BEYOND = ("far", "void", "forbidden", "shut", "ruled", "absent", "foreign", "elsewhere")
NODES = [
    LabNode("a", tuple(SOURCE.values()), "lan"),
    LabNode("near", ("10.77.1.12", "fd77:1::12"), "lan"),
    LabNode("mute", ("10.77.1.13", "fd77:1::13"), "lan"),
    *(
        LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
        for number, name in enumerate(BEYOND, start=2)
    ),
]
ADDRESSES = {node.name: node.addresses for node in NODES}
ELSEWHERE = ("10.77.9.99", "fd77:9::99")
"""What the cluster file says of `elsewhere`: not an address of that machine."""
GONE = ("10.77.1.99", "fd77:1::99")
"""On the source's link, and nobody has it."""
DEAD = ("10.77.2.99", "fd77:2::99")
"""On a link behind the router, and nobody has it."""

DEAD_ROUTES: dict[str, DeadRoute] = {
    "void": "blackhole",
    "forbidden": "prohibit",
    "shut": "unreachable",
}
OWN_KERNEL = Where.SOURCE_EGRESS
EXPECTED = {
    "near": OPEN,
    "far": OPEN,
    "void": blocked(Cause.NO_ROUTE, OWN_KERNEL),
    "shut": blocked(Cause.NO_ROUTE, OWN_KERNEL),
    "ruled": blocked(Cause.NO_ROUTE, OWN_KERNEL),
    "forbidden": blocked(Cause.SEND_DENIED, OWN_KERNEL),
    "absent": untested(Cause.AGENT_UNREACHABLE),
    "dead": untested(Cause.AGENT_UNREACHABLE),
    "foreign": untested(Cause.AGENT_REFUSED),
    "elsewhere": untested(Cause.AGENT_REFUSED),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    """The one check."""
    with Lab(NODES) as lab:
        cluster = start(lab, tmp_path_factory.mktemp("routes"))
        for name, kind in DEAD_ROUTES.items():
            for address in ADDRESSES[name]:
                lab.add_route("a", address, kind=kind)
        for address in ADDRESSES["ruled"]:
            # The errno of a missing route, without taking the source's route to all others.
            family = "-6" if ":" in address else "-4"
            lab.run("a", ["ip", family, "rule", "add", "to", address, "unreachable"])
        keep_from_asking_for_mute(lab)
        yield cluster.run_check(where="far")


def start(lab: Lab, folder: Path) -> Cluster:
    roles = {"a": ["source"]} | {node.name: ["destination"] for node in NODES[1:]}
    cluster = Cluster(lab, folder, roles)
    cluster.start_agents(without=["absent", "foreign"])
    (folder / "other").mkdir()
    cluster.make_key(folder / "other" / "other.key")
    cluster.start_agent("foreign", key_file=folder / "other" / "other.agent.key")
    nodes = [node for name, node in cluster.nodes.items() if name != "elsewhere"]
    control = f"{ADDRESSES['elsewhere'][0]}:10888"
    nodes += [
        ClusterNode("elsewhere", ELSEWHERE, ("destination",), control=control),
        ClusterNode("gone", GONE, ("destination",)),
        ClusterNode("dead", DEAD, ("destination",)),
    ]
    cluster.reshape(nodes)
    return cluster


def keep_from_asking_for_mute(lab: Lab) -> None:
    """As between two ports of a switch that are isolated from each other."""
    ipv4, _ = ADDRESSES["mute"]
    group = "ff02::1:ff00:13"  # where the neighbours of fd77:1::13 ask for it (RFC 4291, 2.7.1)
    hook = "type filter hook output priority 0;"
    rules = (
        f"table arp isolated {{\nchain out {{\n{hook}\n"
        f"arp operation request arp daddr ip {ipv4} drop\n}}\n}}\n"
        f"table ip6 isolated {{\nchain out {{\n{hook}\n"
        f"icmpv6 type nd-neighbor-solicit ip6 daddr {group} drop\n}}\n}}\n"
    )
    lab.run("a", ["nft", "-f", "-"], text=rules)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
class TestEach:
    """In each family and protocol."""

    @pytest.mark.parametrize("name", EXPECTED)
    def test_destination(
        self, checked: Checked, family: Family, protocol: Protocol, name: str
    ) -> None:
        assert Told.by(checked.flow("a", name, protocol, family=family)) == EXPECTED[name]

    def test_nobody_has_the_address(
        self, checked: Checked, family: Family, protocol: Protocol
    ) -> None:
        flow = checked.flow("a", "gone", protocol, family=family)
        assert Told.by(flow) == untested(Cause.NO_NEIGHBOUR, reported_by=SOURCE[family]), flow

    def test_a_neighbour_that_is_there_and_does_not_answer(
        self, checked: Checked, family: Family, protocol: Protocol
    ) -> None:
        flow = checked.flow("a", "mute", protocol, family=family)
        own = SOURCE[family]
        assert Told.by(flow) == blocked(Cause.NO_NEIGHBOUR, OWN_KERNEL, reported_by=own)


def test_each_trouble_is_told_of(checked: Checked) -> None:
    assert {"agent-unreachable", "agent-refused", "no-neighbour"} <= checked.finding_codes()
    assert checked.exit_code == 1


def test_a_missing_agent_alone_is_not_known(tmp_path: Path) -> None:
    nodes = [LabNode(name, ADDRESSES[name]) for name in ("far", "absent", "shut")]
    with Lab(nodes) as lab:
        roles = {"far": ["source"], "shut": ["destination"], "absent": ["destination"]}
        cluster = Cluster(lab, tmp_path, roles)
        cluster.start_agents(without=["absent"])
        checked = cluster.run_check()
    assert checked.exit_code == 3
    assert checked.report is not None
    assert checked.report.summary.ok is False
    assert Told.by(checked.flow("far", "shut", family=4)) == OPEN
