"""The order of the rules, where two of them could speak."""

import pytest
from msgspec import structs

from preflight.diagnosis import diagnose
from preflight.model.cluster import Protocol
from preflight.model.observation import (
    AgentObservation,
    Attempt,
    Confirmation,
    Facts,
    Failure,
    Icmp,
    ListenerState,
)
from preflight.model.report import Cause, FlowRecord, Verdict, Where
from tests.scenarios.world import World, behind_vip, instance_of, pair


def only_record(world: World, *, strict: bool = False) -> FlowRecord:
    (record,) = diagnose(world.plan(), world.observations(), strict=strict).flows
    return record


def verdict(world: World) -> tuple[Verdict, Cause | None]:
    record = only_record(world)
    return record.verdict, record.cause


def test_right_name_with_another_nodes_instance_is_the_wrong_node() -> None:
    world = pair().node("m2", "10.0.1.12")
    world.proven("w1", "m1", "6443", answered_instance=instance_of("m2"))

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.INTERCEPTED, Cause.WRONG_NODE)
    assert record.evidence.answered_by == "m2"


def test_right_name_with_nobodys_instance_is_the_wrong_node_while_the_right_one_is_up() -> None:
    world = pair().proven("w1", "m1", "6443", answered_instance="another-life")

    assert verdict(world) == (Verdict.INTERCEPTED, Cause.WRONG_NODE)


@pytest.mark.parametrize("state", ["ready", "lost"])
def test_answer_of_a_restarted_agent_proves_nothing(state: str) -> None:
    world = pair().proven("w1", "m1", "6443", answered_instance="another-life")
    if state == "lost":
        world.agent("m1", "lost")
    else:
        world.agent("m1", confirmation=Confirmation(instance="another-life", held=()))

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def test_restarted_backend_beside_a_confirming_one_is_no_silence() -> None:
    world = behind_vip("m1", "m2").agent("m2", "lost")
    world.proven("w1", "api", "6443", answered_by="m2", answered_instance="another-life")

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def test_wrong_node_needs_the_destinations_word() -> None:
    world = pair().node("m2", "10.0.1.12").agent("m1", "unreachable")
    world.proven("w1", "m1", "6443", answered_by="m2")

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.AGENT_UNREACHABLE)
    assert "m2 answered in its place" in record.detail


def test_vip_that_leads_to_a_wrong_node_now_and_then_is_intercepted() -> None:
    world = behind_vip("m1", "m3").node("m2", "10.0.1.22")
    world.proven("w1", "api", "6443", answered_by="m1")
    world.proven("w1", "api", "6443", answered_by="m2")

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.INTERCEPTED, Cause.WRONG_NODE)
    assert record.backends == {"m1": 1, "m2": 1}


def test_vip_answers_through_a_translated_port() -> None:
    world = behind_vip("m1", "m2")
    world.proven("w1", "api", "6443", answered_by="m2", answered_port=16443)

    assert verdict(world) == (Verdict.OPEN, None)


def test_vip_with_no_ready_backend_is_untested() -> None:
    world = behind_vip("m1", "m2").agent("m1", "unreachable").agent("m2", "refused")
    world.connected("w1", "api", 6443, Failure.CLOSED_AFTER_CONNECT)

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_REFUSED)


def test_vip_needs_one_confirming_backend_only() -> None:
    world = behind_vip("m1", "m2").agent("m1", "unreachable").silent("w1", "api", "6443")

    assert verdict(world) == (Verdict.BLOCKED, Cause.NO_ANSWER)


def test_vip_before_a_service_that_runs_already_may_lead_there() -> None:
    world = behind_vip("m1", "m2").occupied("m1", "6443", owner="nginx", owner_listens=True)
    world.connected("w1", "api", 6443, Failure.FOREIGN_ANSWER, first_bytes="4854")

    assert verdict(world) == (Verdict.UNTESTED, Cause.PORT_IN_USE)


def test_vip_seen_by_a_backend_is_closed_not_without_backend() -> None:
    world = behind_vip("m1", "m2").connected("w1", "api", 6443, Failure.CLOSED_AFTER_CONNECT)
    world.sighting("m2", 6443, "192b1", answered=True)

    assert verdict(world) == (Verdict.BLOCKED, Cause.CLOSED)


def test_no_conversation_at_all() -> None:
    world = pair()
    world.unheard = {"m1"}

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.AGENT_UNREACHABLE)
    assert "no conversation" in record.detail


def test_lost_source_keeps_what_it_had_learned() -> None:
    world = pair("2379,6443").agent("w1", "lost").proven("w1", "m1", "2379")

    first, second = diagnose(world.plan(), world.observations()).flows

    assert first.verdict is Verdict.OPEN
    assert (second.verdict, second.cause) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def test_ready_source_that_told_nothing() -> None:
    assert verdict(pair()) == (Verdict.UNTESTED, Cause.SKIPPED)


def test_interrupted_before_the_destination_was_asked() -> None:
    world = pair().silent("w1", "m1", "6443").agent("m1", confirmation=None)
    world.interrupted = True

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.SKIPPED)
    assert "interrupted" in record.detail


def test_ready_agent_without_confirmation_vouches_for_nothing() -> None:
    world = pair().silent("w1", "m1", "6443").agent("m1", confirmation=None)

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def test_listener_that_was_not_held_all_the_time() -> None:
    world = pair().silent("w1", "m1", "6443")
    world.agent("m1", confirmation=Confirmation(instance=instance_of("m1"), held=()))

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_LOST)


@pytest.mark.parametrize(
    ("failure", "listens", "expected"),
    [
        (Failure.CONNECTED_ONLY, True, (Verdict.OPEN, None)),
        (Failure.FOREIGN_ANSWER, True, (Verdict.OPEN, None)),
        (Failure.CONNECTED_ONLY, False, (Verdict.UNTESTED, Cause.PORT_IN_USE)),
        (Failure.RESET, True, (Verdict.UNTESTED, Cause.PORT_IN_USE)),
        (Failure.NO_ANSWER, True, (Verdict.BLOCKED, Cause.NO_ANSWER)),
        (Failure.NO_ROUTE, True, (Verdict.BLOCKED, Cause.NO_ROUTE)),
        (Failure.SKIPPED, True, (Verdict.UNTESTED, Cause.SKIPPED)),
    ],
)
def test_port_held_by_another_program(
    failure: Failure, *, listens: bool, expected: tuple[Verdict, Cause | None]
) -> None:
    world = pair().occupied("m1", "6443", owner="nginx (pid 7)", owner_listens=listens)
    world.outcome("w1", "m1", "6443", failure)

    assert verdict(world) == expected


def test_connection_to_a_held_port_needs_a_ready_agent() -> None:
    world = pair().occupied("m1", "6443", owner="nginx", owner_listens=True).agent("m1", "lost")
    world.outcome("w1", "m1", "6443", Failure.CONNECTED_ONLY)

    assert verdict(world) == (Verdict.UNTESTED, Cause.AGENT_LOST)


def test_bare_connection_to_a_free_port_proves_nothing() -> None:
    world = pair().outcome("w1", "m1", "6443", Failure.CONNECTED_ONLY)

    assert verdict(world) == (Verdict.UNTESTED, Cause.PORT_IN_USE)


def test_unlisted_attempts_leave_a_silent_connection_open_to_doubt() -> None:
    world = pair().connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT, unanswered=())

    assert verdict(world) == (Verdict.UNTESTED, Cause.SKIPPED)


def test_foreign_answer_beside_a_right_one_is_intercepted() -> None:
    world = pair().proven("w1", "m1", "6443")
    world.connected("w1", "m1", 6443, Failure.FOREIGN_ANSWER)

    assert verdict(world) == (Verdict.INTERCEPTED, Cause.IMPOSTOR)


def test_second_look_refines_the_first() -> None:
    world = pair().silent("w1", "m1", "6443")
    world.refused("w1", "m1", "6443", Icmp(4, 3, 13, "10.0.2.1"), second_look=True)

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.BLOCKED, Cause.ICMP_ADMIN_PROHIBITED)
    assert record.reported_by == "10.0.2.1"
    assert record.evidence.icmp_seen == 1


def test_icmp_without_its_details_is_still_icmp() -> None:
    world = pair().outcome("w1", "m1", "6443", Failure.ICMP)

    assert verdict(world) == (Verdict.BLOCKED, Cause.ICMP_OTHER)


@pytest.mark.parametrize(
    ("sender", "where"),
    [
        ("10.0.1.11", Where.DESTINATION_HOST),
        ("192.168.1.1", Where.DESTINATION_HOST),
        ("10.0.2.11", Where.SOURCE_EGRESS),
        ("10.0.2.1", Where.FORWARD_PATH),
        ("10.0.1.12", Where.FORWARD_PATH),
    ],
)
def test_sender_of_an_icmp_error_tells_where(sender: str, where: Where) -> None:
    world = pair().node("m2", "10.0.1.12")
    world.agent("m1", facts=Facts(addresses=("192.168.1.1",)))
    world.refused("w1", "m1", "6443", Icmp(4, 3, 13, sender))

    assert only_record(world).where is where


def test_ipv6_addresses_are_one_however_they_are_spelled() -> None:
    world = pair().node("w6", "fd00::1").node("m6", "fd00::2")
    world.flows.clear()
    world.flow("w6", "m6", "6443", family=6)
    error = Icmp(6, 1, 1, "fd00:0:0::2")
    world.refused("w6", "m6", "6443", error, family=6)

    record = only_record(world)

    assert record.cause is Cause.ICMP_ADMIN_PROHIBITED
    assert record.where is Where.DESTINATION_HOST
    assert "[fd00::2]:6443" in record.detail


def test_nat_nodes_listener_counts_under_the_plans_address() -> None:
    world = World().node("w1", "10.0.2.11").node("m1", "203.0.113.7", nat=True)
    world.flow("w1", "m1", "6443").silent("w1", "m1", "6443")

    assert verdict(world) == (Verdict.BLOCKED, Cause.NO_ANSWER)


def test_silent_tcp_port_that_a_listener_heard_of_after_all() -> None:
    attempt = Attempt(probe_id="aa", port=6443)
    world = pair().silent("w1", "m1", "6443", unanswered=(attempt,))
    world.sighting("m1", 6443, "aa", answered=True)

    record = only_record(world)

    assert record.evidence.seen_by_destination is True
    assert Where.FORWARD_PATH not in record.evidence.where_possible


def test_udp_challenge_that_reached_another_node_only_was_not_seen() -> None:
    attempt = Attempt(probe_id="aa", port=8472)
    world = pair("8472", "udp").node("m2", "10.0.1.12")
    world.silent("w1", "m1", "8472", protocol="udp", unanswered=(attempt,))
    world.sighting("m2", 8472, "aa", protocol="udp", answered=True)

    record = only_record(world)

    assert (record.verdict, record.cause) == (Verdict.BLOCKED, Cause.NO_ANSWER)
    assert record.evidence.seen_by_destination is False


def test_translation_seen_by_another_probe_joins_the_bare_connection() -> None:
    world = pair("6443").flow("w1", "m1", "8472", "udp")
    world.proven("w1", "m1", "8472", protocol="udp", observed_source="10.0.2.1")
    world.connected("w1", "m1", 6443, Failure.CLOSED_AFTER_CONNECT)
    world.sighting("m1", 6443, None, source_address="10.0.2.1", source_port=9)

    assert diagnose(world.plan(), world.observations()).flows[0].cause is Cause.CLOSED


def test_unseen_tcp_silence_may_break_anywhere() -> None:
    attempt = Attempt(probe_id="aa", port=6443)
    record = only_record(pair().silent("w1", "m1", "6443", unanswered=(attempt,)))

    assert record.evidence.seen_by_destination is False
    assert len(record.evidence.where_possible) == 5
    assert "saw nothing" in record.detail


def test_strict_makes_degraded_not_ok() -> None:
    world = pair("8472", "udp")
    world.proven("w1", "m1", "8472", protocol="udp", attempts=20, answered=19)

    assert only_record(world).ok is True
    assert only_record(world, strict=True).ok is False


@pytest.mark.parametrize(
    ("required", "expected", "ok"),
    [(True, "open", False), (False, "open", True), (True, "blocked", False)],
)
def test_ok_of_an_intercepted_flow(*, required: bool, expected: str, ok: bool) -> None:
    world = pair(required=required, expected=expected).node("m2", "10.0.1.12")
    world.proven("w1", "m1", "6443", answered_by="m2")

    assert only_record(world).ok is ok


def test_flow_without_a_probe_is_untested() -> None:
    world = pair("2379,6443").proven("w1", "m1", "2379,6443")
    plan = world.plan()
    without = structs.replace(plan, probes=())
    short = structs.replace(plan.probes[0], ports=((2379, 2379),))
    partly = structs.replace(plan, probes=(short,))

    (whole,) = diagnose(without, world.observations()).flows
    first, second = diagnose(partly, world.observations()).flows

    assert (whole.ports, whole.verdict, whole.cause) == (
        "2379,6443",
        Verdict.UNTESTED,
        Cause.SKIPPED,
    )
    assert (first.ports, first.verdict) == ("2379", Verdict.OPEN)
    assert (second.ports, second.verdict) == ("6443", Verdict.UNTESTED)


def test_agent_that_is_told_of_twice_counts_as_ready_once() -> None:
    world = pair().proven("w1", "m1", "6443")
    seen = world.observations()
    more = AgentObservation(node="m1", state="lost"), AgentObservation(node="x9", state="ready")
    twice = structs.replace(seen, agents=(*more, *seen.agents))

    report = diagnose(world.plan(), twice)

    assert [agent.state for agent in report.agents] == ["ready", "ready"]


def test_occupied_listener_of_another_address_says_nothing() -> None:
    state = ListenerState(
        protocol="tcp", address="192.168.1.1", ports=((6443, 6443),), state="occupied"
    )
    world = pair().proven("w1", "m1", "6443")
    world.holders.append(("m1", state))

    assert verdict(world) == (Verdict.OPEN, None)


@pytest.mark.parametrize(
    ("protocol", "attempts", "waited", "said"),
    [
        ("tcp", 1, None, "in 4 s (1 attempt)"),
        ("tcp", 2, 1.52, "in 1.5 s (2 attempts)"),
        ("udp", 12, None, "in 4 s (12 datagrams)"),
    ],
)
def test_how_long_silence_was_waited_for(
    protocol: Protocol, attempts: int, waited: float | None, said: str
) -> None:
    world = pair("6443", protocol)
    world.silent("w1", "m1", "6443", protocol=protocol, attempts=attempts, waited=waited)

    assert said in only_record(world).detail


def test_a_repeated_syn_ack_is_no_impostors() -> None:
    # Nobody accepted it, but whoever answered the SYN shows that it hears nothing more.
    attempt = Attempt(probe_id="00", port=6443, connected=True, unheard=True)
    world = pair("6443").connected(
        "w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT, attempts=1, unanswered=(attempt,)
    )
    assert verdict(world) == (Verdict.BLOCKED, Cause.STALLED)
