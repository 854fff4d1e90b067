"""Faults with a name: each function returns one nftables chain's body, for `Lab.plant`.

A hook says where it sits: "forward" on a router; "input" or "output" on a host. Translations
(redirect, masquerade, balance) sit where the kernel wants them. nft(8) has the language.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Hook: TypeAlias = Literal["forward", "input", "output", "prerouting", "postrouting"]
Way: TypeAlias = Literal["there", "back", "both"]
"""Of a connection's two directions, which one a fault is for."""

TCP_RESET = "tcp reset"
_REFUSALS_V4 = (
    "net-unreachable",
    "host-unreachable",
    "prot-unreachable",
    "port-unreachable",
    "net-prohibited",
    "host-prohibited",
    "admin-prohibited",
)
_REFUSALS_V6 = (
    "no-route",
    "admin-prohibited",
    "addr-unreachable",
    "port-unreachable",
    "policy-fail",
    "reject-route",
)
REFUSALS: dict[int, tuple[str, ...]] = {4: _REFUSALS_V4, 6: _REFUSALS_V6}
"""The ICMP and ICMPv6 errors that `reject` can send, by their names in nft(8)."""

_WORDS = {4: "ip", 6: "ip6"}
_PROTOCOLS = {4: "ipv4", 6: "ipv6"}
_ICMP = {4: "icmp", 6: "icmpv6"}

HANDSHAKE_BYTES = 120
"""Longer than any packet of a TCP handshake (80 bytes over IPv6), shorter than any challenge."""


@dataclass(frozen=True)
class Traffic:
    """Which packets, seen from the side that begins. What is left out matches everything.

    Addresses are literal addresses or subnets of any family; ports as in "443,30000-30009",
    and only together with a protocol.
    """

    protocol: Literal["tcp", "udp"] | None = None
    source: str | Sequence[str] = ()
    destination: str | Sequence[str] = ()
    ports: str | None = None

    def matches(self, *, back: bool = False) -> dict[int, str]:
        """An nft expression for each family that can match; `back` for the answers."""
        if self.ports is not None and self.protocol is None:
            raise ValueError("ports need a protocol")
        found = {}
        for family, word in _WORDS.items():
            sources, destinations = (
                _of_family(addresses, family) for addresses in (self.source, self.destination)
            )
            if sources is None or destinations is None:
                continue
            near, far = ("daddr", "saddr") if back else ("saddr", "daddr")
            parts = [f"meta nfproto {_PROTOCOLS[family]}"]
            parts += [f"{word} {near} {_set(sources)}"] if sources else []
            parts += [f"{word} {far} {_set(destinations)}"] if destinations else []
            parts += [f"meta l4proto {self.protocol}"] if self.protocol else []
            if self.ports:
                side = "sport" if back else "dport"
                parts += [f"{self.protocol} {side} {_set(self.ports.split(','))}"]
            found[family] = " ".join(parts)
        if not found:
            raise ValueError("the source and the destination have no family in common")
        return found


def drop(traffic: Traffic, *, hook: Hook = "forward", way: Way = "there") -> str:
    """Silence. With `way="back"` the far end hears everything and its answers are lost."""
    return _filter(hook, [f"{match} counter drop" for match in _each(traffic, way)])


def loss(traffic: Traffic, percent: int, *, hook: Hook = "forward", way: Way = "there") -> str:
    """Drop that many packets in a hundred, at random; with `way="both"`, in each direction."""
    lossy = f"numgen random mod 100 < {percent} counter drop"
    return _filter(hook, [f"{match} {lossy}" for match in _each(traffic, way)])


def stall(
    traffic: Traffic,
    *,
    longer_than: int = HANDSHAKE_BYTES,
    hook: Hook = "forward",
    way: Way = "there",
) -> str:
    """Drop packets of more bytes than that, IP header included.

    As it is, connections are made and then nothing comes through. With `longer_than=1400` it
    is a tunnel that swallows full segments and tells nobody.
    """
    long = f"meta length > {longer_than} counter drop"
    return _filter(hook, [f"{match} {long}" for match in _each(traffic, way)])


def reject(traffic: Traffic, reason: str, *, hook: Hook = "forward") -> str:
    """Refuse with a TCP reset (`TCP_RESET`), or with an ICMP error of `REFUSALS`.

    Raises `ValueError` where no family of this traffic has that error.
    """
    if reason == TCP_RESET:
        if traffic.protocol != "tcp":
            raise ValueError("only TCP can be reset")
        rules = [f"{match} counter reject with tcp reset" for match in _each(traffic, "there")]
        return _filter(hook, rules)
    rules = [
        f"{match} counter reject with {_ICMP[family]} type {reason}"
        for family, match in traffic.matches().items()
        if reason in REFUSALS[family]
    ]
    if not rules:
        raise ValueError(f"no ICMP error {reason!r} in this traffic's families")
    return _filter(hook, rules)


def redirect(traffic: Traffic, *, address: str, port: int | None = None) -> str:
    """Somebody on the way sends it to another node, or to another port there (DNAT)."""
    family = ipaddress.ip_address(address).version
    aim = _endpoint(address, port)
    word = _WORDS[family]
    return _nat("prerouting", [f"{traffic.matches()[family]} counter dnat {word} to {aim}"])


def redirect_here(traffic: Traffic, *, port: int, hook: Hook = "prerouting") -> str:
    """A program on this very machine answers instead: a transparent proxy, a leftover rule."""
    rules = [f"{match} counter redirect to :{port}" for match in _each(traffic, "there")]
    return _nat(hook, rules)


def masquerade(traffic: Traffic) -> str:
    """The destination sees the router's address instead of the source's."""
    rules = [f"{match} counter masquerade" for match in _each(traffic, "there")]
    return _nat("postrouting", rules)


def balance(vip: str, port: int, backends: Sequence[str]) -> tuple[str, str]:
    """A VIP: connections to it go to each of these addresses in turn, on the same port.

    Two chains. The second hides a backend from itself: one that asks the VIP and gets its own
    connection would see its own address come in from outside, and drop it.
    """
    word = _WORDS[ipaddress.ip_address(vip).version]
    entries = ", ".join(f"{i} : {address}" for i, address in enumerate(backends))
    turn = f"numgen inc mod {len(backends)} map {{ {entries} }}"
    there = f"{word} daddr {vip} tcp dport {port} counter dnat {word} to {turn}"
    hairpins = [f"{word} saddr {one} {word} daddr {one} masquerade" for one in backends]
    return _nat("prerouting", [there]), _nat("postrouting", hairpins)


def _each(traffic: Traffic, way: Way) -> list[str]:
    there = [] if way == "back" else list(traffic.matches().values())
    return there + ([] if way == "there" else list(traffic.matches(back=True).values()))


def _filter(hook: Hook, rules: Sequence[str]) -> str:
    return _chain(f"type filter hook {hook} priority filter; policy accept;", rules)


def _nat(hook: Hook, rules: Sequence[str]) -> str:
    priority = "srcnat" if hook in ("postrouting", "input") else "dstnat"
    # By number for output, where nft has no name for it: -100 is where dstnat is.
    place = "-100" if hook == "output" else priority
    return _chain(f"type nat hook {hook} priority {place}; policy accept;", rules)


def _chain(head: str, rules: Sequence[str]) -> str:
    return "\n".join(("{", head, *rules, "}"))


def _of_family(addresses: str | Sequence[str], family: int) -> list[str] | None:
    """Those of this family; None if there are some and none is of it."""
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    own = [one for one in given if ipaddress.ip_network(one, strict=False).version == family]
    return None if given and not own else own


def _set(members: Sequence[str]) -> str:
    return members[0] if len(members) == 1 else f"{{ {', '.join(members)} }}"


def _endpoint(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
