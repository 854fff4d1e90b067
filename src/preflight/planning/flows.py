"""Rules over roles -> flows between nodes, and the narrowing of them.

Of a node with several addresses of one family the first counts, on both sides: what asks is
the kernel's choice anyway, and what is asked is what the cluster would use.
"""

import difflib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from msgspec import structs

from preflight.errors import ConfigError
from preflight.model.cluster import VIP_ROLE, Cluster, Node, PortSet, Profile, Rule, Vip
from preflight.model.plan import Family, Flow
from preflight.ports import Ranges, intersect, overlap

FAMILIES: tuple[Family, ...] = (4, 6)


def expand_flows(cluster: Cluster, profile: Profile) -> tuple[Flow, ...]:
    """Every flow that the profile asks for between these nodes, in the order of its rules.

    One flow for each family that both ends have. A node has none to itself, but a backend of
    a VIP has one to the VIP. A node with several roles has each flow of a rule once. Raises
    `ConfigError` where there is no flow at all: a run of nothing would pass.
    """
    flows = tuple(flow for rule in all_rules(cluster, profile) for flow in _flows_of(rule, cluster))
    if not flows:
        raise ConfigError("there is nothing to check: no rule applies between these nodes")
    return flows


def all_rules(cluster: Cluster, profile: Profile) -> tuple[Rule, ...]:
    """The profile's rules, and one more for each VIP that none of them is about."""
    uncovered = (
        vip for vip in cluster.vips if not any(_is_about(rule, vip) for rule in profile.rules)
    )
    return (*profile.rules, *map(_rule_for, uncovered))


def asked_pairs(cluster: Cluster, profile: Profile) -> set[tuple[str, str]]:
    """(source, destination) that any rule asks for, a node and itself among them."""
    pairs: set[tuple[str, str]] = set()
    for rule in all_rules(cluster, profile):
        sources = [node.name for node in nodes_with(cluster, rule.sources)]
        destinations = [node.name for node in nodes_with(cluster, rule.destinations)]
        pairs.update(product(sources, destinations))
        for vip in cluster.vips:
            if _is_about(rule, vip):
                pairs.update((node.name, vip.name) for node in nodes_with(cluster, vip.sources))
    return pairs


def narrow(
    flows: tuple[Flow, ...],
    cluster: Cluster,
    *,
    only: Sequence[str] = (),
    sources: Sequence[str] = (),
    destinations: Sequence[str] = (),
    ports: Ranges = (),
) -> tuple[Flow, ...]:
    """The flows that a user wants to see: all four conditions hold; an empty one always does.

    `only` has items such as `"worker:control-plane"`, of which one must hold; an empty side
    stands for everything. A word is a node, a role, a VIP, or `vip` for all of these.
    `ports` cuts the flows down to these ports. Raises `ConfigError` for an unknown word, and
    where nothing is left.
    """
    members = _members(cluster)
    pairs = []
    for item in only:
        left, colon, right = item.partition(":")
        if not colon:
            raise ConfigError(f'"{item}" is not FROM:TO, two roles or nodes', path="--only")
        pairs.append(
            (_named([left], members, "--only"), _named([right], members, "--only")),
        )
    wanted_sources = _named(sources, members, "--from")
    wanted_destinations = _named(destinations, members, "--to")
    kept = []
    for flow in flows:
        if flow.source not in wanted_sources or flow.destination not in wanted_destinations:
            continue
        if pairs and not any(
            flow.source in left and flow.destination in right for left, right in pairs
        ):
            continue
        left_over = intersect(flow.ports, ports) if ports else flow.ports
        if left_over:
            kept.append(structs.replace(flow, ports=left_over))
    if not kept:
        given = {"--only": only, "--from": sources, "--to": destinations, "--port": ports}
        options = [option for option, value in given.items() if value]
        together = " and ".join((", ".join(options[:-1]), options[-1]) if options[1:] else options)
        raise ConfigError(f"no flow of the cluster fits {together}")
    return tuple(kept)


def family_of(address: str) -> Family:
    """4 or 6."""
    return 4 if ipaddress.ip_address(address).version == 4 else 6


def first_addresses(addresses: Iterable[str]) -> dict[Family, str]:
    """The first address of each family."""
    found: dict[Family, str] = {}
    for address in addresses:
        found.setdefault(family_of(address), address)
    return found


def nodes_with(cluster: Cluster, roles: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that have any of these roles, in the cluster's order."""
    wanted = frozenset(roles)
    return tuple(node for node in cluster.nodes if not wanted.isdisjoint(node.roles))


def _flows_of(rule: Rule, cluster: Cluster) -> Iterator[Flow]:
    addresses = {node.name: first_addresses(node.addresses) for node in cluster.nodes}
    destinations = [
        (node.name, first_addresses([node.external]))
        if rule.via == "external" and node.external
        else (node.name, addresses[node.name])
        for node in nodes_with(cluster, rule.destinations)
    ]
    sources = nodes_with(cluster, rule.sources)
    for port_set in rule.ports:
        for source in sources:
            for name, reached_at in destinations:
                if name != source.name:
                    yield from _between(
                        rule, port_set, source.name, addresses[source.name], name, reached_at
                    )
    for vip in cluster.vips:
        if _is_about(rule, vip):
            port_set = PortSet("tcp", ((vip.port, vip.port),))
            reached_at = first_addresses([vip.address])
            for source in nodes_with(cluster, vip.sources):
                yield from _between(
                    rule, port_set, source.name, addresses[source.name], vip.name, reached_at
                )


def _between(
    rule: Rule,
    port_set: PortSet,
    source: str,
    source_addresses: dict[Family, str],
    destination: str,
    destination_addresses: dict[Family, str],
) -> Iterator[Flow]:
    for family in FAMILIES:
        if family in source_addresses and family in destination_addresses:
            yield Flow(
                rule=rule.name,
                source=source,
                destination=destination,
                protocol=port_set.protocol,
                family=family,
                source_address=source_addresses[family],
                destination_address=destination_addresses[family],
                ports=port_set.ranges,
                required=rule.required,
                expected=rule.expected,
            )


def _is_about(rule: Rule, vip: Vip) -> bool:
    """A rule to VIPs speaks of those on its ports: the API server's is not the ingress's."""
    return VIP_ROLE in rule.destinations and any(
        port_set.protocol == "tcp" and overlap(port_set.ranges, ((vip.port, vip.port),))
        for port_set in rule.ports
    )


def _rule_for(vip: Vip) -> Rule:
    return Rule(
        name=f"vip-{vip.name}",
        sources=vip.sources,
        destinations=(VIP_ROLE,),
        ports=(PortSet("tcp", ((vip.port, vip.port),)),),
        why=f"The virtual address {vip.name} in front of the nodes with the role {vip.backends}",
        source_text=f"the cluster file, vips.{vip.name}",
        profile="cluster",
    )


def _members(cluster: Cluster) -> dict[str, frozenset[str]]:
    """What each word of a narrowing stands for: names of nodes and VIPs."""
    members: dict[str, set[str]] = {}
    for node in cluster.nodes:
        for word in (node.name, *node.roles, ""):
            members.setdefault(word, set()).add(node.name)
    for vip in cluster.vips:
        for word in (vip.name, VIP_ROLE, ""):
            members.setdefault(word, set()).add(vip.name)
    return {word: frozenset(names) for word, names in members.items()}


def _named(words: Sequence[str], members: dict[str, frozenset[str]], option: str) -> frozenset[str]:
    """The nodes and VIPs that any of the words stands for; no word stands for all."""
    found: frozenset[str] = frozenset()
    for word in words or ("",):
        if word not in members:
            near = difflib.get_close_matches(word, members, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ConfigError(f'no node, role or VIP is named "{word}"{hint}', path=option)
        found |= members[word]
    return found
