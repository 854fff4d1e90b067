"""From the plan and what the listen phase found: what each source is ordered to probe. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from preflight.coordinator.brief_looks import brief_orders
from preflight.model.observation import REFUSED, AgentObservation, Failure, Outcome
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
from preflight.planning.sharing import (
    TRIES_OF_A_LOOK,
    first_pass_half_open,
    most_looks,
    share_half_open,
    share_rate,
)
from preflight.ports import Ranges, count_ports, intersect, overlap, spread, subtract, union

SAMPLE = 3
"""Silent ports of a flow that are looked at again where there are too many to look at all."""
MOST_RUNS = 5
"""Up to so many runs of silent ports in one flow are told apart."""
_HOST_UNREACHABLE = frozenset({(4, 3, 1), (6, 1, 3)})
"""Families, types and codes that a router sends after it has looked for a host in vain."""


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
        own = agent.node == probe.destination
        where = (probe.address,) if own else addresses[agent.node]
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
    """Each source's part of the run's bounds in the first pass."""
    work = {source: sum(map(_connections, ours)) for source, ours in orders.items()}
    rooms = share_half_open(first_pass_half_open(limits), work)
    return {
        source: _share(limits, rate, rooms[source], limits.deadline)
        for source, rate in share_rate(limits.rate, work).items()
    }


def share_out_looks(limits: Limits, orders: Mapping[str, Sequence[ProbeOrder]]) -> dict[str, Share]:
    """Each source's part of the run's bounds in the second look."""
    looks = {source: sum(map(_connections, ours)) for source, ours in orders.items()}
    return {
        source: _share(limits, rate, looks[source] * TRIES_OF_A_LOOK, limits.second_look)
        for source, rate in share_rate(limits.rate, looks).items()
    }


def _share(limits: Limits, rate: float | None, max_half_open: int, deadline: float) -> Share:
    return Share(
        rate=rate,
        max_half_open=max_half_open,
        patience=limits.patience,
        deadline=deadline,
        full_size=limits.full_size,
        close=limits.close,
    )


def _connections(order: ProbeOrder) -> int:
    return count_ports(order.probe.ports) * order.probe.connections


def second_orders(
    plan: Plan, outcomes: Iterable[Outcome], bound: float
) -> dict[str, tuple[ProbeOrder, ...]]:
    """The second look: silent ports that may have been refused by ICMP, unsaid; and ports that
    may have failed for the pace alone (`brief_looks`).

    Linux sends a burst of six ICMP errors to an address, then one a second (icmp_ratelimit),
    so silence beside ICMP may be the same refusal. Such ports are tried again: all, or a few of
    each flow, first of probes that saw ICMP themselves. Each sender has a limit of its own, and
    so a lane; `bound` is in seconds. All looks together stay within the run's bounds.
    """
    probes = {probe.id: probe for probe in plan.probes}
    outcomes = tuple(outcomes)
    silent = _silent_ports(outcomes)
    refused: dict[int, Ranges] = defaultdict(tuple)
    heard: dict[int, Counter[str]] = defaultdict(Counter)
    slow: set[tuple[str, str]] = set()
    for outcome in outcomes:
        icmp = outcome.icmp
        if icmp is not None and outcome.failure in REFUSED:
            heard[outcome.probe][icmp.sender] += count_ports(outcome.ports)
            refused[outcome.probe] = union(refused[outcome.probe], outcome.ports)
            kind = (icmp.family, icmp.type, icmp.code)
            if outcome.failure is Failure.ICMP and kind in _HOST_UNREACHABLE:
                slow.add((probes[outcome.probe].source, icmp.sender))
    lanes: dict[tuple[str, str], list[_Silence]] = defaultdict(list)
    for part in sorted(_by_flow(plan, silent, refused)):
        sender = _likely_sender(probes[part.number], probes, heard, plan)
        if sender is not None:
            lanes[probes[part.number].source, sender].append(part)
    left = most_looks(plan.limits)
    each = max(SAMPLE, left // max(1, len(lanes)))
    orders: dict[str, list[ProbeOrder]] = defaultdict(list)
    for (source, sender), parts in lanes.items():
        is_slow = (source, sender) in slow
        if is_slow:
            # Where one port of an address is known to lead nowhere, so are the others.
            parts.sort(key=lambda part: part.number in heard)
        room = min(_room_in_time(bound, slow=is_slow), each, left)
        for number, ports in _chosen(parts, room):
            left -= count_ports(ports)
            probe = structs.replace(probes[number], ports=ports, connections=1, full_size_port=None)
            order = ProbeOrder(probe=probe, second_look=True, lane=sender, slow=is_slow)
            orders[source].append(order)
    for source, order in list(brief_orders(plan, outcomes, orders, left, bound)):
        orders[source].append(order)
    return {source: tuple(ours) for source, ours in orders.items()}


def _silent_ports(outcomes: Iterable[Outcome]) -> dict[int, Ranges]:
    """By probe. What the source's own kernel refused with nothing but an errno is among them
    where other ports of the probe show that its firewall sends errors.
    """
    silent: dict[int, Ranges] = defaultdict(tuple)
    denied: dict[int, Ranges] = defaultdict(tuple)
    told: set[int] = set()
    for outcome in outcomes:
        number = outcome.probe
        if outcome.failure is Failure.NO_ANSWER:
            silent[number] = union(silent[number], outcome.ports)
        elif outcome.failure is Failure.SEND_DENIED and outcome.icmp is None:
            denied[number] = union(denied[number], outcome.ports)
        elif outcome.failure is Failure.SEND_DENIED:
            told.add(number)
    for number in told:
        silent[number] = union(silent[number], denied[number])
    return silent


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
    runs: tuple[Ranges, ...]
    """The same ports, cut where neighbours were neither silent nor refused."""


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
            cut = (intersect((run,), ports) for run in intersect(flow.ports, union(ports, near)))
            runs = tuple(run for run in cut if run)
            yield _Silence(beside, count_ports(ports), number, ports, runs)


def _room_in_time(bound: float, *, slow: bool) -> int:
    """How many ports a lane can try in so many seconds."""
    if slow:
        return int((bound - SLOW_PATIENCE) / SLOW_SECOND_LOOK_INTERVAL)
    return int(bound / SECOND_LOOK_INTERVAL)


def _chosen(silent: Sequence[_Silence], room: int) -> Iterator[tuple[int, Ranges]]:
    """So many ports of one lane, by flow: all silent ones where there is room for all.

    Otherwise a few of each flow, and what room is left goes to runs of silent ports that these
    few are not from: such a run may be silent for a reason of its own.
    """
    most = room if sum(part.silent for part in silent) <= room else SAMPLE
    chosen: list[Ranges] = []
    for part in silent:
        chosen.append(spread(part.ports, min(most, room)))
        room -= count_ports(chosen[-1])
    for wanted in (1, SAMPLE):
        for place, part in enumerate(silent):
            for run in part.runs if len(part.runs) <= MOST_RUNS else ():
                missing = min(room, wanted - count_ports(intersect(run, chosen[place])))
                more = spread(subtract(run, chosen[place]), missing)
                chosen[place] = union(chosen[place], more)
                room -= count_ports(more)
    for part, ports in zip(silent, chosen, strict=True):
        if ports:
            yield part.number, ports


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
