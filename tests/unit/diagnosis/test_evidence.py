"""Evidence of ports that belong to several outcomes, rules and cells."""

from preflight.diagnosis import diagnose
from preflight.diagnosis.cells import partition
from preflight.diagnosis.index import canonical
from preflight.model.observation import Attempt, Failure
from preflight.ports import each_port
from tests.scenarios.world import pair


def test_partition_covers_each_port_once() -> None:
    cells = partition(
        ((1, 10), (20, 22)), [("a", ((2, 5),)), ("b", ((4, 21),)), ("c", ((30, 40),))]
    )

    assert dict(cells) == {
        (): ((1, 1), (22, 22)),
        ("a",): ((2, 3),),
        ("a", "b"): ((4, 5),),
        ("b",): ((6, 10), (20, 21)),
    }


def test_layers_that_overlap_themselves_are_taken_as_sets() -> None:
    cells = partition(((1, 3),), [("a", ((1, 2), (2, 3)))])

    assert dict(cells) == {("a",): ((1, 3),)}


def test_counts_of_an_outcome_are_shared_by_its_ports() -> None:
    world = pair("30000", rule="narrow").flow("w1", "m1", "30000-30099", rule="wide")
    world.proven("w1", "m1", "30000-30099", attempts=200, answered=100, rtt_ms=0.5)

    narrow, wide = diagnose(world.plan(), world.observations()).flows

    assert (narrow.evidence.attempts, narrow.evidence.answered) == (2, 1)
    assert (wide.evidence.attempts, wide.evidence.answered) == (200, 100)
    assert narrow.rtt_ms == wide.rtt_ms == 0.5


def test_median_goes_by_ports() -> None:
    world = pair("1-10").proven("w1", "m1", "1-9", rtt_ms=1.0).proven("w1", "m1", "10", rtt_ms=90.0)

    (record,) = diagnose(world.plan(), world.observations()).flows

    assert record.rtt_ms == 1.0


def test_first_bytes_errno_and_operation_are_kept() -> None:
    world = pair().connected(
        "w1", "m1", 6443, Failure.FOREIGN_ANSWER, first_bytes="4854", errno="ECONNRESET"
    )

    evidence = diagnose(world.plan(), world.observations()).flows[0].evidence

    assert (evidence.first_bytes, evidence.errno, evidence.operation) == (
        "4854",
        "ECONNRESET",
        "receive",
    )


def test_ports_of_one_outcome_part_by_what_was_seen_of_them() -> None:
    attempts = tuple(
        Attempt(probe_id=f"{port:04x}", port=port, connected=True) for port in range(1, 5)
    )
    world = pair("1-4").outcome(
        "w1", "m1", "1-4", Failure.SILENT_AFTER_CONNECT, unanswered=attempts
    )
    world.sighting("m1", 2, "0002", answered=True)

    told = {
        one.ports: one.verdict.value for one in diagnose(world.plan(), world.observations()).flows
    }

    assert told == {"1,3-4": "intercepted", "2": "blocked"}


def test_full_range_stays_one_record_with_its_holes() -> None:
    world = pair("30000-32767").proven("w1", "m1", "30000-30079,30081-32767")
    world.silent("w1", "m1", "30080")

    report = diagnose(world.plan(), world.observations())

    assert [one.ports for one in report.flows] == ["30000-30079,30081-32767", "30080"]
    assert report.summary.flows.total == len(list(each_port(((30000, 32767),))))


def test_canonical_addresses() -> None:
    assert canonical("FD00:0::1%eth0") == "fd00::1"
    assert canonical("host") == "host"
