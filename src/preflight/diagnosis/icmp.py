"""ICMP: which cause an error stands for, and which silences it explains.

Types and codes: RFC 792, RFC 1122 (3.2.2.1) and RFC 1812 (5.2.7.1) for IPv4, RFC 4443 (3.1,
3.3) for IPv6. Linux limits the errors that it sends to one address (a burst of six, then one
a second), so that of thousands of refused ports a few show the error and the rest are silent.
"""

from collections.abc import Iterable, Iterator

from preflight.model.observation import REFUSED, Failure, Icmp, Outcome
from preflight.model.plan import Flow
from preflight.model.report import Cause
from preflight.ports import Ranges, count_ports, intersect, subtract, union

SAMPLE = 3
"""This many silent ports must give the same error on the second look, or all, if fewer."""

_UNREACHABLE_4 = {
    0: Cause.ICMP_NET_UNREACHABLE,
    1: Cause.ICMP_HOST_UNREACHABLE,
    2: Cause.ICMP_PROTOCOL_UNREACHABLE,
    3: Cause.ICMP_PORT_UNREACHABLE,
    5: Cause.ICMP_NET_UNREACHABLE,  # source route failed
    6: Cause.ICMP_NET_UNREACHABLE,  # destination network unknown
    7: Cause.ICMP_HOST_UNREACHABLE,  # destination host unknown
    8: Cause.ICMP_HOST_UNREACHABLE,  # source host isolated
    9: Cause.ICMP_NET_PROHIBITED,
    10: Cause.ICMP_HOST_PROHIBITED,
    11: Cause.ICMP_NET_UNREACHABLE,  # for this type of service
    12: Cause.ICMP_HOST_UNREACHABLE,  # for this type of service
    13: Cause.ICMP_ADMIN_PROHIBITED,
    14: Cause.ICMP_ADMIN_PROHIBITED,  # host precedence violation
    15: Cause.ICMP_ADMIN_PROHIBITED,  # precedence cutoff
}
_UNREACHABLE_6 = {
    0: Cause.ICMP_NET_UNREACHABLE,  # no route to destination
    1: Cause.ICMP_ADMIN_PROHIBITED,
    2: Cause.ICMP_NET_UNREACHABLE,  # beyond the scope of the source address
    3: Cause.ICMP_HOST_UNREACHABLE,
    4: Cause.ICMP_PORT_UNREACHABLE,
    5: Cause.ICMP_ADMIN_PROHIBITED,  # source address failed ingress/egress policy
    6: Cause.ICMP_ADMIN_PROHIBITED,  # reject route to destination
}
_UNREACHABLE = {4: (3, _UNREACHABLE_4), 6: (1, _UNREACHABLE_6)}
_TIME_EXCEEDED = {4: 11, 6: 3}
_NOT_LOOKED = frozenset({Failure.SKIPPED, Failure.LOCAL_LIMIT})
_SILENT = _NOT_LOOKED | {Failure.NO_ANSWER}


def cause_of(icmp: Icmp) -> Cause:
    """The cause that an ICMP error stands for; `ICMP_OTHER` for one that we don't know."""
    if icmp.type == _TIME_EXCEEDED[icmp.family]:
        return Cause.ICMP_TIME_EXCEEDED
    unreachable, causes = _UNREACHABLE[icmp.family]
    if icmp.type == unreachable:
        return causes.get(icmp.code, Cause.ICMP_OTHER)
    return Cause.ICMP_OTHER


def shared_errors(
    flows: Iterable[Flow], outcomes: tuple[Outcome, ...]
) -> tuple[tuple[Icmp, Ranges], ...]:
    """Silent ports of one probe that were refused by ICMP although no error was seen.

    Looked for under each flow (rule) by itself: its ports are what a firewall's rule was asked
    for. A port that is refused so under one rule is refused under every other.
    """
    found: list[tuple[Icmp, Ranges]] = []
    taken: Ranges = ()
    for flow in flows:
        for error, shared in _shared_by(flow.ports, outcomes):
            ports = subtract(shared, taken)
            if ports:
                found.append((error, ports))
                taken = union(taken, ports)
    return tuple(found)


def _shared_by(ports: Ranges, outcomes: tuple[Outcome, ...]) -> Iterator[tuple[Icmp, Ranges]]:
    """The errors that silent ports of one flow share, each with these ports."""
    first = [outcome for outcome in outcomes if not outcome.second_look]
    silent, denied = intersect(ports, _silent(first)), intersect(ports, _denied(first))
    refused: dict[Icmp, Ranges] = {}
    looked: Ranges = ()
    own: set[Icmp] = set()
    for outcome in outcomes:
        if outcome.second_look and outcome.failure not in _NOT_LOOKED:
            sample = intersect(union(silent, denied), outcome.ports)
            looked = union(looked, sample)
            if outcome.failure in REFUSED and outcome.icmp is not None and sample:
                refused[outcome.icmp] = union(refused.get(outcome.icmp, ()), sample)
                if outcome.failure is Failure.SEND_DENIED:
                    own.add(outcome.icmp)
    runs = [(run,) for run in intersect(ports, union(silent, denied, _refused(first)))]
    for error, sample in refused.items():
        others = union(*(found for one, found in refused.items() if one != error))
        theirs = union(*(run for run in runs if _is_of(run, sample, others, looked)))
        # What the source's own kernel refused, it told by an errno if not by an error.
        shared = intersect(union(silent, denied) if error in own else silent, theirs)
        seen = intersect(sample, shared)
        if seen and count_ports(seen) >= min(SAMPLE, count_ports(shared)):
            # A port that was looked at twice and never refused is silent by itself.
            yield error, subtract(shared, subtract(looked, seen))


def _is_of(run: Ranges, sample: Ranges, others: Ranges, looked: Ranges) -> bool:
    """Whether the silent ports of a run may stand for an error that this sample got.

    A run that was looked at has to have got it too, and no other. One that there was no room
    to look at follows its neighbours, unless these differ.
    """
    if intersect(run, looked):
        return bool(intersect(run, sample)) and not intersect(run, others)
    return not others


def _refused(first: Iterable[Outcome]) -> Ranges:
    return union(*(o.ports for o in first if o.failure in REFUSED and o.icmp is not None))


def _denied(first: Iterable[Outcome]) -> Ranges:
    return union(*(o.ports for o in first if o.failure is Failure.SEND_DENIED and o.icmp is None))


def _silent(first: Iterable[Outcome]) -> Ranges:
    silent = union(*(o.ports for o in first if o.failure is Failure.NO_ANSWER))
    spoken = union(*(o.ports for o in first if o.failure not in _SILENT))
    return subtract(silent, spoken)
