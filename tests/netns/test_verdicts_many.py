"""Many flows of one source refused by one router, whose ICMP errors are limited as usual.

Six errors at once to each address, then one a second: more flows than that are refused here,
and what is silent by itself must not pass for refused.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause, Where
from tests.netns.harness import Cluster, Told, blocked, profile_of

NODES = [
    LabNode(name, (f"10.77.{number}.11",))
    for number, name in enumerate(("s1", "s2", "d1", "d2", "d3", "d4"), start=1)
]
DESTINATIONS = ("d1", "d2", "d3", "d4")
*OTHERS, D4 = (node.addresses[0] for node in NODES[2:])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    roles = {"s1": ["source"], "s2": ["source"]} | {name: ["destination"] for name in DESTINATIONS}
    rules = {"api": "6443/tcp", "vxlan": "8472/udp", "db": "25080/tcp", "etcd": "2379-2380/tcp"}
    with Lab(NODES) as lab:
        folder = tmp_path_factory.mktemp("many")
        cluster = Cluster(lab, folder, roles, profile=profile_of(rules))
        cluster.start_agents()
        yield lab, cluster


def test_sixteen_refused_flows_of_each_source_and_dropped_ones_beside_them(
    shared: tuple[Lab, Cluster],
) -> None:
    lab, cluster = shared
    table = lab.plant(
        ROUTER,
        faults.drop(Traffic("tcp", (), D4, "2380,25080")),
        faults.reject(Traffic("tcp", (), (), "2379,6443"), "admin-prohibited"),
        faults.reject(Traffic("tcp", (), OTHERS, "25080"), "admin-prohibited"),
        faults.reject(Traffic("udp", (), (), "8472"), "admin-prohibited"),
    )
    checked = cluster.run_check()
    lab.flush(ROUTER, table)
    wanted: dict[tuple[str, str, str, int], Told] = {}
    for source in ("s1", "s2"):
        refused = blocked(
            Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by=f"10.77.{source[1]}.1"
        )
        for name in DESTINATIONS:
            wanted |= {(source, name, "tcp", port): refused for port in (2379, 6443, 25080)}
            wanted[source, name, "udp", 8472] = refused
        wanted |= {(source, "d4", "tcp", port): blocked(Cause.NO_ANSWER) for port in (2380, 25080)}
    assert checked.surprises(wanted) == []
    assert checked.exit_code == 1
