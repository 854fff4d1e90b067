"""The files as they are written: one struct for each kind of table, before any meaning.

Tables with free keys (nodes, rules) are kept as they were parsed and converted one by one,
so that an error can name the key: `nodes.m1.address`.
"""

from typing import Any, Literal

from msgspec import Struct, field


class ClusterDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cluster.toml`."""

    name: str
    profile: str | tuple[str, ...]
    nodes: dict[str, Any]
    key_file: str | None = None
    vips: dict[str, Any] = {}
    ports: dict[str, Any] = {}


class NodeTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[nodes.NAME]`; of `address` and `addresses` exactly one."""

    roles: tuple[str, ...]
    address: str | None = None
    addresses: tuple[str, ...] | None = None
    control: str | None = None
    external: str | None = None
    nat: bool = False
    embedded: bool = False


class VipTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[vips.NAME]`; `from` defaults to that of the profile's rules to VIPs."""

    address: str
    port: int
    backends: str
    sources: tuple[str, ...] | None = field(default=None, name="from")


class ProfileDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile."""

    name: str
    description: str = ""
    extends: tuple[str, ...] = ()
    rules: dict[str, Any] = {}
    domains: dict[str, Any] = {}


class RuleTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[rules.NAME]`."""

    sources: tuple[str, ...] = field(name="from")
    destinations: tuple[str, ...] = field(name="to")
    ports: tuple[str, ...]
    why: str
    source: str
    required: bool = True
    expect: Literal["open", "blocked"] = "open"
    via: Literal["address", "external"] = "address"


class DomainTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[domains."PATTERN"]`; a host is `name` (port 443) or `name:port`."""

    hosts: tuple[str, ...]
    sources: tuple[str, ...] = field(name="from")
    why: str = ""
    source: str = ""
