"""Routers that refuse more slowly than firewalls do, and more flows than they speak of at once.

A route that refuses pays twice for each ICMP error, and so sends one in two seconds; a router
that looks for a host in vain speaks after three seconds. IPv4: the kernel's ICMPv6 errors to
one address are limited otherwise.
"""

from collections.abc import Iterator

import pytest

from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause, Where
from tests.netns.harness import Cluster, blocked, profile_of

# The coordinator is on the destinations' link, so that it reaches them past the router.
NODES = [
    LabNode("s1", ("10.77.1.11",)),
    LabNode("s2", ("10.77.3.11",)),
    *(LabNode(name, (f"10.77.2.{n}",), "lan") for n, name in enumerate(("c", "d1", "d2"), 10)),
]
DESTINATIONS = {node.name: node.addresses[0] for node in NODES[3:]}
PORTS = (2379, 6443, 25_080)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    roles = {name: ["source"] for name in ("s1", "s2")}
    roles |= {name: ["destination"] for name in DESTINATIONS}
    rules = {f"port-{port}": f"{port}/tcp" for port in PORTS} | {"vxlan": "8472/udp"}
    with Lab(NODES) as lab:
        folder = tmp_path_factory.mktemp("slow")
        cluster = Cluster(lab, folder, roles, profile=profile_of(rules))
        cluster.start_agents()
        yield lab, cluster


def test_a_route_that_refuses_is_given_the_quiet_it_needs(shared: tuple[Lab, Cluster]) -> None:
    lab, cluster = shared
    for rule in (["to", DESTINATIONS["d1"]], ["to", DESTINATIONS["d2"], "ipproto", "udp"]):
        lab.run(ROUTER, ["ip", "rule", "add", "from", "10.77.1.11", *rule, "prohibit"])
    checked = cluster.run_check("--from", "s1", where="c")
    told = blocked(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by="10.77.1.1")
    flows = [*(("d1", "tcp", port) for port in PORTS), ("d1", "udp", 8472), ("d2", "udp", 8472)]
    wanted = {("s1", name, protocol, port): told for name, protocol, port in flows}
    assert checked.surprises(wanted) == []


def test_a_router_that_looks_for_the_host_is_waited_for(shared: tuple[Lab, Cluster]) -> None:
    lab, cluster = shared
    asked = "\n".join(
        f"arp operation request arp daddr ip {address} drop" for address in DESTINATIONS.values()
    )
    chain = f"chain out {{\ntype filter hook output priority 0;\n{asked}\n}}"
    lab.run(ROUTER, ["nft", "-f", "-"], text=f"table arp isolated {{\n{chain}\n}}\n")
    lab.run(ROUTER, ["ip", "neigh", "flush", "all"])
    # One destination: for the flows of more of them a second look has no time, and silence that
    # is not explained is told as such.
    checked = cluster.run_check("--from", "s2", "--to", "d1", where="c")
    lab.run(ROUTER, ["nft", "delete", "table", "arp", "isolated"])
    told = blocked(Cause.ICMP_HOST_UNREACHABLE, Where.FORWARD_PATH, reported_by="10.77.3.1")
    flows = [("tcp", port) for port in PORTS] + [("udp", 8472)]
    wanted = {("s2", "d1", *flow): told for flow in flows}
    assert checked.surprises(wanted) == []
