"""What can be wrong in a network, as values: one description for every kind of network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from preflight.model.cluster import Protocol
from preflight.model.plan import Family

ROUTER = "router"
TCP_RESET = "tcp reset"

Way: TypeAlias = Literal["there", "back"]
"""From the source to the destination, or the answers."""
Behaviour: TypeAlias = Literal["greets", "closes", "silent", "idle"]
"""Of a foreign program that has a port: it sends a banner (UDP: answers everything), closes
what it accepts, never says a word, or has bound the port without listening."""
Moment: TypeAlias = Literal["greet", "hold", "start", "results", "ask", "release"]
"""Which of the coordinator's messages an agent's end comes with. "results": half of what it
found out while probing is told."""


@dataclass(frozen=True)
class Traffic:
    """What goes from one node to another (or to a VIP); what is left out matches everything."""

    source: str
    destination: str
    protocol: Protocol | None = None
    ports: str | None = None
    family: Family | None = None


@dataclass(frozen=True)
class Drop:
    """Silence: on the router, or in the firewall of one of the two ends."""

    traffic: Traffic
    at: str = ROUTER
    way: Way = "there"
    longer_than: int | None = None
    """Only packets of more bytes than that, IP header included."""
    share: tuple[int, int] = (1, 1)
    """So many out of so many packets, in turn and not by chance: the same in every run."""


@dataclass(frozen=True)
class Refuse:
    """A TCP reset, or the ICMP error with this name in nft(8)."""

    traffic: Traffic
    reason: str
    at: str = ROUTER
    longer_than: int | None = None


@dataclass(frozen=True)
class Expire:
    """The hop limit runs out on the router, as in a routing loop."""

    traffic: Traffic


@dataclass(frozen=True)
class Redirect:
    """The router leads it to another machine, or to another port there."""

    traffic: Traffic
    to: str
    port: int | None = None


@dataclass(frozen=True)
class Masquerade:
    """The destination sees the router's address instead of the source's."""

    traffic: Traffic


@dataclass(frozen=True)
class Balance:
    """The router leads connections to a VIP to these machines in turn, to this port there."""

    vip: str
    to: Sequence[str]
    port: int | None = None


@dataclass(frozen=True)
class DeadRoute:
    """A route on the source itself that refuses: EINVAL, EACCES, EHOSTUNREACH."""

    source: str
    destination: str
    kind: Literal["blackhole", "prohibit", "unreachable"]


@dataclass(frozen=True)
class Program:
    """Another program has a port on all addresses of a machine."""

    on: str
    protocol: Protocol
    port: int
    behaviour: Behaviour


@dataclass(frozen=True)
class Absent:
    """The machine is not there: nobody has its address."""

    node: str


@dataclass(frozen=True)
class NoAgent:
    """The machine is up, and no agent runs on it."""

    node: str


@dataclass(frozen=True)
class ForeignAgent:
    """The agent has another key file."""

    node: str


@dataclass(frozen=True)
class Unprivileged:
    """The agent may not bind ports below 1024."""

    node: str


@dataclass(frozen=True)
class Dies:
    """The agent's process ends when this message comes.

    `after_reply`: it still answers it. `nonsense`: it sends bytes that are none of ours.
    """

    node: str
    at: Moment = "start"
    after_reply: bool = False
    nonsense: bool = False


Fault: TypeAlias = (
    Drop
    | Refuse
    | Expire
    | Redirect
    | Masquerade
    | Balance
    | DeadRoute
    | Program
    | Absent
    | NoAgent
    | ForeignAgent
    | Unprivileged
    | Dies
)
