"""Whole paths: full segments that don't pass, a node behind a translation, everything dropped."""

import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.lab import faults
from preflight.lab.cluster import ClusterNode
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.plan import Family
from preflight.model.report import Cause, Verdict
from tests.netns.harness import OPEN, Cluster, Told, blocked, profile_of, untested

NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(("a", "narrow", "swallowed", "small", "wide"), start=1)
]
PORTS = "6443,7000"
SHORT_OF_SIZE = Told(Verdict.DEGRADED, Cause.PATH_MTU, ok=True)


@pytest.fixture(scope="module")
def narrow_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two links of 1,400 bytes, of which one is kept from saying so, and a way that swallows."""
    roles = {"a": ["source"]} | {node.name: ["destination"] for node in NODES[1:]}
    with Lab(NODES) as lab:
        profile = profile_of({"web": "7000/tcp 7000/udp", "api": "6443/tcp"})
        cluster = Cluster(lab, tmp_path_factory.mktemp("paths"), roles, profile=profile)
        cluster.start_agents()
        for name in ("narrow", "small"):
            lab.set_mtu(name, 1_400, router_side_only=True)
        keep_from_telling(lab, *lab.nodes["narrow"].addresses)
        for address in lab.nodes["swallowed"].addresses:
            lab.plant(ROUTER, faults.stall(Traffic("tcp", (), address, PORTS), longer_than=1_400))
        yield cluster


def keep_from_telling(lab: Lab, ipv4: str, ipv6: str) -> None:
    """Drop the router's "fragmentation needed" and "packet too big" about these destinations."""
    # Behind the eight bytes of the ICMP header comes the packet that was too big.
    inner4 = f"@th,192,32 {int(ipaddress.ip_address(ipv4)):#x}"
    inner6 = f"@th,256,128 {int(ipaddress.ip_address(ipv6)):#x}"
    rules = (
        "type filter hook output priority filter; policy accept;",
        f"icmp type destination-unreachable icmp code frag-needed {inner4} counter drop",
        f"icmpv6 type packet-too-big {inner6} counter drop",
    )
    lab.plant(ROUTER, "\n".join(("{", *rules, "}")))


@pytest.mark.parametrize("family", [4, 6])
def test_full_segments_that_do_not_pass(narrow_ways: Cluster, family: Family) -> None:
    checked = narrow_ways.run_check()
    for name in ("narrow", "swallowed"):
        flows = checked.flows("a", name, family=family)
        assert [Told.by(flow) for flow in flows] == [SHORT_OF_SIZE, SHORT_OF_SIZE]
        assert {flow.proof for flow in flows} == {"agent"}
    for name in ("small", "wide"):
        told = [Told.by(flow) for flow in checked.flows("a", name, family=family)]
        assert told == [OPEN, OPEN]
    for name in ("narrow", "swallowed", "small", "wide"):
        assert Told.by(checked.flow("a", name, "udp", family=family)) == OPEN
    assert checked.exit_code == 0
    assert "path-mtu" in checked.finding_codes()


def test_a_node_that_only_small_packets_reach_still_takes_part(tmp_path: Path) -> None:
    """The control connection needs no large packets, or the worst paths would tell nothing."""
    with Lab([LabNode("a", ("10.77.1.11",)), LabNode("b", ("10.77.2.11",))]) as lab:
        for way in (Traffic(None, (), "10.77.2.11"), Traffic(None, "10.77.2.11")):
            lab.plant(ROUTER, faults.stall(way, longer_than=700))
        cluster = Cluster(lab, tmp_path, {"a": ["source"], "b": ["destination"]})
        cluster.start_agents()
        checked = cluster.run_check()
    assert Told.by(checked.flow("a", "b")) == SHORT_OF_SIZE


def test_strict_does_not_put_up_with_it(narrow_ways: Cluster) -> None:
    checked = narrow_ways.run_check("--strict", "--to", "narrow")
    assert checked.exit_code == 1
    assert {flow.ok for flow in checked.flows("a", "narrow", family=4)} == {False}


@pytest.mark.parametrize("nat", [True, False])
def test_a_node_behind_a_translation(tmp_path: Path, *, nat: bool) -> None:
    nodes = [LabNode("a", ("10.77.1.11",)), LabNode("b", ("10.77.2.11",))]
    outside = "10.77.200.11"
    with Lab(nodes) as lab:
        lab.plant(ROUTER, faults.redirect(Traffic(None, (), outside), address="10.77.2.11"))
        cluster = Cluster(lab, tmp_path, {"a": ["source"], "b": ["destination"]})
        cluster.start_agents()
        b = ClusterNode("b", (outside,), ("destination",), nat=nat)
        cluster.reshape([cluster.nodes["a"], b])
        checked = cluster.run_check()
        lab.plant("b", faults.drop(Traffic("tcp", ports="7000"), hook="input"))
        dropped = cluster.run_check() if nat else None
    for protocol in ("tcp", "udp"):
        flow = checked.flow("a", "b", protocol)
        assert Told.by(flow) == (OPEN if nat else untested(Cause.AGENT_REFUSED))
    assert checked.exit_code == (0 if nat else 3)
    assert ("nat-node" in checked.finding_codes()) is nat
    if dropped is not None:
        assert Told.by(dropped.flow("a", "b", "tcp")) == blocked(Cause.NO_ANSWER)
        assert Told.by(dropped.flow("a", "b", "udp")) == OPEN


def test_eight_nodes_with_everything_dropped_end_in_time(tmp_path: Path) -> None:
    roles = {
        "ops": ["client"],
        **{name: ["control-plane"] for name in ("cp1", "cp2", "cp3")},
        **{name: ["worker"] for name in ("w1", "w2")},
        "db1": ["mongodb"],
        "es1": ["elasticsearch"],
    }
    nodes = [LabNode(name, (f"10.77.{number}.11",)) for number, name in enumerate(roles, start=1)]
    asked = "2379-2380,6443,9200,10250,25080,30000-32767"
    with Lab(nodes) as lab:
        cluster = Cluster(lab, tmp_path, roles, profile="apinizer", embedded=["ops"])
        cluster.start_agents()
        lab.plant(
            ROUTER,
            faults.drop(Traffic("tcp", ports=asked)),
            faults.drop(Traffic("udp", ports="8285,8472")),
        )
        began = time.monotonic()
        checked = cluster.run_check()
        took = time.monotonic() - began
    assert {(flow.verdict, flow.cause) for flow in checked.all_flows} == {
        (Verdict.BLOCKED, Cause.NO_ANSWER)
    }
    assert {flow.ok for flow in checked.all_flows if not flow.required} == {True}
    assert {flow.ok for flow in checked.all_flows if flow.required} == {False}
    print(f"{took:.1f} s")  # noqa: T201 - for whoever runs this with -s
    assert took < 12
