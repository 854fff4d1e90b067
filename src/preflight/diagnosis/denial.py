"""TCP that the source's own firewall may have kept from leaving, as its UDP tells.

A rule of the output hook that drops a datagram is told by an errno, and one that drops a SYN by
nothing: such silence looks like a firewall's on the way, and is no proof that there is one.
"""

from collections.abc import Sequence

from msgspec import Struct

from preflight.diagnosis.index import Index, canonical
from preflight.model.observation import Failure, Outcome
from preflight.model.plan import Probe
from preflight.ports import Ranges, intersect

_CONNECTED = frozenset(
    {
        None,
        Failure.CONNECTED_ONLY,
        Failure.FOREIGN_ANSWER,
        Failure.CLOSED_AFTER_CONNECT,
        Failure.SILENT_AFTER_CONNECT,
    }
)


class OwnDenial(Struct, frozen=True):
    """Of TCP ports: what came back of them, or did not, may be the source's own doing."""


def ports_denied_alike(probe: Probe, outcomes: Sequence[Outcome], index: Index) -> Ranges:
    """Ports of a TCP probe that may share what was said of its UDP.

    The same ports. And all of them where no connection was ever made there: the rule may be for
    the whole address.
    """
    denied = index.denied.get((probe.source, canonical(probe.address)), ())
    if probe.protocol != "tcp" or not denied:
        return ()
    if any(outcome.failure in _CONNECTED for outcome in outcomes):
        return intersect(probe.ports, denied)
    return probe.ports
