"""Loss: how it is measured, what it explains, and what it does not."""

import pytest

from preflight.diagnosis import diagnose
from preflight.diagnosis.confidence import PathLoss, Tries, loss_explains
from preflight.model.observation import Attempt, Failure
from preflight.model.report import Cause, FlowRecord, Verdict
from tests.scenarios.world import World, behind_vip, pair


def records(world: World) -> dict[str, FlowRecord]:
    return {one.rule + one.ports: one for one in diagnose(world.plan(), world.observations()).flows}


def two_rules() -> World:
    return pair("6443", rule="a").flow("w1", "m1", "30000-30099", rule="b")


def test_upper_bound_is_above_the_share_and_comes_closer_with_more_tries() -> None:
    few, many = Tries(1, 10), Tries(100, 1000)

    assert few.upper_bound() > many.upper_bound() > few.share()
    assert Tries(0, 10).upper_bound() == 0.0
    assert Tries(7, 7).upper_bound() == 1.0
    assert Tries().share() == 0.0


def test_enough_tries_of_the_same_protocol_count_alone() -> None:
    path = PathLoss(tcp=Tries(0, 50), udp=Tries(12, 24))

    assert path.chance("tcp") == 0.0
    assert path.chance("udp") > 0.5


def test_few_tries_of_the_same_protocol_leave_the_worse_of_both() -> None:
    path = PathLoss(tcp=Tries(0, 3), udp=Tries(12, 24))

    assert path.chance("tcp") == path.chance("udp") > 0.5


def test_kernels_own_retransmissions_are_attempts_too() -> None:
    path = PathLoss(tcp=Tries(20, 200))
    udp = PathLoss(udp=Tries(20, 200))

    assert not loss_explains(path, "tcp", ((1, 1),), 8)
    assert loss_explains(udp, "udp", ((1, 1),), 6)


def test_clean_path_explains_no_silence() -> None:
    world = two_rules().proven("w1", "m1", "30000-30099").silent("w1", "m1", "6443", attempts=1)

    assert records(world)["a6443"].verdict is Verdict.BLOCKED


def test_mild_loss_does_not_excuse_a_dropped_port() -> None:
    world = two_rules().proven("w1", "m1", "30000-30099", retransmits=2)
    world.silent("w1", "m1", "6443")

    found = records(world)

    assert found["a6443"].verdict is Verdict.BLOCKED
    assert (found["b30000-30099"].verdict, found["b30000-30099"].loss) == (Verdict.DEGRADED, 0.02)


def test_heavy_loss_excuses_silence() -> None:
    world = two_rules().proven("w1", "m1", "30000-30099", retransmits=60)
    world.silent("w1", "m1", "6443")

    assert records(world)["a6443"].cause is Cause.LOSS
    assert records(world)["a6443"].verdict is Verdict.UNTESTED


def test_loss_in_the_other_direction_counts() -> None:
    world = pair("6443", rule="a").flow("m1", "w1", "8472", "udp", rule="b")
    world.silent("w1", "m1", "6443")
    world.proven("m1", "w1", "8472", protocol="udp", attempts=24, answered=10)

    assert records(world)["a6443"].cause is Cause.LOSS


def test_loss_on_another_path_does_not() -> None:
    world = pair("6443", rule="a").node("m2", "10.0.1.12")
    world.flow("w1", "m2", "8472", "udp", rule="b").silent("w1", "m1", "6443")
    world.proven("w1", "m2", "8472", protocol="udp", attempts=24, answered=10)

    assert records(world)["a6443"].cause is Cause.NO_ANSWER


def test_connection_without_answer_may_be_loss() -> None:
    world = pair("6443", rule="a").flow("w1", "m1", "8472", "udp", rule="b")
    world.proven("w1", "m1", "8472", protocol="udp", attempts=24, answered=10)
    world.connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT)

    assert records(world)["a6443"].cause is Cause.LOSS


def test_half_of_a_silent_ports_datagrams_arriving_is_loss() -> None:
    attempts = tuple(Attempt(probe_id=f"a{number}", port=8472) for number in range(12))
    world = pair("8472", "udp")
    world.silent("w1", "m1", "8472", protocol="udp", attempts=12, unanswered=attempts)
    for attempt in attempts[:6]:
        world.sighting("m1", 8472, attempt.probe_id, protocol="udp", answered=True)

    assert records(world)["rule8472"].cause is Cause.LOSS


def test_some_handshakes_completed_and_others_not_is_loss() -> None:
    attempts = tuple(
        Attempt(probe_id=f"a{number}", port=6443, connected=number == 0) for number in range(4)
    )
    world = pair().connected(
        "w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT, attempts=4, unanswered=attempts
    )

    assert records(world)["rule6443"].cause is Cause.LOSS


def test_dead_backend_is_no_loss() -> None:
    world = behind_vip("m1", "m2")
    world.proven("w1", "api", "6443", answered_by="m1", attempts=30, answered=30)
    world.silent("w1", "api", "6443", attempts=30)

    found = records(world)["rule6443"]

    assert (found.verdict, found.loss) == (Verdict.OPEN, 0.0)


@pytest.mark.parametrize(
    ("attempts", "answered", "expected"),
    [
        (19, 18, (Verdict.OPEN, None)),
        (20, 20, (Verdict.OPEN, 0.0)),
        (20, 19, (Verdict.DEGRADED, 0.05)),
        (4, 4, (Verdict.OPEN, 0.0)),
    ],
)
def test_udp_is_degraded_from_one_of_twenty(
    attempts: int, answered: int, expected: tuple[Verdict, float | None]
) -> None:
    world = pair("8472", "udp")
    world.proven("w1", "m1", "8472", protocol="udp", attempts=attempts, answered=answered)

    found = records(world)["rule8472"]

    assert (found.verdict, found.loss) == expected


@pytest.mark.parametrize(
    ("count", "retransmits", "expected"),
    [
        (49, 10, (Verdict.OPEN, None)),
        (50, 1, (Verdict.DEGRADED, 0.02)),
        (100, 1, (Verdict.OPEN, 0.01)),
        (100, 0, (Verdict.OPEN, 0.0)),
    ],
)
def test_tcp_is_degraded_from_two_percent_of_fifty(
    count: int, retransmits: int, expected: tuple[Verdict, float | None]
) -> None:
    ports = f"30000-{30000 + count - 1}"
    found = records(pair(ports).proven("w1", "m1", ports, retransmits=retransmits))[f"rule{ports}"]

    assert (found.verdict, found.loss) == expected


def test_flow_with_few_connections_is_graded_by_its_probe() -> None:
    world = two_rules().proven("w1", "m1", "6443").proven("w1", "m1", "30000-30099", retransmits=9)

    assert records(world)["a6443"].verdict is Verdict.DEGRADED


def test_full_size_that_passed_in_the_end_is_no_fault() -> None:
    world = pair().proven("w1", "m1", "6443").proven("w1", "m1", "6443", size=8192)
    world.outcome("w1", "m1", "6443", Failure.CLOSED_AFTER_CONNECT, size=8192)

    assert records(world)["rule6443"].verdict is Verdict.OPEN


def test_full_size_failure_means_nothing_without_confirmation() -> None:
    world = pair().proven("w1", "m1", "6443").agent("m1", "lost")
    world.outcome("w1", "m1", "6443", Failure.SILENT_AFTER_CONNECT, size=8192)

    assert records(world)["rule6443"].verdict is Verdict.OPEN


def test_heavy_loss_explains_a_full_size_failure() -> None:
    world = two_rules().proven("w1", "m1", "6443").proven("w1", "m1", "30000-30099", retransmits=50)
    world.outcome("w1", "m1", "6443", Failure.SILENT_AFTER_CONNECT, size=8192)

    assert records(world)["a6443"].cause is Cause.LOSS


def test_what_a_stopped_agent_left_unanswered_excuses_no_silence() -> None:
    world = pair("6443", rule="a").flow("m1", "w1", "8472", "udp", rule="b")
    world.silent("w1", "m1", "6443")
    world.proven("m1", "w1", "8472", protocol="udp", attempts=24, answered=1)
    world.agent("w1", "lost")

    found = records(world)

    assert (found["a6443"].verdict, found["a6443"].cause) == (Verdict.BLOCKED, Cause.NO_ANSWER)
    assert (found["b8472"].verdict, found["b8472"].loss) == (Verdict.OPEN, None)


def test_what_a_listener_dropped_by_its_own_limits_is_no_loss() -> None:
    world = pair("8472", "udp").dropped("m1", "8472", "udp")
    world.proven("w1", "m1", "8472", protocol="udp", attempts=24, answered=20)

    found = records(world)["rule8472"]

    assert (found.verdict, found.loss) == (Verdict.OPEN, None)


def test_retransmissions_towards_a_stopped_agent_are_no_loss() -> None:
    world = pair("30000-30099").agent("m1", confirmation=None)
    world.proven("w1", "m1", "30000-30099", retransmits=90)

    found = records(world)["rule30000-30099"]

    assert (found.verdict, found.loss) == (Verdict.OPEN, None)
