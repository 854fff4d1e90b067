"""What an attack on the verdicts brought to light: each was said wrongly once."""

import pytest
from msgspec import structs

from preflight.diagnosis import diagnose
from preflight.model.observation import Confirmation, Failure, Icmp
from preflight.model.report import Cause, FlowRecord, Verdict, Where
from preflight.wire.challenge import SMALL_SIZE
from tests.scenarios.world import World, behind_vip, instance_of, pair

ROUTER = "10.0.9.1"
OWN = Icmp(4, 3, 1, "10.0.2.11")


def judged(world: World) -> list[FlowRecord]:
    return list(diagnose(world.plan(), world.observations()).flows)


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (Failure.SILENT_AFTER_CONNECT, Cause.STALLED),
        (Failure.CLOSED_AFTER_CONNECT, Cause.CLOSED),
    ],
)
def test_a_stall_behind_masquerading_is_no_impostor(failure: Failure, cause: Cause) -> None:
    """Nothing on the pair was proven, so nothing told which address the source has there."""
    world = pair().connected("w1", "m1", 6443, failure)
    world.sighting("m1", 6443, None, source_address=ROUTER, source_port=1024)
    (record,) = judged(world)
    assert (record.verdict, record.cause) == (Verdict.BLOCKED, cause)


def bystander(failure: Failure = Failure.SILENT_AFTER_CONNECT) -> World:
    """Something completes w1's connection to 7010, and somebody else connects to m1 there."""
    world = pair("7000,7010").connected("w1", "m1", 7010, failure)
    return world.sighting("m1", 7010, None, source_address="10.0.7.7", source_port=1024)


@pytest.mark.parametrize("failure", [Failure.SILENT_AFTER_CONNECT, Failure.CLOSED_AFTER_CONNECT])
def test_a_bystanders_health_check_is_no_alibi_for_an_impostor(failure: Failure) -> None:
    """Other connections of the pair show that its source is not translated."""
    record = judged(bystander(failure).proven("w1", "m1", "7000"))[1]
    assert (record.verdict, record.cause) == (Verdict.INTERCEPTED, Cause.IMPOSTOR)
    assert record.evidence.seen_by_destination is False


@pytest.mark.parametrize("observed", [ROUTER, "10.0.7.7"])
def test_where_the_source_is_translated_any_strange_address_may_be_its_own(observed: str) -> None:
    record = judged(bystander().proven("w1", "m1", "7000", observed_source=observed))[1]
    assert (record.verdict, record.cause) == (Verdict.BLOCKED, Cause.STALLED)


def test_what_udp_and_the_other_family_show_is_not_taken_for_tcp() -> None:
    world = World().node("w1", "10.0.2.11", "fd00::1").node("m1", "10.0.1.11", "fd00::2")
    world.flow("w1", "m1", "7010").flow("w1", "m1", "7010", "udp").flow(
        "w1", "m1", "7010", family=6
    )
    world.connected("w1", "m1", 7010, Failure.SILENT_AFTER_CONNECT)
    world.sighting("m1", 7010, None, source_address=ROUTER, source_port=1024)
    world.proven("w1", "m1", "7010", protocol="udp").proven("w1", "m1", "7010", family=6)
    assert (judged(world)[0].verdict, judged(world)[0].cause) == (Verdict.BLOCKED, Cause.STALLED)


def test_another_nodes_connection_vouches_for_nothing() -> None:
    world = pair().node("w2", "10.0.2.12")
    world.connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT)
    world.sighting("m1", 6443, None, source_address="10.0.2.12", source_port=1024)
    (record,) = judged(world)
    assert (record.verdict, record.cause) == (Verdict.INTERCEPTED, Cause.IMPOSTOR)


def test_one_unanswered_arp_speaks_for_the_whole_address() -> None:
    world = pair("30000-30009")
    world.outcome("w1", "m1", "30000", Failure.NO_NEIGHBOUR, icmp=OWN, errno="EHOSTUNREACH")
    world.silent("w1", "m1", "30001-30009")
    records = judged(world)
    assert {(r.verdict, r.cause, r.where) for r in records} == {
        (Verdict.BLOCKED, Cause.NO_NEIGHBOUR, Where.SOURCE_EGRESS)
    }


def test_an_address_that_spoke_has_a_neighbour_entry() -> None:
    """The source's own firewall rejects with the very error that ARP would give."""
    world = pair("30000-30002").proven("w1", "m1", "30000")
    world.outcome("w1", "m1", "30001", Failure.NO_NEIGHBOUR, icmp=OWN, errno="EHOSTUNREACH")
    world.silent("w1", "m1", "30002")
    by_port = {record.ports: record.cause for record in judged(world)}
    assert by_port == {"30000": None, "30001": Cause.SEND_DENIED, "30002": Cause.NO_ANSWER}


def test_a_refused_second_syn_says_nothing_of_sizes() -> None:
    world = pair().proven("w1", "m1", "6443", size=SMALL_SIZE)
    world.refused("w1", "m1", "6443", Icmp(4, 3, 13, ROUTER), size=8192)
    (record,) = judged(world)
    assert (record.verdict, record.cause) == (Verdict.OPEN, None)


def test_what_an_agent_left_unanswered_when_it_was_stopped_is_no_loss() -> None:
    world = World().node("w1", "10.0.2.11").node("w2", "10.0.2.12")
    world.flow("w1", "w2", "8472", protocol="udp")
    world.proven("w1", "w2", "8472", protocol="udp", attempts=24, answered=1)
    world.agent("w2", "lost", detail="the agent is gone")
    (record,) = judged(world)
    assert (record.verdict, record.cause, record.loss) == (Verdict.OPEN, None, None)


def short_of_size() -> World:
    """w1 reaches m1 on several ports of several rules, and large packets get lost."""
    world = pair("2379-2380", rule="etcd").flow("w1", "m1", "6443", rule="api")
    world.flow("w1", "m1", "8472", "udp", rule="vxlan")
    world.proven("w1", "m1", "2379-2380,6443").proven("w1", "m1", "8472", protocol="udp")
    return world.outcome("w1", "m1", "2379", Failure.SILENT_AFTER_CONNECT, size=8192)


def test_what_large_packets_meet_is_true_of_every_port_of_the_path() -> None:
    etcd, api, vxlan = judged(short_of_size())
    assert {(r.verdict, r.cause) for r in (etcd, api)} == {(Verdict.DEGRADED, Cause.PATH_MTU)}
    assert (vxlan.verdict, vxlan.cause) == (Verdict.OPEN, None)
    world = short_of_size()
    (found,) = diagnose(world.plan(), world.observations()).findings
    assert (found.code, found.flows) == ("path-mtu", (0, 1))


def test_it_is_true_of_a_port_that_another_program_holds_as_well() -> None:
    world = short_of_size().flow("w1", "m1", "9200", rule="search")
    world.occupied("m1", "9200", owner="java (pid 9)", owner_listens=True)
    world.outcome("w1", "m1", "9200", Failure.CONNECTED_ONLY)
    record = judged(world)[-1]
    assert (record.verdict, record.cause, record.proof) == (
        Verdict.DEGRADED,
        Cause.PATH_MTU,
        "connection",
    )


def test_it_is_said_of_no_other_path() -> None:
    world = short_of_size().node("m2", "10.0.1.12").flow("w1", "m2", "6443")
    world.proven("w1", "m2", "6443")
    assert (judged(world)[-1].verdict, judged(world)[-1].cause) == (Verdict.OPEN, None)


def test_one_large_challenge_that_passes_shows_that_they_do() -> None:
    world = short_of_size().proven("w1", "m1", "6443", size=8192)
    assert {record.verdict for record in judged(world)} == {Verdict.OPEN}


def balanced_by_m1(failure: Failure, *, holds: str = "10.0.1.10") -> World:
    """haproxy holds the VIP (or another address of m1); m1 and m2 listen on their own."""
    world = behind_vip("m1", "m2").occupied("m1", "6443", owner="haproxy", owner_listens=True)
    (_, state) = world.holders.pop()
    world.holders.append(("m1", structs.replace(state, address=holds)))
    return world.connected("w1", "api", 6443, failure)


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (Failure.CLOSED_AFTER_CONNECT, Cause.NO_BACKEND),
        (Failure.SILENT_AFTER_CONNECT, Cause.STALLED),
    ],
)
def test_a_balancer_on_a_backends_host_that_leads_nowhere(failure: Failure, cause: Cause) -> None:
    (record,) = judged(balanced_by_m1(failure))
    assert (record.verdict, record.cause) == (Verdict.BLOCKED, cause)


@pytest.mark.parametrize(
    ("failure", "holds"),
    [(Failure.FOREIGN_ANSWER, "10.0.1.10"), (Failure.CLOSED_AFTER_CONNECT, "10.0.1.11")],
)
def test_a_program_that_may_be_the_service_itself_is_left_alone(
    failure: Failure, holds: str
) -> None:
    (record,) = judged(balanced_by_m1(failure, holds=holds))
    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.PORT_IN_USE)


def test_a_balancer_whose_backends_do_not_confirm_proves_nothing() -> None:
    world = balanced_by_m1(Failure.CLOSED_AFTER_CONNECT)
    world.agent("m1", confirmation=None).agent("m2", "lost")
    (record,) = judged(world)
    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.AGENT_LOST)
    world.agent("m1", confirmation=Confirmation(instance=instance_of("m1"), held=()))
    (record,) = judged(world)
    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def kept_in(ports: str = "27017,27018", udp: str = "27017") -> World:
    """An exposure rule, and an output hook of w1's own that drops what goes to these UDP ports."""
    world = pair(ports, expected="blocked", rule="closed").flow("w1", "m1", udp, "udp", rule="udp")
    return world.outcome("w1", "m1", udp, Failure.SEND_DENIED, protocol="udp", errno="EPERM")


@pytest.mark.parametrize("failure", [Failure.NO_ANSWER, Failure.RESET])
def test_what_never_left_the_source_keeps_no_exposure_rule(failure: Failure) -> None:
    world = kept_in().flow("w1", "m1", "6443", rule="open").proven("w1", "m1", "6443")
    world.outcome("w1", "m1", "27017-27018", failure)
    told = {record.ports: record.ok for record in judged(world) if record.rule == "closed"}
    assert told == {"27017": None, "27018": True}
    assert "own firewall denies UDP" in judged(world)[0].detail


def test_where_no_connection_was_ever_made_the_rule_may_be_for_the_whole_address() -> None:
    world = kept_in(udp="8472").silent("w1", "m1", "27017-27018")
    assert [record.ok for record in judged(world) if record.rule == "closed"] == [None]
    world.flow("w1", "m1", "6443", rule="open").proven("w1", "m1", "6443")
    assert [record.ok for record in judged(world) if record.rule == "closed"] == [True]


def test_a_firewall_on_the_way_that_speaks_is_not_the_sources_own() -> None:
    world = kept_in("27017").refused("w1", "m1", "27017", Icmp(4, 3, 13, ROUTER))
    assert judged(world)[0].ok is True


def test_another_sources_own_firewall_has_nothing_to_do_with_it() -> None:
    world = kept_in("27017").node("w2", "10.0.2.12")
    world.flow("w2", "m1", "27017", rule="closed", expected="blocked")
    world.silent("w1", "m1", "27017").silent("w2", "m1", "27017")
    told = {record.source: record.ok for record in judged(world) if record.rule == "closed"}
    assert told == {"w1": None, "w2": True}
