"""From the plan and what the listen phase found: what each source is ordered to probe. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from preflight.model.observation import AgentObservation, Failure, Outcome
from preflight.model.plan import (
    SECOND_LOOK_INTERVAL,
    SLOW_PATIENCE,
    SLOW_SECOND_LOOK_INTERVAL,
    Limits,
    Plan,
    Probe,
    ProbeOrder,
    Share,
)
from preflight.ports import (
    Ranges,
    count_ports,
    each_port,
    from_ports,
    intersect,
    overlap,
    subtract,
    union,
)

SAMPLE = 3
"""Silent ports of a flow that are looked at again where there are too many to look at all."""
_HOST_UNREACHABLE = frozenset({(4, 3, 1), (6, 1, 3)})
"""Families, types and codes that a router sends after it has looked for a host in vain."""
SMALLEST_HALF_OPEN = 64
"""Unanswered SYNs that every source may have, however many sources share the bound."""
SMALLEST_RATE = 50.0
"""Connections a second that every source may begin, as long as these are together at most a
tenth of the run's: a few flows must not wait behind the NodePorts of others."""
_FLOORS = 0.1


def first_orders(
    plan: Plan, agents: Mapping[str, AgentObservation]
) -> dict[str, tuple[ProbeOrder, ...]]:
    """The first pass: by source, for every agent that is ready."""
    addresses = {node.name: node.addresses for node in plan.nodes}
    orders: dict[str, list[ProbeOrder]] = defaultdict(list)
    for probe in plan.probes:
        if agents[probe.source].state != "ready":
            continue
        answerers = [agents[name] for name in probe.answerers]
        states = {agent.state for agent in answerers}
        if "ready" not in states:
            # Nothing can be proven there. One port tells whether the address is alive at all;
            # more would be a port scan of a machine that never agreed to it.
            if "unreachable" in states:
                one = ((probe.ports[0][0], probe.ports[0][0]),)
                silent = structs.replace(probe, ports=one, connections=1, full_size_port=None)
                orders[probe.source].append(ProbeOrder(probe=silent, connect_only=one))
            continue
        held_by_others = _held_by_others(probe, answerers, addresses)
        orders[probe.source].append(ProbeOrder(probe=probe, connect_only=held_by_others))
    return {source: tuple(ours) for source, ours in orders.items()}


def _held_by_others(
    probe: Probe, answerers: Sequence[AgentObservation], addresses: Mapping[str, tuple[str, ...]]
) -> Ranges:
    """The ports on which no agent of ours could answer: another program has them everywhere."""
    free: Ranges = ()
    occupied: Ranges = ()
    for agent in answerers:
        # A VIP's backends hold its port on their own addresses, a node on the one that is asked.
        where = addresses[agent.node] if len(answerers) > 1 else (probe.address,)
        for state in agent.listeners:
            if state.protocol != probe.protocol or state.address not in where:
                continue
            ports = intersect(state.ports, probe.ports)
            if state.state == "occupied":
                occupied = union(occupied, ports)
            elif state.state == "listening":
                free = union(free, ports)
    return subtract(occupied, free)


def share_out(limits: Limits, orders: Mapping[str, Sequence[ProbeOrder]]) -> dict[str, Share]:
    """Each source's part of the run's bounds: a floor, and by how much it has to do.

    Unanswered SYNs are shared to the last one; the rates may together be a tenth above the run's,
    for the short time that sources with little to do need.
    """
    work = {source: sum(map(_connections, ours)) for source, ours in orders.items()}
    total = sum(work.values()) or 1
    # A source with few flows must not lose them to another one's NodePorts.
    equal = limits.max_half_open // (2 * max(1, len(work)))
    floors = {source: min(part, equal) for source, part in work.items()}
    left, above = limits.max_half_open - sum(floors.values()), total - sum(floors.values())
    return {
        source: Share(
            rate=_rate(limits.rate, len(work), part / total),
            max_half_open=max(
                SMALLEST_HALF_OPEN,
                floors[source] + left * (part - floors[source]) // max(1, above),
            ),
            patience=limits.patience,
            deadline=limits.deadline,
            full_size=limits.full_size,
        )
        for source, part in work.items()
    }


def _rate(rate: float | None, sources: int, part: float) -> float | None:
    if rate is None:
        return None
    return max(1.0, rate * part, min(SMALLEST_RATE, rate * _FLOORS / sources))


def _connections(order: ProbeOrder) -> int:
    return count_ports(order.probe.ports) * order.probe.connections


def second_orders(
    plan: Plan, outcomes: Iterable[Outcome], bound: float
) -> dict[str, tuple[ProbeOrder, ...]]:
    """The second look: silent ports that may have been refused by ICMP, unsaid.

    Linux sends a burst of six ICMP errors to an address, then one a second (icmp_ratelimit),
    so silence beside ICMP may be the same refusal. Such ports are tried again: all, or a few of
    each flow, first of probes that saw ICMP themselves. Each sender has a limit of its own, and
    so a lane; `bound` is in seconds.
    """
    probes = {probe.id: probe for probe in plan.probes}
    silent: dict[int, Ranges] = defaultdict(tuple)
    refused: dict[int, Ranges] = defaultdict(tuple)
    heard: dict[int, Counter[str]] = defaultdict(Counter)
    slow: set[tuple[str, str]] = set()
    for outcome in outcomes:
        if outcome.failure is Failure.NO_ANSWER:
            silent[outcome.probe] = union(silent[outcome.probe], outcome.ports)
        elif outcome.failure is Failure.ICMP and outcome.icmp is not None:
            icmp = outcome.icmp
            heard[outcome.probe][icmp.sender] += count_ports(outcome.ports)
            refused[outcome.probe] = union(refused[outcome.probe], outcome.ports)
            if (icmp.family, icmp.type, icmp.code) in _HOST_UNREACHABLE:
                slow.add((probes[outcome.probe].source, icmp.sender))
    lanes: dict[tuple[str, str], list[_Silence]] = defaultdict(list)
    for part in sorted(_by_flow(plan, silent, refused)):
        sender = _likely_sender(probes[part.number], probes, heard, plan)
        if sender is not None:
            lanes[probes[part.number].source, sender].append(part)
    orders: dict[str, list[ProbeOrder]] = defaultdict(list)
    for (source, sender), parts in lanes.items():
        is_slow = (source, sender) in slow
        if is_slow:
            # Where one port of an address is known to lead nowhere, so are the others.
            parts.sort(key=lambda part: part.number in heard)
        for number, ports in _chosen(parts, bound, slow=is_slow):
            probe = structs.replace(probes[number], ports=ports, connections=1, full_size_port=None)
            order = ProbeOrder(probe=probe, second_look=True, lane=sender, slow=is_slow)
            orders[source].append(order)
    return {source: tuple(ours) for source, ours in orders.items()}


class _Silence(NamedTuple):
    """The silent ports of a flow. They sort as they are looked at: first those beside refused
    ports, which bring errors soon, and so show how much quiet their sender needs.
    """

    beside: int
    """0: other ports of the flow were refused; 1: ports of the probe were; 2: neither."""
    silent: int
    number: int
    """The probe's."""
    ports: Ranges


def _by_flow(
    plan: Plan, silent: Mapping[int, Ranges], refused: Mapping[int, Ranges]
) -> Iterator[_Silence]:
    """The silent ports of each flow; each port of a probe once.

    A firewall's rule is made for a flow: what is true of some of its ports is likely true of
    the others, and says nothing about those of the next flow.
    """
    numbers = {
        (probe.source, probe.destination, probe.address, probe.protocol): probe.id
        for probe in plan.probes
    }
    left = dict(silent)
    for flow in plan.flows:
        key = (flow.source, flow.destination, flow.destination_address, flow.protocol)
        number = numbers.get(key, -1)
        ports = intersect(flow.ports, left.get(number, ()))
        if ports:
            left[number] = subtract(left[number], ports)
            near = refused.get(number, ())
            beside = 0 if overlap(flow.ports, near) else 1 if near else 2
            yield _Silence(beside, count_ports(ports), number, ports)


def _chosen(
    silent: Sequence[_Silence], bound: float, *, slow: bool
) -> Iterator[tuple[int, Ranges]]:
    """The ports of one lane, by flow: all silent ones where there is time for all."""
    room = int(bound / SECOND_LOOK_INTERVAL)
    if slow:
        room = int((bound - SLOW_PATIENCE) / SLOW_SECOND_LOOK_INTERVAL)
    most = room if sum(part.silent for part in silent) <= room else SAMPLE
    for part in silent:
        some = _spread(part.ports, min(most, room))
        if not some:
            return
        room -= count_ports(some)
        yield part.number, some


def _likely_sender(
    probe: Probe, probes: Mapping[int, Probe], heard: Mapping[int, Counter[str]], plan: Plan
) -> str | None:
    """Whose error a silent port of this probe may have missed; None: nobody's.

    A sender that has reached its limit has said something before: to this probe, or to others
    of its source and family. Another node's own firewall has nothing to do with this one.
    """
    if probe.id in heard:
        return heard[probe.id].most_common(1)[0][0]
    others = {
        address
        for node in plan.nodes
        for address in node.addresses
        if node.name not in probe.answerers
    }
    found: Counter[str] = Counter()
    for number, senders in heard.items():
        if probes[number].source == probe.source:
            found.update(senders)
    likely = [
        sender
        for sender, _ in found.most_common()
        if sender not in others and (":" in sender) == (":" in probe.address)
    ]
    return likely[0] if likely else None


def _spread(ranges: Ranges, wanted: int) -> Ranges:
    """At most so many ports, from all over the ranges."""
    count = count_ports(ranges)
    if count <= wanted:
        return ranges
    if wanted <= 0:
        return ()
    step = (count - 1) / max(1, wanted - 1)
    places = {round(index * step) for index in range(wanted)}
    return from_ports(port for place, port in enumerate(each_port(ranges)) if place in places)
