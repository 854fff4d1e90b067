"""Probing: orders in, outcomes out. One probe kind a file, all of one shape, in one table."""

from collections.abc import Mapping, Sequence

from preflight.model.cluster import Protocol
from preflight.model.plan import ProbeOrder
from preflight.probes.kind import ProbeContext, ProbeKind
from preflight.probes.running import OnFinished, OnOutcomes, Runner
from preflight.probes.tcp import probe_tcp
from preflight.probes.udp import probe_udp

__all__ = ["PROBES", "OnFinished", "OnOutcomes", "ProbeContext", "ProbeKind", "run_probes"]

PROBES: Mapping[Protocol, ProbeKind] = {"tcp": probe_tcp, "udp": probe_udp}
"""The probe kind of each protocol."""


async def run_probes(
    orders: Sequence[ProbeOrder],
    context: ProbeContext,
    on_outcomes: OnOutcomes,
    on_finished: OnFinished,
) -> None:
    """Carry out every order, and return when each of its ports has its outcome.

    Both functions are called in the event loop's thread: `on_outcomes` with what became
    known, `on_finished` with the total of ports finished so far, a few times a second. A
    network that fails raises nothing. On cancellation all sockets are closed at once, and
    `on_outcomes` is told what was learned until then.
    """
    await Runner(PROBES, orders, context, on_outcomes, on_finished).run()
