"""ICMP: which cause an error stands for, and which silences it explains.

Types and codes: RFC 792, RFC 1122 (3.2.2.1) and RFC 1812 (5.2.7.1) for IPv4, RFC 4443 (3.1,
3.3) for IPv6. Linux limits the errors that it sends to one address (a burst of six, then one
a second), so that of thousands of refused ports a few show the error and the rest are silent.
"""

from collections.abc import Iterable

from preflight.model.observation import Failure, Icmp, Outcome
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
    again = [o for o in outcomes if o.second_look and o.failure not in _NOT_LOOKED]
    if not any(outcome.failure is Failure.ICMP for outcome in again):
        return ()
    at_first = _silent_at_first(outcomes)
    found: list[tuple[Icmp, Ranges]] = []
    taken: Ranges = ()
    for flow in flows:
        error, ports = _shared_error(intersect(flow.ports, at_first), again)
        ports = subtract(ports, taken)
        if error is not None and ports:
            found.append((error, ports))
            taken = union(taken, ports)
    return tuple(found)


def _shared_error(silent: Ranges, again: Iterable[Outcome]) -> tuple[Icmp | None, Ranges]:
    """What the second look (`again`) says of ports that were silent at first."""
    refused: dict[Icmp, Ranges] = {}
    looked: Ranges = ()
    for outcome in again:
        sample = intersect(silent, outcome.ports)
        looked = union(looked, sample)
        if outcome.failure is Failure.ICMP and outcome.icmp is not None and sample:
            refused[outcome.icmp] = union(refused.get(outcome.icmp, ()), sample)
    if len(refused) != 1:
        return None, ()
    ((error, sample),) = refused.items()
    if count_ports(sample) < min(SAMPLE, count_ports(silent)):
        return None, ()
    # A port that was looked at twice and never refused is silent by itself.
    return error, subtract(silent, subtract(looked, sample))


def _silent_at_first(outcomes: tuple[Outcome, ...]) -> Ranges:
    first = [outcome for outcome in outcomes if not outcome.second_look]
    silent = union(*(o.ports for o in first if o.failure is Failure.NO_ANSWER))
    spoken = union(*(o.ports for o in first if o.failure not in _SILENT))
    return subtract(silent, spoken)
