"""The evidence of a record: outcomes of its ports, added up."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from preflight.diagnosis.cells import Cell
from preflight.diagnosis.judgement import Scene
from preflight.model.observation import REFUSED, Operation, Outcome
from preflight.ports import Ranges, count_ports


class Part(Struct, frozen=True):
    """Some of a flow's ports in one cell."""

    cell: Cell
    ports: Ranges


class Tally(Struct, kw_only=True):
    """The evidence of one record, added up."""

    ports: int = 0
    attempts: int = 0
    answered: int = 0
    retransmits: int = 0
    icmp_seen: int = 0
    waited: float | None = None
    errno: str | None = None
    operation: str | None = None
    rtt_ms: float | None = None
    observed_source: str | None = None
    first_bytes: str | None = None
    backends: dict[str, int] = {}


def add_up(parts: Sequence[Part], scene: Scene) -> Tally:
    """Add up outcomes. Those that reach beyond these ports count in proportion."""
    counts: dict[int, int] = defaultdict(int)
    for part in parts:
        for outcome in part.cell.outcomes:
            counts[id(outcome)] += count_ports(part.ports)
    every = scene.index.outcomes.get(scene.probe.id, ())
    shares = [(outcome, counts[id(outcome)]) for outcome in every if id(outcome) in counts]
    tally = Tally(ports=sum(count_ports(part.ports) for part in parts))
    backends: dict[str, int] = defaultdict(int)
    for outcome, ports in shares:
        whole = count_ports(outcome.ports)
        tally.attempts += _part(outcome.attempts, ports, whole)
        tally.answered += _part(outcome.answered, ports, whole)
        tally.retransmits += _part(outcome.retransmits, ports, whole)
        if outcome.failure in REFUSED and outcome.icmp is not None:
            tally.icmp_seen += _part(outcome.icmp_seen or whole, ports, whole)
        if scene.vip and outcome.failure is None and outcome.answered_by:
            backends[outcome.answered_by] += _part(outcome.answered, ports, whole)
    tally.waited = min(
        (o.waited for o, _ in shares if o.waited is not None and not o.second_look), default=None
    )
    tally.backends = dict(sorted(backends.items()))
    tally.rtt_ms = _median_rtt(shares)
    _take_first(tally, [outcome for outcome, _ in shares])
    return tally


def _take_first(tally: Tally, outcomes: list[Outcome]) -> None:
    """What has no sum: the first that says something, answers before failures."""
    for outcome in sorted(outcomes, key=lambda o: o.failure is not None):
        tally.errno = tally.errno or outcome.errno
        if outcome.operation is not Operation.NONE:
            tally.operation = tally.operation or outcome.operation.value
        tally.observed_source = tally.observed_source or outcome.observed_source
        tally.first_bytes = tally.first_bytes or outcome.first_bytes or None


def _part(number: int, ports: int, whole: int) -> int:
    return number if ports >= whole else round(number * ports / whole)


def _median_rtt(shares: Sequence[tuple[Outcome, int]]) -> float | None:
    """The middle of the outcomes' medians, each with the weight of its ports."""
    known = sorted(_timed(shares))
    half = sum(ports for _, ports in known) / 2
    passed = 0
    for rtt, ports in known:
        passed += ports
        if passed >= half:
            return round(rtt, 3)
    return None


def _timed(shares: Sequence[tuple[Outcome, int]]) -> Iterator[tuple[float, int]]:
    for outcome, ports in shares:
        if outcome.rtt_ms is not None:
            yield outcome.rtt_ms, ports
