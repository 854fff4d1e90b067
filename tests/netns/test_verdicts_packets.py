"""Packets dropped, reset or refused: by whom, and what the report says of it.

One check for everything: each port of one pair has a fault of its own, in both families and
protocols, so that no fault may colour what is said of another.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.lab import faults
from preflight.lab.faults import REFUSALS, TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol
from preflight.model.plan import Family
from preflight.model.report import Cause, Where
from tests.netns.harness import OPEN, Checked, Cluster, Told, blocked, profile_of

SOURCE: dict[Family, str] = {4: "10.77.1.11", 6: "fd77:1::11"}
DESTINATION: dict[Family, str] = {4: "10.77.2.11", 6: "fd77:2::11"}
AT_ROUTER: dict[Family, str] = {4: "10.77.1.1", 6: "fd77:1::1"}
NODES = [LabNode("a", tuple(SOURCE.values())), LabNode("b", tuple(DESTINATION.values()))]

REFUSED = {
    "net-unreachable": Cause.ICMP_NET_UNREACHABLE,
    "host-unreachable": Cause.ICMP_HOST_UNREACHABLE,
    "prot-unreachable": Cause.ICMP_PROTOCOL_UNREACHABLE,
    "port-unreachable": Cause.ICMP_PORT_UNREACHABLE,
    "net-prohibited": Cause.ICMP_NET_PROHIBITED,
    "host-prohibited": Cause.ICMP_HOST_PROHIBITED,
    "admin-prohibited": Cause.ICMP_ADMIN_PROHIBITED,
    "no-route": Cause.ICMP_NET_UNREACHABLE,
    "addr-unreachable": Cause.ICMP_HOST_UNREACHABLE,
    "policy-fail": Cause.ICMP_ADMIN_PROHIBITED,
    "reject-route": Cause.ICMP_ADMIN_PROHIBITED,
}
FAMILIES: tuple[Family, ...] = (4, 6)
REASONS = [(family, reason) for family in FAMILIES for reason in REFUSALS[family]]
OPEN_PORT = 7000
REFUSED_BY_ROUTER = 7100
"""And the ports after it, one for each reason."""
REFUSED_BY_DESTINATION = 7200

EVERYWHERE = {*Where} - {Where.UNKNOWN}
NOT_ARRIVED = {Where.SOURCE_EGRESS, Where.FORWARD_PATH, Where.DESTINATION_HOST}
NOT_RETURNED = {Where.DESTINATION_HOST, Where.RETURN_PATH, Where.SOURCE_INGRESS}
SILENT = blocked(Cause.NO_ANSWER)
NOTHING: set[Where] = set()

SILENCES: dict[int, tuple[str, faults.Hook, faults.Way, set[Where], Told, set[Where]]] = {
    # What TCP can't tell apart: only a whole handshake reaches the listener.
    # port: where, hook, way; for TCP what may be; for UDP what is said, and what may be
    7001: (ROUTER, "forward", "there", EVERYWHERE, SILENT, NOT_ARRIVED),
    7002: (ROUTER, "forward", "back", EVERYWHERE, SILENT, NOT_RETURNED),
    7003: ("b", "input", "there", EVERYWHERE, SILENT, NOT_ARRIVED),
    7004: (
        *("b", "output", "back", EVERYWHERE),
        *(blocked(Cause.NO_ANSWER, Where.DESTINATION_HOST), NOTHING),
    ),
    7005: (
        *("a", "output", "there", EVERYWHERE),
        *(blocked(Cause.SEND_DENIED, Where.SOURCE_EGRESS), NOTHING),
    ),
    7006: ("a", "input", "back", EVERYWHERE, SILENT, NOT_RETURNED),
}
RESETS: dict[int, tuple[str, faults.Hook]] = {
    7010: (ROUTER, "forward"),
    7011: ("b", "input"),
    7012: ("a", "output"),
}
OWN_REJECT = 7013
ANSWERS_REFUSED = 7014
OWN_REJECT_AS_IF_DEAD = 7015
"""What the neighbour table says of a host that is not there, said by the own firewall."""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    """The one check."""
    # Without the limit, so that every port shows its own error: another file is about the limit.
    unlimited = {"net.ipv4.icmp_ratelimit": "0", "net.ipv6.icmp.ratelimit": "0"}
    with Lab(NODES, router_sysctls=unlimited) as lab:
        for key, value in unlimited.items():
            lab.set_sysctl("b", key, value)
        ports = plant_all(lab)
        rules = {f"port-{port}": f"{port}/tcp {port}/udp" for port in (OPEN_PORT, *ports)}
        cluster = start(lab, tmp_path_factory.mktemp("packets"), profile_of(rules))
        yield cluster.run_check()


def start(lab: Lab, folder: Path, profile: str) -> Cluster:
    roles = {"a": ["source"], "b": ["destination"]}
    cluster = Cluster(lab, folder, roles, profile=profile)
    cluster.start_agents()
    return cluster


def plant_all(lab: Lab) -> list[int]:
    """Returns the ports that have a fault."""
    both: tuple[Protocol, ...] = ("tcp", "udp")
    chains: dict[str, list[str]] = {ROUTER: [], "a": [], "b": []}
    for port, (where, hook, way, *_) in SILENCES.items():
        for one in both:
            chains[where].append(faults.drop(Traffic(one, ports=str(port)), hook=hook, way=way))
    for port, (where, hook) in RESETS.items():
        traffic = Traffic("tcp", ports=str(port))
        chains[where].append(faults.reject(traffic, TCP_RESET, hook=hook))
    for number, (family, reason) in enumerate(REASONS):
        to = DESTINATION[family]
        for one in both:
            there = Traffic(one, (), to, str(REFUSED_BY_ROUTER + number))
            chains[ROUTER].append(faults.reject(there, reason))
            there = Traffic(one, (), to, str(REFUSED_BY_DESTINATION + number))
            chains["b"].append(faults.reject(there, reason, hook="input"))
    for one in both:
        own = Traffic(one, ports=str(OWN_REJECT))
        chains["a"].append(faults.reject(own, "admin-prohibited", hook="output"))
        chains[ROUTER].append(answers_refused(Traffic(one, ports=str(ANSWERS_REFUSED))))
    for family, reason in ((4, "host-unreachable"), (6, "addr-unreachable")):
        for one in both:
            own = Traffic(one, (), DESTINATION[family], str(OWN_REJECT_AS_IF_DEAD))
            chains["a"].append(faults.reject(own, reason, hook="output"))
    for where, planted in chains.items():
        lab.plant(where, *planted)
    number = len(REASONS)
    return [
        *(*SILENCES, *RESETS, OWN_REJECT, ANSWERS_REFUSED, OWN_REJECT_AS_IF_DEAD),
        *range(REFUSED_BY_ROUTER, REFUSED_BY_ROUTER + number),
        *range(REFUSED_BY_DESTINATION, REFUSED_BY_DESTINATION + number),
    ]


def answers_refused(traffic: Traffic) -> str:
    """The router refuses the way back: the destination hears of it, and the source never."""
    rules = "\n".join(
        f"{match} reject with icmpx type admin-prohibited"
        for match in traffic.matches(back=True).values()
    )
    return f"{{\ntype filter hook forward priority filter; policy accept;\n{rules}\n}}"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
class TestEach:
    """Every fault, in both families and protocols."""

    def test_a_port_without_a_fault_is_open(
        self, checked: Checked, family: Family, protocol: Protocol
    ) -> None:
        flow = checked.flow("a", "b", protocol, OPEN_PORT, family)
        assert Told.by(flow) == OPEN
        assert flow.proof == "agent"
        assert flow.observed_source == SOURCE[family]

    @pytest.mark.parametrize("port", SILENCES)
    def test_silence(self, checked: Checked, family: Family, protocol: Protocol, port: int) -> None:
        *_, tcp_possible, udp, udp_possible = SILENCES[port]
        flow = checked.flow("a", "b", protocol, port, family)
        assert Told.by(flow) == (SILENT if protocol == "tcp" else udp)
        assert {*flow.evidence.where_possible} == (
            tcp_possible if protocol == "tcp" else udp_possible
        )
        assert flow.evidence.attempts > 1

    @pytest.mark.parametrize(
        ("base", "where"),
        [
            (REFUSED_BY_ROUTER, Where.FORWARD_PATH),
            (REFUSED_BY_DESTINATION, Where.DESTINATION_HOST),
        ],
    )
    def test_icmp(
        self, checked: Checked, family: Family, protocol: Protocol, base: int, where: Where
    ) -> None:
        sender = (AT_ROUTER if base == REFUSED_BY_ROUTER else DESTINATION)[family]
        for number, (own, reason) in enumerate(REASONS):
            flow = checked.flow("a", "b", protocol, base + number, family)
            wanted = blocked(REFUSED[reason], where, reported_by=sender)
            assert Told.by(flow) == (wanted if own == family else OPEN), reason

    @pytest.mark.parametrize("port", [OWN_REJECT, OWN_REJECT_AS_IF_DEAD])
    def test_a_refusal_by_the_sources_own_firewall(
        self, checked: Checked, family: Family, protocol: Protocol, port: int
    ) -> None:
        flow = checked.flow("a", "b", protocol, port, family)
        assert (flow.verdict, flow.cause, flow.where, flow.ok) == (
            *("blocked", Cause.SEND_DENIED, Where.SOURCE_EGRESS, False),
        )

    def test_answers_that_are_refused_on_their_way_back(
        self, checked: Checked, family: Family, protocol: Protocol
    ) -> None:
        flow = checked.flow("a", "b", protocol, ANSWERS_REFUSED, family)
        assert Told.by(flow) == SILENT
        assert {*flow.evidence.where_possible} == (
            EVERYWHERE if protocol == "tcp" else NOT_RETURNED
        )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("port", RESETS)
def test_reset(checked: Checked, family: Family, port: int) -> None:
    flow = checked.flow("a", "b", "tcp", port, family)
    assert Told.by(flow) == blocked(Cause.RESET)
    assert {*flow.evidence.where_possible} == NOT_ARRIVED
    assert checked.flow("a", "b", "udp", port, family).verdict == "open"


def test_the_run_fails(checked: Checked) -> None:
    assert checked.exit_code == 1
    assert checked.report is not None
    assert checked.report.summary.ok is False
