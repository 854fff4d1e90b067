"""Flows -> plan: who listens where, who probes what, and within which bounds."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import structs

from preflight.model.cluster import VIP_ROLE, Cluster, Profile, Protocol, Vip
from preflight.model.plan import (
    Flow,
    Limits,
    Listen,
    Plan,
    PlannedNode,
    PlannedRule,
    PlannedVip,
    Probe,
)
from preflight.planning.flows import (
    all_rules,
    asked_pairs,
    expand_flows,
    first_addresses,
    nodes_with,
)
from preflight.planning.sharing import check_half_open, share_rate
from preflight.ports import Ranges, count_ports, spread, union

FEWEST_VIP_CONNECTIONS = 6
MISSED_BACKEND = 0.001
"""How likely a given backend of a VIP may be missed by all connections, if each connection
goes to a random one."""
SLACK = 5.0
"""Seconds: for the agents to begin, for what a path that loses packets needs, and for the last
answers to come back."""
SLOW_SOURCE = 1_000.0
"""New connections a second that an agent manages on a slow or busy machine."""
_EXAMPLES = 3


def make_plan(
    flows: tuple[Flow, ...],
    cluster: Cluster,
    profile: Profile,
    *,
    limits: Limits | None = None,
    run_id: str,
) -> Plan:
    """A whole run. Only nodes, VIPs and rules that take part in these flows are in it.

    `limits.deadline` is the least deadline: it is raised to what the probes need at the rate
    and patience given. To bound a run more tightly, replace it in the plan. Raises `ConfigError`
    where `limits.max_half_open` is too small for so many sources.
    """
    limits = limits or Limits()
    check_half_open(limits, len({flow.source for flow in flows}))
    vips = {vip.name: vip for vip in cluster.vips}
    backends = {
        vip.name: tuple(node.name for node in nodes_with(cluster, [vip.backends]))
        for vip in cluster.vips
    }
    tried = [structs.replace(flow, ports=sample_ports(flow.ports, limits.sample)) for flow in flows]
    probes = _plan_probes(tried, backends)
    used_vips = {flow.destination for flow in flows} & vips.keys()
    used_nodes = {flow.source for flow in flows} | {
        name for probe in probes for name in probe.answerers
    }
    used_rules = {flow.rule for flow in flows}
    everything = expand_flows(cluster, profile)
    return Plan(
        run_id=run_id,
        cluster=cluster.name,
        profiles=cluster.profiles,
        nodes=tuple(
            PlannedNode(
                name=node.name,
                roles=node.roles,
                addresses=node.addresses,
                control_host=node.control_host,
                control_port=node.control_port,
                nat=node.nat,
                embedded=node.embedded,
            )
            for node in cluster.nodes
            if node.name in used_nodes
        ),
        vips=tuple(
            PlannedVip(
                name=vip.name, address=vip.address, port=vip.port, backends=backends[vip.name]
            )
            for vip in cluster.vips
            if vip.name in used_vips
        ),
        rules=tuple(
            PlannedRule(
                name=rule.name, why=rule.why, source_text=rule.source_text, profile=rule.profile
            )
            for rule in all_rules(cluster, profile)
            if rule.name in used_rules
        ),
        flows=flows,
        listens=_plan_listens(tried, cluster, vips, backends),
        probes=probes,
        limits=structs.replace(limits, deadline=_fit_deadline(probes, limits)),
        notes=(
            *_notes(flows, everything, cluster, profile, used_nodes),
            *_sample_note(flows, probes, limits.sample),
        ),
        narrowed_from=_count_flows(everything) if flows != everything else None,
    )


def sample_ports(ranges: Ranges, wanted: int | None) -> Ranges:
    """The ports that are tried of these: so many of each range, its ends among them; None: all."""
    if wanted is None:
        return ranges
    return union(*(spread((one,), wanted) for one in ranges))


def _plan_probes(flows: Iterable[Flow], backends: dict[str, tuple[str, ...]]) -> tuple[Probe, ...]:
    """One probe for a (source, destination, address, protocol), over the ports of all its flows."""
    grouped: dict[tuple[str, str, str, Protocol], list[Flow]] = {}
    for flow in flows:
        key = (flow.source, flow.destination, flow.destination_address, flow.protocol)
        grouped.setdefault(key, []).append(flow)
    probes: list[Probe] = []
    padded: set[tuple[str, str, int]] = set()
    for number, ((source, destination, address, protocol), ours) in enumerate(grouped.items()):
        to_vip = destination in backends
        pair = (source, destination, ours[0].family)
        full_size_port = None
        if protocol == "tcp" and not to_vip and pair not in padded:
            padded.add(pair)
            full_size_port = _full_size_port(ours)
        answerers = backends[destination] if to_vip else (destination,)
        probes.append(
            Probe(
                id=number,
                source=source,
                destination=destination,
                protocol=protocol,
                address=address,
                ports=union(*{flow.ports for flow in ours}),
                answerers=answerers,
                connections=_vip_connections(len(answerers)) if to_vip else 1,
                full_size_port=full_size_port,
            )
        )
    return tuple(probes)


def _full_size_port(flows: Iterable[Flow]) -> int:
    """The port most likely to work: one that should be open, and was asked for by itself."""
    best = min(flows, key=lambda flow: (flow.expected != "open", count_ports(flow.ports) > 1))
    return best.ports[0][0]


def _vip_connections(backends: int) -> int:
    """How many connections see each of so many backends: 18 for three of them."""
    if backends <= 1:
        return FEWEST_VIP_CONNECTIONS
    needed = math.ceil(math.log(MISSED_BACKEND) / math.log(1 - 1 / backends))
    return max(FEWEST_VIP_CONNECTIONS, needed)


def _plan_listens(
    flows: Iterable[Flow],
    cluster: Cluster,
    vips: dict[str, Vip],
    backends: dict[str, tuple[str, ...]],
) -> tuple[Listen, ...]:
    """For each node, protocol and address the ports of all flows that end there.

    A flow to an external address ends at the node's own address behind it. A VIP's backends
    hold its port on their own addresses, where a load balancer forwards to, and on the VIP
    itself on the node where it lives.
    """
    own = {node.name: first_addresses(node.addresses) for node in cluster.nodes}
    wanted: dict[tuple[str, Protocol, str, bool], set[Ranges]] = {}
    for flow in flows:
        for name in backends.get(flow.destination, (flow.destination,)):
            # A balancer or a NAT may change the family; then the node's first address counts.
            address = own[name].get(flow.family) or next(iter(own[name].values()))
            wanted.setdefault((name, flow.protocol, address, False), set()).add(flow.ports)
            if flow.destination in vips:
                key = (name, flow.protocol, flow.destination_address, True)
                wanted.setdefault(key, set()).add(flow.ports)
    order = {node.name: place for place, node in enumerate(cluster.nodes)}
    return tuple(
        Listen(
            node=node,
            protocol=protocol,
            address=address,
            ports=union(*ports),
            only_if_local=only_if_local,
        )
        for (node, protocol, address, only_if_local), ports in sorted(
            wanted.items(), key=lambda item: (order[item[0][0]], item[0][3], item[0][1:3])
        )
    )


def _fit_deadline(probes: Iterable[Probe], limits: Limits) -> float:
    """Seconds in which the first pass can end even if every port is silent."""
    begun = Counter[str]()
    for probe in probes:
        begun[probe.source] += count_ports(probe.ports) * probe.connections
    rates = share_rate(limits.rate, begun)
    sending = max(
        begun[source] / min(rate or SLOW_SOURCE, SLOW_SOURCE) for source, rate in rates.items()
    )
    return max(limits.deadline, math.ceil((sending + limits.patience + SLACK) * 10) / 10)


def _notes(
    flows: tuple[Flow, ...],
    everything: tuple[Flow, ...],
    cluster: Cluster,
    profile: Profile,
    used_nodes: set[str],
) -> Iterable[str]:
    """What is left out, and why."""
    yield from cluster.warnings
    if flows != everything:
        whole, ours = _count_flows(everything), _count_flows(flows)
        yield f"narrowed: {ours:,} of the cluster's {whole:,} flows are checked"
    asked = asked_pairs(cluster, profile)
    if any(source == destination for source, destination in asked):
        yield "flows of a node to itself are left out: they never cross the network"
    possible = {(flow.source, flow.destination) for flow in everything}
    apart = [
        f"{source} → {destination}"
        for source, destination in sorted(asked - possible)
        if source != destination
    ]
    if apart:
        listed = ", ".join(apart[:_EXAMPLES]) + (", …" if len(apart) > _EXAMPLES else "")
        yield f"left out, because the two have no address of one family: {listed} ({len(apart)})"
    if not cluster.vips:
        for rule in profile.rules:
            if VIP_ROLE in rule.destinations:
                yield f"the cluster file names no virtual address: {rule.name} is not checked"
    idle = [node.name for node in cluster.nodes if node.name not in used_nodes]
    if idle:
        yield f"no flow of this run begins or ends at {', '.join(idle)}"


def _sample_note(
    flows: Iterable[Flow], probes: Iterable[Probe], wanted: int | None
) -> Iterator[str]:
    left_out = _count_flows(flows) - sum(count_ports(probe.ports) for probe in probes)
    if wanted is not None and left_out:
        yield (
            f"--sample {wanted}: of each range of more ports, {wanted} are tried; "
            f"{left_out:,} flows are left out, and will be untested"
        )


def _count_flows(flows: Iterable[Flow]) -> int:
    """(source, destination, protocol, family, port), each once, whatever the rule."""
    ports: dict[tuple[str, str, str, Protocol], set[Ranges]] = {}
    for flow in flows:
        key = (flow.source, flow.destination, flow.destination_address, flow.protocol)
        ports.setdefault(key, set()).add(flow.ports)
    return sum(count_ports(union(*ranges)) for ranges in ports.values())
