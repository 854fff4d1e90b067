"""Ports that failed for the pace alone, as a few of them show that were tried again."""

# ruff: noqa: ANN401 -- `**fields` are fields of outcomes, checked there

from typing import Any

import pytest

from preflight.diagnosis import diagnose
from preflight.model.observation import Failure, Icmp
from preflight.model.report import Cause, Verdict
from tests.scenarios.world import World, pair

ERROR = Icmp(4, 3, 13, "10.0.2.1")
Told = dict[str, tuple[Verdict, Cause | None]]
OPEN = (Verdict.OPEN, None)
LATE = (Verdict.DEGRADED, Cause.LOSS)
UNKNOWN = (Verdict.UNTESTED, Cause.LOSS)


def told(world: World) -> Told:
    flows = diagnose(world.plan(), world.observations()).flows
    return {flow.ports: (flow.verdict, flow.cause) for flow in flows}


def sweep(failure: Failure, ports: str = "30010-30099", **fields: Any) -> World:
    world = pair("30000-30099").proven("w1", "m1", "30000-30009")
    return world.outcome("w1", "m1", ports, failure, **fields)


@pytest.mark.parametrize(
    ("failure", "fields"),
    [(Failure.RESET, {}), (Failure.NO_ANSWER, {}), (Failure.ICMP, {"icmp": ERROR})],
)
def test_one_that_works_slowly_takes_the_word_of_the_others_away(
    failure: Failure, fields: dict[str, Any]
) -> None:
    world = sweep(failure, **fields).proven("w1", "m1", "30050", second_look=True)

    assert told(world) == {"30000-30009,30050": LATE, "30010-30049,30051-30099": UNKNOWN}
    assert [one.code for one in diagnose(world.plan(), world.observations()).findings] == [
        "degraded-loss",
        "too-fast",
    ]


def test_what_was_refused_slowly_as_well_is_refused() -> None:
    world = sweep(Failure.RESET).proven("w1", "m1", "30050", second_look=True)
    world.outcome("w1", "m1", "30090", Failure.RESET, second_look=True)

    assert told(world)["30090"] == (Verdict.BLOCKED, Cause.RESET)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.NO_ANSWER])
def test_holes_that_stay_are_holes(failure: Failure) -> None:
    world = sweep(failure).outcome("w1", "m1", "30010,30050,30099", failure, second_look=True)

    cause = Cause.RESET if failure is Failure.RESET else Cause.NO_ANSWER
    assert told(world) == {"30000-30009": OPEN, "30010-30099": (Verdict.BLOCKED, cause)}


def test_a_look_that_was_not_made_changes_nothing() -> None:
    world = sweep(Failure.RESET).outcome("w1", "m1", "30050", Failure.SKIPPED, second_look=True)

    assert told(world)["30010-30099"] == (Verdict.BLOCKED, Cause.RESET)


def test_resets_and_silence_are_doubted_each_by_itself() -> None:
    world = sweep(Failure.RESET, "30010-30049").silent("w1", "m1", "30050-30099")
    world.proven("w1", "m1", "30060", second_look=True)
    world.outcome("w1", "m1", "30020", Failure.RESET, second_look=True)

    assert told(world) == {
        "30000-30009,30060": LATE,
        "30010-30049": (Verdict.BLOCKED, Cause.RESET),
        "30050-30059,30061-30099": UNKNOWN,
    }


def test_refusals_by_icmp_and_their_silence_are_of_one_kind() -> None:
    world = sweep(Failure.ICMP, "30010-30015", icmp=ERROR).silent("w1", "m1", "30016-30099")
    world.proven("w1", "m1", "30016,30050,30099", second_look=True)

    assert told(world) == {
        "30000-30009,30016,30050,30099": LATE,
        "30010-30015,30017-30049,30051-30098": UNKNOWN,
    }


def test_a_flow_that_was_not_looked_at_goes_by_the_others_of_its_pair() -> None:
    world = sweep(Failure.RESET).flow("w1", "m1", "6443,8443", rule="few")
    world.outcome("w1", "m1", "6443", Failure.RESET).silent("w1", "m1", "8443")
    world.proven("w1", "m1", "30050", second_look=True)

    assert told(world)["6443"] == UNKNOWN
    assert told(world)["8443"] == (Verdict.BLOCKED, Cause.NO_ANSWER)


def test_what_was_waited_for_is_the_first_passs_patience() -> None:
    world = sweep(Failure.NO_ANSWER, waited=1.5)
    world.silent("w1", "m1", "30050", attempts=1, waited=0.4, second_look=True)

    (_, record) = diagnose(world.plan(), world.observations()).flows
    assert "no answer in 1.5 s" in record.detail


def test_an_exposure_rule_is_not_kept_by_what_failed_for_the_pace() -> None:
    world = pair("30000-30099", expected="blocked").proven("w1", "m1", "30000-30009")
    world.outcome("w1", "m1", "30010-30099", Failure.RESET)
    world.proven("w1", "m1", "30050", second_look=True)

    flows = diagnose(world.plan(), world.observations()).flows
    assert [flow.ok for flow in flows] == [False, None]
