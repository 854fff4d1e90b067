"""What a lab's network looks like, as the commands of `ip -batch` that build it. Pure.

Each node has a subnet and a wire to the router of its own; nodes that name the same link share
a bridge in the router instead, and are neighbours. The router has the first address of every
subnet. Nothing leads out: no interface has its other end outside the lab.

The kernel's neighbour table is one for all namespaces (1,024 entries by default): nodes behind
a router cost it four entries each, on one link every pair does.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

ROUTER = "router"
NODE_DEVICE = "eth0"
_IPV6 = 6
PREFIX_LENGTHS = {4: 24, 6: 64}

_NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,14}")
_LINK_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,11}")

_Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class LabNode:
    """One machine of the lab.

    Addresses are in a /24 (IPv4) or a /64 (IPv6), unless they say otherwise ("10.77.1.11/25");
    the first one of each family's subnet is the router's. `mtu` is for both ends of its wire.
    `sysctls` are set before the interface exists: "net.ipv4.conf.default.rp_filter": "1".
    """

    name: str
    addresses: tuple[str, ...]
    link: str | None = None
    mtu: int = 1500
    sysctls: Mapping[str, str] = field(default_factory=dict)

    @property
    def interfaces(self) -> tuple[_Interface, ...]:
        """The addresses, each with its subnet."""
        return tuple(_read_interface(text) for text in self.addresses)


def check_nodes(nodes: Sequence[LabNode]) -> None:
    """Raises `ValueError` for what can't be built: names, addresses or subnets that collide."""
    names = [node.name for node in nodes]
    addresses = [one.ip for node in nodes for one in node.interfaces]
    if len({*names}) != len(names) or len({*addresses}) != len(addresses):
        raise ValueError("two nodes of a lab have the same name or the same address")
    subnets: dict[str, str] = {}
    for node in nodes:
        if not _NODE_NAME.fullmatch(node.name) or node.name in (ROUTER, "lo"):
            raise ValueError(f"{node.name!r} can't be a node's name: it names an interface too")
        if node.link is not None and not _LINK_NAME.fullmatch(node.link):
            raise ValueError(f"{node.link!r} can't be a link's name")
        for one in node.interfaces:
            if one.ip == gateway(one):
                raise ValueError(f"{one.ip} is the router's own address on that link")
            if subnets.setdefault(str(one.network), router_device(node)) != router_device(node):
                raise ValueError(f"subnet {one.network} is on two links")


def gateway(interface: _Interface) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The router's address in that subnet."""
    return interface.network.network_address + 1


def router_device(node: LabNode) -> str:
    """The router's interface that leads to this node: its wire, or its link's bridge."""
    # A dot: no node's name has one, so the two never collide.
    return node.name if node.link is None else f"br.{node.link}"


def namespace_batch(nodes: Sequence[LabNode]) -> str:
    """`ip -batch` that names the namespaces."""
    return _lines(f"netns add {name}" for name in (ROUTER, *(node.name for node in nodes)))


def router_batch(nodes: Sequence[LabNode]) -> str:
    """`ip -batch`, inside the router: every wire, every bridge, the router's addresses."""
    return _lines(_router_commands(nodes))


def node_batch(node: LabNode) -> str:
    """`ip -batch`, inside the node: its addresses, and the way to everything else."""
    return _lines(_node_commands(node))


def sysctls(nodes: Sequence[LabNode], name: str) -> dict[str, str]:
    """Kernel settings of one namespace, by path below /proc/sys, in the order to write them."""
    settings = {f"net/ipv4/conf/{which}/rp_filter": "0" for which in ("all", "default")}
    if any(one.version == _IPV6 for node in nodes for one in node.interfaces):
        for which in ("all", "default"):
            settings[f"net/ipv6/conf/{which}/disable_ipv6"] = "0"
            # Without this, the router can't even ask for a neighbour in its first second.
            settings[f"net/ipv6/conf/{which}/accept_dad"] = "0"
            settings[f"net/ipv6/conf/{which}/dad_transmits"] = "0"
            settings[f"net/ipv6/conf/{which}/accept_ra"] = "0"
        if name == ROUTER:
            settings["net/ipv6/conf/all/forwarding"] = "1"
    if name == ROUTER:
        settings["net/ipv4/ip_forward"] = "1"
        # Neighbours on one link that talk through the router would be told not to.
        settings["net/ipv4/conf/all/send_redirects"] = "0"
        settings["net/ipv4/conf/default/send_redirects"] = "0"
        # Or what neighbours say to each other would go through the router's firewall.
        for table in ("arptables", "iptables", "ip6tables"):
            settings[f"net/bridge/bridge-nf-call-{table}"] = "0"
    for node in nodes:
        if node.name == name:
            settings |= {key.replace(".", "/"): value for key, value in node.sysctls.items()}
    return settings


def address_options(interface: _Interface) -> str:
    """What `ip address add` wants besides the device: usable at once, also in IPv6."""
    return f"{interface} nodad" if interface.version == _IPV6 else str(interface)


def _router_commands(nodes: Sequence[LabNode]) -> Iterator[str]:
    yield "link set lo up"
    for bridge in sorted({router_device(node) for node in nodes if node.link is not None}):
        yield f"link add name {bridge} type bridge"
        yield f"link set dev {bridge} up"
    for node in nodes:
        yield (
            f"link add name {node.name} mtu {node.mtu} type veth"
            f" peer name {NODE_DEVICE} mtu {node.mtu} netns {node.name}"
        )
        if node.link is not None:
            yield f"link set dev {node.name} master {router_device(node)}"
        yield f"link set dev {node.name} up"
    own = {
        (_read_interface(f"{gateway(one)}/{one.network.prefixlen}"), router_device(node))
        for node in nodes
        for one in node.interfaces
    }
    for interface, device in sorted(own, key=str):
        yield f"address add {address_options(interface)} dev {device}"


def _node_commands(node: LabNode) -> Iterator[str]:
    yield "link set lo up"
    yield f"link set dev {NODE_DEVICE} up"
    for one in node.interfaces:
        yield f"address add {address_options(one)} dev {NODE_DEVICE}"
    for version in (4, 6):
        first = next((one for one in node.interfaces if one.version == version), None)
        if first is not None:
            yield f"route add default via {gateway(first)}"


def _read_interface(text: str) -> _Interface:
    if "/" in text:
        return ipaddress.ip_interface(text)
    return ipaddress.ip_interface(f"{text}/{PREFIX_LENGTHS[ipaddress.ip_address(text).version]}")


def _lines(commands: Iterator[str]) -> str:
    return "".join(f"{command}\n" for command in commands)
