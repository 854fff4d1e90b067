"""What a probe kind is: a prober for the orders of one protocol."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from preflight.model.plan import Share
from preflight.net.prober import Prober, Report, Work

ProbeKind: TypeAlias = Callable[[Work, Report], Prober]


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """What all probes of one agent in one run share."""

    run_id: bytes
    """Sixteen bytes."""
    key: bytes
    """The key of the MACs."""
    share: Share
