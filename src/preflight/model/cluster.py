"""What users write, resolved: a cluster, and the profile that says which flows it needs."""

from typing import Literal

from msgspec import Struct

from preflight.ports import Ranges

Protocol = Literal["tcp", "udp"]
Expected = Literal["open", "blocked"]

DEFAULT_CONTROL_PORT = 10888
"""Where `preflight serve` listens for the coordinator, unless it is told otherwise."""

VIP_ROLE = "vip"
"""The `to` of a rule that is about virtual addresses. No node can have this role."""


class PortSet(Struct, frozen=True):
    """Ports of one protocol, as in `"2379-2380/tcp"`."""

    protocol: Protocol
    ranges: Ranges


class Rule(Struct, frozen=True, kw_only=True):
    """Role -> role, on these ports, and why. `source_text` is where a reader can check it."""

    name: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    ports: tuple[PortSet, ...]
    why: str
    source_text: str
    profile: str
    required: bool = True
    expected: Expected = "open"
    via: Literal["address", "external"] = "address"


class Domain(Struct, frozen=True, kw_only=True):
    """An install domain of a profile: the pattern as documented, and the hosts behind it."""

    pattern: str
    hosts: tuple[str, ...]
    sources: tuple[str, ...]
    why: str
    source_text: str
    profile: str


class Profile(Struct, frozen=True, kw_only=True):
    """Rules and install domains, merged over `extends` and over a list of profiles."""

    name: str
    names: tuple[str, ...]
    rules: tuple[Rule, ...]
    domains: tuple[Domain, ...]
    description: str = ""


class Node(Struct, frozen=True, kw_only=True):
    """One machine. All addresses are literal by now."""

    name: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...]
    control_host: str
    control_port: int = DEFAULT_CONTROL_PORT
    external: str | None = None
    nat: bool = False
    embedded: bool = False


class Vip(Struct, frozen=True, kw_only=True):
    """A virtual address in front of the nodes of one role."""

    name: str
    address: str
    port: int
    backends: str
    sources: tuple[str, ...]


class Cluster(Struct, frozen=True, kw_only=True):
    """A whole `cluster.toml`."""

    name: str
    profiles: tuple[str, ...]
    nodes: tuple[Node, ...]
    vips: tuple[Vip, ...]
    key_file: str | None = None
    warnings: tuple[str, ...] = ()
