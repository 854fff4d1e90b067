"""`cluster.toml` -> `Cluster`, with its profiles merged and everything about it checked."""

import re
from collections.abc import Iterable
from pathlib import Path

from preflight.config.addresses import (
    Resolve,
    literal_addresses_only,
    read_addresses,
    read_control,
)
from preflight.config.documents import ClusterDocument, NodeTable, VipTable
from preflight.config.profiles import load_profiles, override_ports, parse_port_sets
from preflight.config.reading import Place, convert, listing, nearest, read_toml
from preflight.config.remarks import remarks
from preflight.model.cluster import (
    DEFAULT_CONTROL_PORT,
    VIP_ROLE,
    Cluster,
    Node,
    PortSet,
    Profile,
    Vip,
)
from preflight.ports import FIRST_PORT, LAST_PORT

MAX_NODE_NAME = 100
"""Bytes: a node's name travels in every answer, and an answer has room for 115."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def load_cluster(
    path: Path, *, resolve: Resolve = literal_addresses_only
) -> tuple[Cluster, Profile]:
    """Read a cluster file and its profiles; `[ports]` is applied to the profile returned.

    Paths in the file are relative to it. `resolve` turns host names into addresses; a name
    stands for all the addresses it has. Raises `ConfigError` with file and path.
    """
    place = Place(str(path))
    document = convert(read_toml(path), ClusterDocument, place)
    if not document.name.strip():
        raise (place / "name").error("is empty")
    names = (document.profile,) if isinstance(document.profile, str) else document.profile
    profile = load_profiles(names, path.parent, place / "profile")
    profile = override_ports(profile, _read_overrides(document, profile, place / "ports"))
    nodes = tuple(
        _read_node(name, table, resolve, place / "nodes" / name)
        for name, table in document.nodes.items()
    )
    if not nodes:
        raise (place / "nodes").error("names no node")
    vips = tuple(
        _read_vip(name, table, profile, resolve, place / "vips" / name)
        for name, table in document.vips.items()
    )
    _check_roles(nodes, vips, profile, place / "nodes")
    _check_vips(nodes, vips, profile, place / "vips")
    _check_unique(nodes, place / "nodes")
    _check_words(nodes, vips, place)
    key_file = str(path.parent / document.key_file) if document.key_file else None
    return Cluster(
        name=document.name,
        profiles=profile.names,
        nodes=nodes,
        vips=vips,
        key_file=key_file,
        warnings=tuple(remarks(nodes, vips, profile)),
    ), profile


def _read_overrides(
    document: ClusterDocument, profile: Profile, place: Place
) -> dict[str, tuple[PortSet, ...]]:
    known = [rule.name for rule in profile.rules]
    overrides: dict[str, tuple[PortSet, ...]] = {}
    for name, value in document.ports.items():
        here = place / name
        if name not in known:
            raise here.error(f"no rule of the profile has this name{nearest(name, known)}")
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise here.error('expected a string such as "27017/tcp", or a list of them')
        overrides[name] = parse_port_sets(texts, here)
    return overrides


def _read_node(name: str, value: object, resolve: Resolve, place: Place) -> Node:
    _check_name(name, place)
    table = convert(value, NodeTable, place)
    addresses = _read_node_addresses(table, resolve, place)
    host, port = addresses[0], DEFAULT_CONTROL_PORT
    if table.control is not None:
        if table.embedded:
            raise (place / "control").error("an embedded agent has no control port")
        host, port = read_control(table.control, resolve, place / "control")
    external = None
    if table.external is not None:
        external = read_addresses(table.external, resolve, place / "external")[0]
    if not table.roles:
        raise (place / "roles").error("a node has at least one role")
    return Node(
        name=name,
        addresses=addresses,
        roles=tuple(dict.fromkeys(table.roles)),
        control_host=host,
        control_port=port,
        external=external,
        nat=table.nat,
        embedded=table.embedded,
    )


def _read_node_addresses(table: NodeTable, resolve: Resolve, place: Place) -> tuple[str, ...]:
    if table.address is not None and table.addresses is not None:
        raise place.error("has both address and addresses; write one of them")
    if table.address is not None:
        return read_addresses(table.address, resolve, place / "address")
    if table.addresses is None:
        raise (place / "address").error("is missing")
    here = place / "addresses"
    found: list[str] = []
    for text in table.addresses:
        for address in read_addresses(text, resolve, here):
            if address in found:
                raise here.error(f"{address} is written twice")
            found.append(address)
    if not found:
        raise here.error("names no address")
    return tuple(found)


def _read_vip(name: str, value: object, profile: Profile, resolve: Resolve, place: Place) -> Vip:
    _check_name(name, place)
    table = convert(value, VipTable, place)
    if not FIRST_PORT <= table.port <= LAST_PORT:
        raise (place / "port").error(f"port {table.port} is outside {FIRST_PORT}-{LAST_PORT}")
    addresses = read_addresses(table.address, resolve, place / "address")
    if len(addresses) > 1:
        raise (place / "address").error(
            f'"{table.address}" has several addresses ({listing(addresses)}); write one'
        )
    default = [
        role for rule in profile.rules if VIP_ROLE in rule.destinations for role in rule.sources
    ]
    sources = tuple(default) if table.sources is None else table.sources
    if not sources:
        raise (place / "from").error("is missing: name the roles that use this virtual address")
    return Vip(
        name=name,
        address=addresses[0],
        port=table.port,
        backends=table.backends,
        sources=tuple(dict.fromkeys(sources)),
    )


def _check_name(name: str, place: Place) -> None:
    if len(name.encode()) > MAX_NODE_NAME:
        raise place.error(f"this name is longer than {MAX_NODE_NAME} bytes")
    if not _NAME.fullmatch(name):
        raise place.error(
            "a name has letters, digits, dots, dashes and underscores, "
            "and begins and ends with a letter or digit"
        )


def _check_roles(
    nodes: tuple[Node, ...], vips: tuple[Vip, ...], profile: Profile, place: Place
) -> None:
    known = dict.fromkeys(
        role
        for roles in (
            *((*rule.sources, *rule.destinations) for rule in profile.rules),
            *(domain.sources for domain in profile.domains),
            *((vip.backends, *vip.sources) for vip in vips),
        )
        for role in roles
        if role != VIP_ROLE
    )
    for node in nodes:
        here = place / node.name / "roles"
        for role in node.roles:
            if role == VIP_ROLE:
                raise here.error('"vip" is no role of a node; write virtual addresses in [vips]')
            if role not in known:
                raise here.error(
                    f'unknown role "{role}"{nearest(role, known)} (known: {listing(known)})'
                )


def _check_vips(
    nodes: tuple[Node, ...], vips: tuple[Vip, ...], profile: Profile, place: Place
) -> None:
    roles = dict.fromkeys(role for node in nodes for role in node.roles)
    # A source role of the profile's may be without a node: that is a warning already.
    sources = roles | dict.fromkeys(role for rule in profile.rules for role in rule.sources)
    owners = {address: node.name for node in nodes for address in node.addresses}
    names = {node.name for node in nodes}
    seen: dict[tuple[str, int], str] = {}
    for vip in vips:
        here = place / vip.name
        if vip.name in names:
            raise here.error("a node has this name too; reports need different names")
        if vip.address in owners:
            raise (here / "address").error(
                f"{vip.address} is {owners[vip.address]}'s own address; "
                "a virtual address stands in front of nodes"
            )
        other = seen.setdefault((vip.address, vip.port), vip.name)
        if other != vip.name:
            raise here.error(f'is the same address and port as "{other}"')
        _check_has_node(vip.backends, roles, here / "backends")
        for role in vip.sources:
            _check_has_node(role, sources, here / "from")
        if not any(role in roles for role in vip.sources):
            _check_has_node(vip.sources[0], roles, here / "from")


def _check_has_node(role: str, roles: Iterable[str], place: Place) -> None:
    if role not in roles:
        raise place.error(f'no node has the role "{role}"{nearest(role, roles)}')


def _check_unique(nodes: tuple[Node, ...], place: Place) -> None:
    """No two nodes on one address, external address or control port; one embedded agent."""
    owners: dict[str, str] = {}
    controls: dict[tuple[str, int], str] = {}
    embedded: str | None = None
    for node in nodes:
        here = place / node.name
        for address in node.addresses:
            owner = owners.setdefault(address, node.name)
            if owner != node.name:
                raise (here / "address").error(f"{address} is already {owner}'s address")
        if node.embedded and embedded:
            raise (here / "embedded").error(f"{embedded} is embedded already; only one can be")
        if node.embedded:
            embedded = node.name
            continue
        control = (node.control_host, node.control_port)
        owner = controls.setdefault(control, node.name)
        if owner != node.name:
            raise (here / "control").error(f"{node.control_host} is already {owner}'s")
    for node in nodes:
        if node.external is not None:
            owner = owners.setdefault(node.external, node.name)
            if owner != node.name:
                raise (place / node.name / "external").error(
                    f"{node.external} is already {owner}'s; one address in front of several "
                    "nodes is a virtual address, written in [vips]"
                )


def _check_words(nodes: tuple[Node, ...], vips: tuple[Vip, ...], place: Place) -> None:
    """No name is also the word for others: `--to worker` must mean one thing.

    The only node with a role may be called by it.
    """
    members: dict[str, list[str]] = {VIP_ROLE: [vip.name for vip in vips]}
    for node in nodes:
        for role in node.roles:
            members.setdefault(role, []).append(node.name)
    named = [("nodes", node.name) for node in nodes] + [("vips", vip.name) for vip in vips]
    for kind, name in named:
        others = [one for one in members.get(name, ()) if one != name]
        if others:
            raise (place / kind / name).error(
                f'as a role, "{name}" stands for {listing(others)} too: give this another name'
            )
