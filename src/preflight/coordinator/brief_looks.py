"""The part of the second look that asks whether the pace alone made ports fail. Pure.

A firewall that limits new connections refuses, or drops, what comes faster: ports that work for
everybody but a sweep. So of a flow of many ports, some of which work, a few that failed are
tried once more, slowly.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import structs

from preflight.model.observation import Failure, Outcome
from preflight.model.plan import BRIEF_INTERVAL, BRIEF_PATIENCE, Plan, Probe, ProbeOrder
from preflight.ports import Ranges, count_ports, intersect, overlap, spread, subtract, union

BRIEF_SAMPLE = 3
"""Ports of a flow that are tried slowly: as many of those that were reset, and of the others. A
flow of no more ports than that is no sweep."""
_MOST_A_LANE = 2 * BRIEF_SAMPLE
_KINDS = {
    None: "proven",
    Failure.CONNECTED_ONLY: "proven",
    Failure.RESET: "reset",
    Failure.NO_ANSWER: "silent",
    Failure.ICMP: "refused",
}


def brief_orders(
    plan: Plan,
    outcomes: Iterable[Outcome],
    others: Mapping[str, Sequence[ProbeOrder]],
    room: int,
    bound: float,
) -> Iterator[tuple[str, ProbeOrder]]:
    """(Source, order) of each brief look.

    `others` are the looks that hope for ICMP errors: where they are, these are left alone, as
    each try may cost them one. At most `room` ports are tried, within `bound` seconds.
    """
    probes = {
        (probe.source, probe.destination, probe.address, probe.protocol): probe
        for probe in plan.probes
    }
    found = _by_kind(outcomes)
    hopeful: dict[int, Ranges] = defaultdict(tuple)
    for order in (order for orders in others.values() for order in orders):
        hopeful[order.probe.id] = union(hopeful[order.probe.id], order.probe.ports)
    taken: dict[int, Ranges] = defaultdict(tuple)
    most = min(_MOST_A_LANE, int((bound - BRIEF_PATIENCE) / BRIEF_INTERVAL))
    used: Counter[tuple[str, str]] = Counter()
    for flow in plan.flows:
        key = (flow.source, flow.destination, flow.destination_address, flow.protocol)
        probe = probes.get(key)
        kinds = found.get(probe.id, {}) if probe is not None else {}
        if probe is None or count_ports(flow.ports) <= BRIEF_SAMPLE:
            continue
        if not overlap(flow.ports, kinds.get("proven", ())):
            continue
        for name, ports in _doubtful(flow.ports, kinds, hopes=flow.source in others):
            if name != "reset" and overlap(flow.ports, hopeful[probe.id]):
                continue
            lane = f"{flow.destination_address} {name}"
            left = min(BRIEF_SAMPLE, room, most - used[flow.source, lane])
            chosen = spread(subtract(ports, taken[probe.id]), left)
            if chosen:
                room -= count_ports(chosen)
                used[flow.source, lane] += count_ports(chosen)
                taken[probe.id] = union(taken[probe.id], chosen)
                yield flow.source, _order(probe, chosen, lane)


def _by_kind(outcomes: Iterable[Outcome]) -> dict[int, dict[str, Ranges]]:
    """The ports of each probe, by what became of them."""
    found: dict[int, dict[str, Ranges]] = defaultdict(lambda: defaultdict(tuple))
    for outcome in outcomes:
        kind = _KINDS.get(outcome.failure)
        if kind is not None:
            found[outcome.probe][kind] = union(found[outcome.probe][kind], outcome.ports)
    return found


def _doubtful(
    ports: Ranges, kinds: Mapping[str, Ranges], *, hopes: bool
) -> Iterator[tuple[str, Ranges]]:
    """The ports of a flow that failed, by the lane that they are tried in.

    Where some were refused by ICMP, the silent ones are for those looks that hope for errors.
    `hopes`: the flow's source makes such looks.
    """
    here = {kind: intersect(ports, of_kind) for kind, of_kind in kinds.items()}
    proven = here.get("proven", ())
    reset, silent, refused = (
        subtract(here.get(kind, ()), proven) for kind in ("reset", "silent", "refused")
    )
    yield "reset", reset
    if not refused:
        # Holes in what works are a firewall's rules. Silence that prevails may also be a table
        # that is full, or a limit that drops.
        if count_ports(silent) >= count_ports(proven):
            yield "silent", silent
    elif not silent and not hopes:
        yield "refused", refused


def _order(probe: Probe, ports: Ranges, lane: str) -> ProbeOrder:
    one = structs.replace(probe, ports=ports, connections=1, full_size_port=None)
    return ProbeOrder(probe=one, second_look=True, lane=lane, brief=True)
