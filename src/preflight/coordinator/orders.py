"""From the plan and what the listen phase found: what each source is ordered to probe. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from preflight.model.observation import AgentObservation, Failure, Outcome
from preflight.model.plan import Limits, Plan, Probe, ProbeOrder, Share
from preflight.ports import (
    Ranges,
    count_ports,
    each_port,
    from_ports,
    intersect,
    subtract,
    union,
)

SAMPLE = 3
"""Silent ports of a probe that are looked at again (DESIGN 6, ICMP grouping)."""
SMALLEST_HALF_OPEN = 64
"""Unanswered SYNs that every source may have, however many sources share the bound."""


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
    """Each source's part of the run's bounds, by how much it has to do."""
    work = {source: sum(map(_connections, ours)) for source, ours in orders.items()}
    total = sum(work.values()) or 1
    return {
        source: Share(
            rate=None if limits.rate is None else max(1.0, limits.rate * part / total),
            max_half_open=max(SMALLEST_HALF_OPEN, limits.max_half_open * part // total),
            patience=limits.patience,
            deadline=limits.deadline,
            full_size=limits.full_size,
        )
        for source, part in work.items()
    }


def _connections(order: ProbeOrder) -> int:
    return count_ports(order.probe.ports) * order.probe.connections


def second_orders(
    plan: Plan, outcomes: Iterable[Outcome], bound: float
) -> dict[str, tuple[ProbeOrder, ...]]:
    """The second look: silent ports of sources that also saw ICMP errors.

    Linux sends a burst of six ICMP errors to an address, then one a second (icmp_ratelimit),
    so silence beside ICMP may be the same refusal, unsaid. A few of these ports are tried
    again, one a second for each source: first of the probes that saw ICMP themselves.
    """
    probes = {probe.id: probe for probe in plan.probes}
    silent: dict[int, Ranges] = defaultdict(tuple)
    refused: dict[str, set[int]] = defaultdict(set)
    for outcome in outcomes:
        if outcome.failure is Failure.NO_ANSWER:
            silent[outcome.probe] = union(silent[outcome.probe], outcome.ports)
        elif outcome.failure is Failure.ICMP:
            refused[probes[outcome.probe].source].add(outcome.probe)
    orders: dict[str, tuple[ProbeOrder, ...]] = {}
    for source, refusing in refused.items():
        ours = [one for one in silent if probes[one].source == source]
        ours.sort(key=lambda one: (one not in refusing, count_ports(silent[one]), one))
        room = int(bound)
        chosen: list[ProbeOrder] = []
        for one in ours:
            ports = _spread(silent[one], min(SAMPLE, room))
            if not ports:
                break
            room -= count_ports(ports)
            probe = structs.replace(probes[one], ports=ports, connections=1, full_size_port=None)
            chosen.append(ProbeOrder(probe=probe, second_look=True))
        if chosen:
            orders[source] = tuple(chosen)
    return orders


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
