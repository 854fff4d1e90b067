"""Failures that the pace alone may have made, as the second look shows.

A firewall that limits new connections refuses or drops what comes faster, and a way that is
gone for some seconds loses what was under way just then. Either leaves a picture of holes that
are not there. A few of them are tried again, slowly: where one works after all, nothing is
known of the others.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from preflight.model.observation import Failure, Outcome
from preflight.model.plan import Flow
from preflight.ports import Ranges, intersect, overlap, subtract, union

_PROVEN = frozenset({None, Failure.CONNECTED_ONLY})
_NOT_LOOKED = frozenset({Failure.SKIPPED, Failure.LOCAL_LIMIT})
_KINDS = (frozenset({Failure.RESET}), frozenset({Failure.NO_ANSWER, Failure.ICMP}))
"""Refusals by ICMP are limited themselves, so that one firewall's are silent as well."""
HASTY = frozenset().union(*_KINDS)
"""Failures that a limit on new connections can make."""


class Haste(Struct, frozen=True):
    """Of ports: others that failed alike worked when they were tried slowly."""


def hasty_ports(flows: Iterable[Flow], outcomes: Sequence[Outcome]) -> Ranges:
    """Ports of one probe whose failures say nothing.

    Each flow goes by those of its own ports that were looked at again; one without any, by
    those of the other flows between the same ends.
    """
    first = [outcome for outcome in outcomes if not outcome.second_look]
    again = [o for o in outcomes if o.second_look and o.failure not in _NOT_LOOKED]
    looked = union(*(outcome.ports for outcome in again))
    worked = union(*(outcome.ports for outcome in again if outcome.failure in _PROVEN))
    if not worked:
        return ()
    found: Ranges = ()
    for kind in _KINDS:
        failed = union(*(outcome.ports for outcome in first if outcome.failure in kind))
        for flow in flows:
            own = intersect(flow.ports, failed)
            sample = intersect(own, looked) or failed
            if overlap(sample, worked):
                found = union(found, subtract(own, looked))
    return found
