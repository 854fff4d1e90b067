"""Types and codes, and the grouping of rate-limited refusals."""

from typing import Literal

import pytest

from preflight.diagnosis import diagnose
from preflight.diagnosis.icmp import cause_of
from preflight.model.observation import Failure, Icmp
from preflight.model.report import Cause
from tests.scenarios.world import World, pair

ERROR = Icmp(4, 3, 13, "10.0.2.1")
OTHER = Icmp(4, 3, 1, "10.9.9.9")


@pytest.mark.parametrize(
    ("family", "kind", "code", "cause"),
    [
        (4, 3, 0, Cause.ICMP_NET_UNREACHABLE),
        (4, 3, 1, Cause.ICMP_HOST_UNREACHABLE),
        (4, 3, 2, Cause.ICMP_PROTOCOL_UNREACHABLE),
        (4, 3, 3, Cause.ICMP_PORT_UNREACHABLE),
        (4, 3, 4, Cause.ICMP_OTHER),
        (4, 3, 6, Cause.ICMP_NET_UNREACHABLE),
        (4, 3, 7, Cause.ICMP_HOST_UNREACHABLE),
        (4, 3, 9, Cause.ICMP_NET_PROHIBITED),
        (4, 3, 10, Cause.ICMP_HOST_PROHIBITED),
        (4, 3, 13, Cause.ICMP_ADMIN_PROHIBITED),
        (4, 11, 0, Cause.ICMP_TIME_EXCEEDED),
        (4, 1, 3, Cause.ICMP_OTHER),
        (6, 1, 0, Cause.ICMP_NET_UNREACHABLE),
        (6, 1, 1, Cause.ICMP_ADMIN_PROHIBITED),
        (6, 1, 2, Cause.ICMP_NET_UNREACHABLE),
        (6, 1, 3, Cause.ICMP_HOST_UNREACHABLE),
        (6, 1, 4, Cause.ICMP_PORT_UNREACHABLE),
        (6, 1, 5, Cause.ICMP_ADMIN_PROHIBITED),
        (6, 1, 6, Cause.ICMP_ADMIN_PROHIBITED),
        (6, 3, 0, Cause.ICMP_TIME_EXCEEDED),
        (6, 4, 1, Cause.ICMP_OTHER),
    ],
)
def test_cause_of_type_and_code(family: Literal[4, 6], kind: int, code: int, cause: Cause) -> None:
    assert cause_of(Icmp(family, kind, code, "10.0.2.1")) is cause


def limited() -> World:
    """Two of a hundred refusals were seen."""
    world = pair("30000-30099").refused("w1", "m1", "30000-30001", ERROR)
    return world.silent("w1", "m1", "30002-30099", attempts=98)


def told(world: World) -> dict[str, Cause | None]:
    return {one.ports: one.cause for one in diagnose(world.plan(), world.observations()).flows}


def test_three_of_the_silent_ports_speak_for_all() -> None:
    world = limited().refused("w1", "m1", "30010-30012", ERROR, second_look=True)

    (record,) = diagnose(world.plan(), world.observations()).flows

    assert (record.ports, record.cause) == ("30000-30099", Cause.ICMP_ADMIN_PROHIBITED)
    assert record.evidence.icmp_seen == 5
    assert "seen on 5" in record.detail


def test_two_do_not() -> None:
    world = limited().refused("w1", "m1", "30010-30011", ERROR, second_look=True)

    assert told(world) == {
        "30000-30001,30010-30011": Cause.ICMP_ADMIN_PROHIBITED,
        "30002-30009,30012-30099": Cause.NO_ANSWER,
    }


def test_two_do_where_there_are_no_more() -> None:
    world = pair("30000-30003").refused("w1", "m1", "30000-30001", ERROR)
    world.silent("w1", "m1", "30002-30003")
    world.refused("w1", "m1", "30002-30003", ERROR, second_look=True)

    assert told(world) == {"30000-30003": Cause.ICMP_ADMIN_PROHIBITED}


def test_another_error_on_the_second_look_groups_nothing() -> None:
    world = limited().refused("w1", "m1", "30010-30012", ERROR, second_look=True)
    world.refused("w1", "m1", "30013", OTHER, second_look=True)

    assert told(world)["30002-30009,30014-30099"] is Cause.NO_ANSWER


def test_port_that_is_silent_twice_is_silent_by_itself() -> None:
    world = limited().refused("w1", "m1", "30010-30012", ERROR, second_look=True)
    world.silent("w1", "m1", "30050", attempts=1, second_look=True)

    assert told(world) == {
        "30000-30049,30051-30099": Cause.ICMP_ADMIN_PROHIBITED,
        "30050": Cause.NO_ANSWER,
    }


def test_second_look_that_was_not_made_says_nothing() -> None:
    world = limited().refused("w1", "m1", "30010-30012", ERROR, second_look=True)
    world.outcome("w1", "m1", "30050", Failure.SKIPPED, second_look=True)

    assert told(world) == {"30000-30099": Cause.ICMP_ADMIN_PROHIBITED}


def test_what_one_rule_shows_holds_under_the_other() -> None:
    world = pair("30050", rule="narrow").flow("w1", "m1", "30000-30099", rule="wide")
    world.refused("w1", "m1", "30000-30001", ERROR)
    world.silent("w1", "m1", "30002-30099", attempts=98)
    world.refused("w1", "m1", "30010-30012", ERROR, second_look=True)

    assert told(world) == {
        "30050": Cause.ICMP_ADMIN_PROHIBITED,
        "30000-30099": Cause.ICMP_ADMIN_PROHIBITED,
    }


def test_silent_port_of_another_rule_is_not_drawn_in() -> None:
    world = pair("6443", rule="a").flow("w1", "m1", "30000-30099", rule="b")
    world.refused("w1", "m1", "30000-30001", ERROR)
    world.silent("w1", "m1", "6443,30002-30099", attempts=99)
    world.refused("w1", "m1", "30010-30012", ERROR, second_look=True)

    assert told(world) == {
        "6443": Cause.NO_ANSWER,
        "30000-30099": Cause.ICMP_ADMIN_PROHIBITED,
    }


def test_a_run_that_was_looked_at_in_vain_is_silent_by_itself() -> None:
    world = pair("30000-30099").refused("w1", "m1", "30000-30001", ERROR)
    world.proven("w1", "m1", "30030-30039,30060-30069")
    world.silent("w1", "m1", "30002-30029,30040-30059,30070-30099", attempts=78)
    world.refused("w1", "m1", "30010,30080,30090", ERROR, second_look=True)
    world.silent("w1", "m1", "30050", attempts=1, second_look=True)

    assert told(world) == {
        "30000-30029,30070-30099": Cause.ICMP_ADMIN_PROHIBITED,
        "30030-30039,30060-30069": None,
        "30040-30059": Cause.NO_ANSWER,
    }


def test_two_errors_are_told_apart_by_the_runs_that_got_them() -> None:
    world = pair("30000-30099").refused("w1", "m1", "30000-30001", ERROR)
    world.proven("w1", "m1", "30030-30039")
    world.silent("w1", "m1", "30002-30029,30040-30099", attempts=88)
    world.refused("w1", "m1", "30010-30012", ERROR, second_look=True)
    world.refused("w1", "m1", "30050-30052", OTHER, second_look=True)

    assert told(world) == {
        "30000-30029": Cause.ICMP_ADMIN_PROHIBITED,
        "30030-30039": None,
        "30040-30099": Cause.ICMP_HOST_UNREACHABLE,
    }
