"""What is not wrong in a cluster file, and perhaps not what was meant."""

import ipaddress
from collections.abc import Iterator

from preflight.config.reading import listing
from preflight.model.cluster import VIP_ROLE, Node, Profile, Vip


def remarks(nodes: tuple[Node, ...], vips: tuple[Vip, ...], profile: Profile) -> Iterator[str]:
    """A sentence for each such thing: a warning in `check`, a note in `plan`."""
    yield from _roles_without_nodes(nodes, profile)
    yield from _translated_elsewhere(nodes)
    yield from _on_loopback(nodes, vips)


def _roles_without_nodes(nodes: tuple[Node, ...], profile: Profile) -> Iterator[str]:
    present = {role for node in nodes for role in node.roles} | {VIP_ROLE}
    needed: dict[str, list[str]] = {}
    for rule in profile.rules:
        for role in dict.fromkeys((*rule.sources, *rule.destinations)):
            if role not in present:
                needed.setdefault(role, []).append(rule.name)
    for role, rules in needed.items():
        which = f"rule {rules[0]} is" if len(rules) == 1 else f"rules {listing(rules)} are"
        yield f"no node has the role {role}: {which} not checked for it"


def _on_loopback(nodes: tuple[Node, ...], vips: tuple[Vip, ...]) -> Iterator[str]:
    """Each machine reaches itself there. A cluster that is all loopback is a trial on one machine.

    That is told of names such as localhost, which nobody means here.
    """
    places = [(node.name, address) for node in nodes for address in node.addresses]
    places += [(vip.name, vip.address) for vip in vips]
    inward = [(name, one) for name, one in places if ipaddress.ip_address(one).is_loopback]
    if len(inward) < len(places):
        for name, address in inward:
            yield (
                f"{name}'s address {address} is a loopback address, at which every machine "
                "reaches itself"
            )


def _translated_elsewhere(nodes: tuple[Node, ...]) -> Iterator[str]:
    """A node behind NAT holds its ports where the control connection arrives (DESIGN 7)."""
    for node in nodes:
        if node.nat and node.control_host not in node.addresses:
            yield (
                f"{node.name} has nat = true, and its agent is reached at {node.control_host}: it "
                f"holds its ports on the address where that connection arrives, which may not be "
                f"the one that {listing(node.addresses)} is translated to"
            )
