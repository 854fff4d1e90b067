"""The whole NodePort range of a pair: refused, holes, and the limits on ICMP errors.

The kernel's limits are as they are out of the box: six errors at once to an address, then one
a second.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.plan import Family
from preflight.model.report import Cause, Where
from preflight.ports import each_port, parse_ports
from tests.netns.harness import OPEN, Cluster, Told, blocked, ports_of, profile_of, untested

RANGE = "30000-32767"
NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(("s1", "s2", "d1", "d2", "d3"), start=1)
]
D1, D2, D3 = (node.addresses for node in NODES[2:])
AT_ROUTER: dict[Family, str] = {4: "10.77.1.1", 6: "fd77:1::1"}
FAMILIES: tuple[Family, ...] = (4, 6)
HOLES = "30000,30079-30081,31500,32767"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    roles = {"s1": ["source"], "s2": ["source"]}
    roles |= {name: ["destination"] for name in ("d1", "d2", "d3")}
    profile = profile_of({"nodeports": f"{RANGE}/tcp"})
    with Lab(NODES) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("node-ports"), roles, profile=profile)
        cluster.start_agents()
        yield lab, cluster


@pytest.fixture
def lab(shared: tuple[Lab, Cluster]) -> Iterator[Lab]:
    yield shared[0]
    for where in (ROUTER, *shared[0].nodes):
        shared[0].flush(where)


@pytest.fixture
def cluster(shared: tuple[Lab, Cluster]) -> Cluster:
    return shared[1]


def node_ports(destination: tuple[str, ...], ports: str = RANGE) -> Traffic:
    return Traffic("tcp", (), destination, ports)


def test_a_range_that_is_refused_by_icmp_is_one_cause(lab: Lab, cluster: Cluster) -> None:
    lab.plant(ROUTER, *(faults.reject(node_ports((a,)), "admin-prohibited") for a in D1))
    for address in D2:
        reason = "host-prohibited" if "." in address else "addr-unreachable"
        lab.plant("d2", faults.reject(node_ports((address,)), reason, hook="input"))
    checked = cluster.run_check("--from", "s1")
    causes = {4: Cause.ICMP_HOST_PROHIBITED, 6: Cause.ICMP_HOST_UNREACHABLE}
    for family in FAMILIES:
        by_router = checked.flow("s1", "d1", family=family)
        by_host = checked.flow("s1", "d2", family=family)
        assert by_router.ports == by_host.ports == RANGE
        assert Told.by(by_router) == blocked(
            Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by=AT_ROUTER[family]
        )
        assert Told.by(by_host) == blocked(
            causes[family], Where.DESTINATION_HOST, reported_by=D2[FAMILIES.index(family)]
        )
        assert Told.by(checked.flow("s1", "d3", family=family)) == OPEN
    assert checked.exit_code == 1


def test_a_node_that_stands_still_costs_no_port_of_any(lab: Lab, cluster: Cluster) -> None:
    lab.plant(ROUTER, faults.stall(node_ports(D1)))
    some = "30000-31199"
    checked = cluster.run_check("--from", "s1", "--to", "d1", "--to", "d2", "--port", some)
    for family in FAMILIES:
        stalled = checked.flow("s1", "d1", family=family)
        assert stalled.ports == some
        assert Told.by(stalled) == blocked(Cause.STALLED)
        assert Told.by(checked.flow("s1", "d2", family=family)) == OPEN


def test_holes_are_told_to_the_port(lab: Lab, cluster: Cluster) -> None:
    lab.plant(ROUTER, faults.drop(node_ports(D1, HOLES)))
    lab.plant(ROUTER, faults.reject(node_ports(D2, HOLES), TCP_RESET))
    lab.plant("d3", faults.drop(node_ports(D3, "31000-31999"), hook="input"))
    checked = cluster.run_check()
    wanted = {}
    for source in ("s1", "s2"):
        for port in each_port(parse_ports(HOLES)):
            wanted[source, "d1", "tcp", port] = blocked(Cause.NO_ANSWER)
            wanted[source, "d2", "tcp", port] = blocked(Cause.RESET)
        for port in range(31_000, 32_000):
            wanted[source, "d3", "tcp", port] = blocked(Cause.NO_ANSWER)
    assert checked.surprises(wanted)[:10] == []
    assert checked.report is not None
    assert checked.report.summary.flows.blocked == 2 * 2 * (6 + 6 + 1_000)
    assert checked.report.summary.records == 24


def test_a_range_with_two_faults_is_two_records(lab: Lab, cluster: Cluster) -> None:
    # Dropped ports among refused ones must not pass for refused, nor the other way round.
    lab.plant(ROUTER, faults.drop(node_ports(D1, "30000-31383")))
    for address in D1:
        lab.plant(ROUTER, faults.reject(node_ports((address,), "31384-32767"), "admin-prohibited"))
    checked = cluster.run_check("--from", "s1", "--to", "d1")
    for family in FAMILIES:
        flows = checked.flows("s1", "d1", family=family)
        assert {flow.verdict for flow in flows} == {"blocked"}
        refused = [flow for flow in flows if flow.cause == Cause.ICMP_ADMIN_PROHIBITED]
        assert min(each_port(ports_of(refused))) >= 31_384


def test_a_range_that_is_dropped(lab: Lab, cluster: Cluster) -> None:
    # Not more than that: the run sends 20,000 SYNs into silence at most, and leaves the rest.
    lab.plant(ROUTER, faults.drop(node_ports(D1)))
    lab.plant("d2", faults.drop(node_ports(D2), hook="input"))
    checked = cluster.run_check("--from", "s1")
    for family in FAMILIES:
        for dropped in ("d1", "d2"):
            flow = checked.flow("s1", dropped, family=family)
            assert (flow.ports, Told.by(flow)) == (RANGE, blocked(Cause.NO_ANSWER))
        assert Told.by(checked.flow("s1", "d3", family=family)) == OPEN


def test_what_the_bounds_leave_out_is_untested(lab: Lab, cluster: Cluster) -> None:
    lab.plant(ROUTER, faults.drop(node_ports((*D1, *D2))))
    checked = cluster.run_check()
    for source in ("s1", "s2"):
        for family in FAMILIES:
            for dropped in ("d1", "d2"):
                flows = checked.flows(source, dropped, family=family)
                assert {Told.by(flow) for flow in flows} <= {
                    blocked(Cause.NO_ANSWER),
                    untested(Cause.SKIPPED),
                }
            told = {Told.by(flow) for flow in checked.flows(source, "d3", family=family)}
            assert told <= {OPEN, untested(Cause.SKIPPED)}
    assert checked.report is not None
    assert checked.report.summary.flows.untested > 0


def test_a_range_of_datagrams_that_is_dropped_is_one_record(lab: Lab, cluster: Cluster) -> None:
    # Twelve datagrams for each of them: the destination is asked about some of each port.
    cluster.reshape(profile=profile_of({"nodeports": f"{RANGE}/udp"}))
    lab.plant(ROUTER, faults.drop(Traffic("udp", (), D1, RANGE)))
    lab.plant(ROUTER, faults.drop(Traffic("udp", (), D2, RANGE), way="back"))
    some = "30000-30999"
    checked = cluster.run_check("--from", "s1", "--to", "d1", "--to", "d2", "--port", some)
    cluster.reshape(profile=profile_of({"nodeports": f"{RANGE}/tcp"}))
    for destination, seen in (("d1", False), ("d2", True)):
        for family in FAMILIES:
            flow = checked.flow("s1", destination, "udp", family=family)
            assert (flow.ports, Told.by(flow)) == (some, blocked(Cause.NO_ANSWER))
            assert flow.evidence.seen_by_destination is seen


def test_a_dropped_hole_between_two_refused_ranges(lab: Lab, cluster: Cluster) -> None:
    # What was silent for a reason of its own must not pass for refused like its neighbours.
    address = D1[0]
    lab.plant(ROUTER, faults.drop(node_ports((address,), "30700-30720")))
    refused = "30000-30499,31500-32767"
    lab.plant(ROUTER, faults.reject(node_ports((address,), refused), "admin-prohibited"))
    checked = cluster.run_check("--from", "s1", "--to", "d1")
    told = {flow.ports: Told.by(flow) for flow in checked.flows("s1", "d1", family=4)}
    assert told == {
        refused: blocked(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by=AT_ROUTER[4]),
        "30500-30699,30721-31499": OPEN,
        "30700-30720": blocked(Cause.NO_ANSWER),
    }


def test_a_range_that_the_source_itself_refuses(lab: Lab, cluster: Cluster) -> None:
    # The kernel bounds the errors that it sends to itself as well, so that some ports are silent.
    cluster.reshape(profile=profile_of({"nodeports": f"{RANGE}/tcp 30000-30999/udp"}))
    source = NODES[0].addresses[0]
    for traffic in (node_ports(D1[:1]), Traffic("udp", (), D1[:1], RANGE)):
        lab.plant("s1", faults.reject(traffic, "admin-prohibited", hook="output"))
    checked = cluster.run_check("--from", "s1", "--to", "d1")
    cluster.reshape(profile=profile_of({"nodeports": f"{RANGE}/tcp"}))
    for protocol in ("tcp", "udp"):
        assert Told.by(checked.flow("s1", "d1", protocol, family=4)) == blocked(
            Cause.SEND_DENIED, Where.SOURCE_EGRESS, reported_by=source
        )
