"""How one record, or many, are marked in one sign."""

from collections.abc import Iterable
from enum import IntEnum

from preflight.model.report import FlowRecord, Verdict
from preflight.ports import Ranges, count_ports, parse_ports, union


class Mark(IntEnum):
    """What a cell of the matrix says; the greater, the worse."""

    PASSED = 0
    WARNING = 1
    UNTESTED = 2
    DEGRADED = 3
    BLOCKED = 4
    INTERCEPTED = 5
    EXPOSED = 6


SIGNS = {
    Mark.PASSED: "✓",
    Mark.WARNING: "~",
    Mark.UNTESTED: "?",
    Mark.DEGRADED: "≈",
    Mark.BLOCKED: "✗",
    Mark.INTERCEPTED: "!",
    Mark.EXPOSED: "E",
}

MEANINGS = {
    Mark.PASSED: "works as required",
    Mark.WARNING: "only a warning",
    Mark.UNTESTED: "not tested",
    Mark.DEGRADED: "degraded (an error by --strict)",
    Mark.BLOCKED: "blocked",
    Mark.INTERCEPTED: "somebody else answers",
    Mark.EXPOSED: "reached, and must not be",
}


def mark_of(record: FlowRecord) -> Mark:
    """The mark of one record: its `ok`, and where that is false its verdict."""
    if record.ok is None:
        return Mark.UNTESTED
    if record.ok:
        as_expected = record.verdict == record.expected
        return Mark.PASSED if as_expected else Mark.WARNING
    if record.expected == "blocked":
        return Mark.EXPOSED
    if record.verdict is Verdict.INTERCEPTED:
        return Mark.INTERCEPTED
    return Mark.DEGRADED if record.verdict is Verdict.DEGRADED else Mark.BLOCKED


def count_flows(records: Iterable[FlowRecord]) -> int:
    """How many (source, destination, protocol, family, port): under two rules counts once."""
    ports: dict[tuple[str, str, str, int], list[Ranges]] = {}
    for one in records:
        key = (one.source, one.destination, one.protocol, one.family)
        ports.setdefault(key, []).append(parse_ports(one.ports))
    return sum(count_ports(union(*many)) for many in ports.values())
