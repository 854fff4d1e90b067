"""What an attack on the verdicts brought to light: each was said wrongly once."""

import pytest

from preflight.diagnosis import diagnose
from preflight.model.observation import Failure, Icmp
from preflight.model.report import Cause, FlowRecord, Verdict, Where
from preflight.wire.challenge import SMALL_SIZE
from tests.scenarios.world import World, pair

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
