"""Results of single ports -> outcomes of whole ranges, as they travel to the coordinator."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from preflight.columns import pack_attempts
from preflight.model.observation import Attempt, Outcome
from preflight.net.prober import PortResult
from preflight.ports import from_ports

MOST_UNANSWERED = 9_000
"""Attempts that one outcome keeps: three for each of the 2,768 NodePorts, and some room. They
are shared out evenly: of a port without any, the destination could say nothing."""

_Key: TypeAlias = tuple[object, ...]


def group_results(
    probe: int, results: Iterable[PortResult], *, second_look: bool = False
) -> Iterator[Outcome]:
    """One outcome for all ports of a probe that share a result, in order of first appearance."""
    groups: dict[_Key, list[PortResult]] = {}
    for result in results:
        groups.setdefault(_shared(result), []).append(result)
    for group in groups.values():
        yield _make_outcome(probe, group, second_look=second_look)


def _shared(result: PortResult) -> _Key:
    """What ports of one outcome have in common; the rest is counted."""
    return (
        result.failure,
        result.operation,
        result.errno,
        result.icmp,
        result.answered_by,
        result.answered_instance,
        result.answered_port,
        result.observed_source,
        result.local_address,
        result.size,
        result.first_bytes,
    )


def _make_outcome(probe: int, group: list[PortResult], *, second_look: bool) -> Outcome:
    first = group[0]
    times = [result.rtt_ms for result in group if result.rtt_ms is not None]
    waits = [result.waited for result in group if result.waited is not None]
    each = max(1, MOST_UNANSWERED // len(group))
    unanswered = [attempt for result in group for attempt in _spread(result.unanswered, each)]
    return Outcome(
        probe=probe,
        ports=from_ports(result.port for result in group),
        failure=first.failure,
        operation=first.operation,
        errno=first.errno,
        icmp=first.icmp,
        icmp_seen=len({r.port for r in group}) if first.icmp is not None else 0,
        attempts=sum(result.attempts for result in group),
        answered=sum(result.answered for result in group),
        retransmits=sum(result.retransmits for result in group),
        syns=sum(result.syns for result in group),
        waited=round(min(waits), 2) if waits else None,
        rtt_ms=round(statistics.median(times), 3) if times else None,
        answered_by=first.answered_by,
        answered_instance=first.answered_instance,
        answered_port=first.answered_port,
        observed_source=first.observed_source,
        local_address=first.local_address,
        size=first.size,
        first_bytes=first.first_bytes,
        unanswered=pack_attempts(unanswered[:MOST_UNANSWERED]),
        second_look=second_look,
    )


def _spread(attempts: Sequence[Attempt], most: int) -> Sequence[Attempt]:
    """At most so many of a port's attempts, from its first to its last."""
    if len(attempts) <= most:
        return attempts
    step = (len(attempts) - 1) / max(1, most - 1)
    return [attempts[round(index * step)] for index in range(most)]
