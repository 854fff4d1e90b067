import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from preflight.columns import each_attempt
from preflight.model.observation import Attempt, Failure, Icmp, Operation
from preflight.net.classify import Fault
from preflight.net.prober import PortResult
from preflight.ports import each_port
from preflight.probes.grouping import MOST_UNANSWERED, group_results


def proven(port: int, **rest: object) -> PortResult:
    result = PortResult(port=port, failure=None, attempts=1, answered=1, rtt_ms=1.0, size=256)
    return dataclasses.replace(result, **rest)  # type: ignore[arg-type] # mixed on purpose


def failed(port: int, failure: Failure, icmp: Icmp | None = None) -> PortResult:
    result = PortResult(port=port, failure=failure, attempts=2)
    result.set_fault(Fault(failure, Operation.CONNECT, None, icmp))
    return result


def test_counts_are_totals_and_the_rtt_is_the_median() -> None:
    results = [proven(1, rtt_ms=1.0), proven(2, rtt_ms=9.0, retransmits=1), proven(3, rtt_ms=2.0)]
    (outcome,) = group_results(7, results)
    assert outcome.probe == 7
    assert outcome.ports == ((1, 3),)
    assert (outcome.attempts, outcome.answered, outcome.retransmits) == (3, 3, 1)
    assert outcome.rtt_ms == 2.0


def test_what_differs_is_told_apart() -> None:
    results = [
        proven(1, answered_by="m1"),
        proven(2, answered_by="m2"),
        proven(3, answered_by="m1", size=8_192),
        failed(4, Failure.NO_ANSWER),
        failed(5, Failure.ICMP, Icmp(4, 3, 13, "10.0.0.1")),
        failed(6, Failure.ICMP, Icmp(4, 3, 13, "10.0.0.2")),
    ]
    assert len(list(group_results(1, results))) == 6


def test_icmp_is_counted_by_port() -> None:
    icmp = Icmp(4, 3, 10, "10.0.0.1")
    (outcome,) = group_results(1, [failed(port, Failure.ICMP, icmp) for port in (5, 6, 6)])
    assert (outcome.icmp, outcome.icmp_seen, outcome.attempts) == (icmp, 2, 6)


def test_unanswered_attempts_are_bounded() -> None:
    attempt = Attempt(probe_id="00", port=1)
    results = [proven(1, unanswered=(attempt,) * 6_000), proven(2, unanswered=(attempt,) * 6_000)]
    (outcome,) = group_results(1, results)
    (attempts,) = outcome.unanswered
    assert len(attempts.ports) == MOST_UNANSWERED


@given(
    st.dictionaries(
        st.integers(1, 65_535), st.sampled_from([None, Failure.RESET, Failure.NO_ANSWER])
    )
)
def test_every_port_is_in_exactly_one_outcome(found: dict[int, Failure | None]) -> None:
    results = [
        proven(port) if failure is None else failed(port, failure)
        for port, failure in found.items()
    ]
    outcomes = list(group_results(1, results, second_look=True))
    told = [(port, o.failure) for o in outcomes for port in each_port(o.ports)]
    assert sorted(told, key=lambda pair: pair[0]) == sorted(found.items())
    assert len(outcomes) == len(set(found.values()))
    assert all(o.second_look for o in outcomes)


def test_every_port_keeps_some_of_its_attempts() -> None:
    results = [
        failed_with(port, [Attempt(probe_id=f"{number:02}", port=port) for number in range(12)])
        for port in range(30_000, 32_768)
    ]
    (outcome,) = group_results(1, results)
    attempts = list(each_attempt(outcome.unanswered))
    assert len(attempts) <= MOST_UNANSWERED
    assert {attempt.port for attempt in attempts} == set(range(30_000, 32_768))
    kept = [attempt.probe_id for attempt in attempts if attempt.port == 30_000]
    assert kept == ["00", "06", "11"]


def failed_with(port: int, attempts: list[Attempt]) -> PortResult:
    return dataclasses.replace(failed(port, Failure.NO_ANSWER), unanswered=tuple(attempts))
