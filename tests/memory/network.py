"""A network in memory: where packets lead, and what becomes of them on the way.

It knows what the kernel's network does with a packet, step by step: the source's own routes and
output rules, the router's translations and forward rules, the destination's input rules, and
the same backwards for the answers. What is at the ends is `probing`'s.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from preflight.model.cluster import Protocol
from preflight.model.observation import Failure, Icmp, Operation
from preflight.model.plan import Family
from preflight.net import classify
from preflight.ports import intersect, parse_ports
from tests.memory import faults
from tests.memory.faults import ROUTER, TCP_RESET, Traffic
from tests.memory.setting import Machine, Setting

_Planted = TypeVar("_Planted")

ICMP_BURST = 6
_PREFIX_LENGTHS = {4: 24, 6: 64}
_UNREACHABLE = {4: 3, 6: 1}
_EXPIRED = {4: 11, 6: 3}
_CODES = {
    4: {
        "net-unreachable": 0,
        "host-unreachable": 1,
        "prot-unreachable": 2,
        "port-unreachable": 3,
        "net-prohibited": 9,
        "host-prohibited": 10,
        "admin-prohibited": 13,
    },
    6: {
        "no-route": 0,
        "admin-prohibited": 1,
        "addr-unreachable": 3,
        "port-unreachable": 4,
        "policy-fail": 5,
        "reject-route": 6,
    },
}
_NOBODY = {4: "host-unreachable", 6: "addr-unreachable"}
_NO_ROUTE = {4: "net-unreachable", 6: "no-route"}
_DEAD_ROUTES = {
    "blackhole": (Failure.NO_ROUTE, "EINVAL"),
    "unreachable": (Failure.NO_ROUTE, "EHOSTUNREACH"),
    "prohibit": (Failure.SEND_DENIED, "EACCES"),
}


class Lost(Enum):
    """What becomes of a packet that does not arrive and that nobody speaks of."""

    ON_THE_WAY = 1
    AT_HOME = 2
    """Its own host's firewall did not let it out."""


Stop = Lost | classify.Fault
"""Why a packet did not arrive, as its sender learns it."""


@dataclass(frozen=True)
class Way:
    """Where a connection leads, all translations done."""

    source: Machine
    source_address: str
    asked: str
    """The name of the node or VIP that was asked for; empty: nobody's address."""
    asked_address: str
    protocol: Protocol
    family: Family
    machine: Machine | None
    """Who is reached; None: nobody is there."""
    address: str
    port: int
    observed_source: str
    neighbours: bool


class MemoryNetwork:
    """The network of one setting."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._owners = {
            address: machine
            for machine in setting.machines
            for address in machine.addresses
            if not self.has(faults.Absent(machine.name))
        }
        self._names = {
            address: machine.name
            for machine in setting.machines
            for address in (*machine.addresses, *machine.nat_of)
        } | {vip.address: vip.name for vip in setting.vips}
        self._passed: dict[faults.Drop, int] = defaultdict(int)
        self._turns: dict[str, int] = defaultdict(int)
        self._icmp_left: dict[str, int] = defaultdict(lambda: ICMP_BURST)

    def has(self, fault: faults.Fault) -> bool:
        """Whether exactly this fault is planted."""
        return fault in self._setting.faults

    def planted(self, kind: type[_Planted]) -> Iterator[_Planted]:
        """The planted faults of one kind."""
        return (fault for fault in self._setting.faults if isinstance(fault, kind))

    def wait_a_second(self) -> None:
        """The router may send each address one ICMP error more."""
        for address in self._icmp_left:
            self._icmp_left[address] += 1

    def find_way(self, source: Machine, protocol: Protocol, address: str, port: int) -> Way:
        """Where a new connection from that machine to that place leads."""
        family: Family = 6 if ":" in address else 4
        own = source.address(family) or ""
        asked = self._names.get(address, "")
        neighbours = bool(own) and _subnet(own) == _subnet(address)
        way = Way(
            source, own, asked, address, protocol, family,
            self._owners.get(address), address, port, own, neighbours,
        )  # fmt: skip
        return way if neighbours else self._translate(way)

    def carry_there(self, way: Way, length: int) -> Stop | None:
        """One packet of so many bytes from the source to the destination; None: it arrived."""
        ends = (way.source.name, way.asked)
        for route in self.planted(faults.DeadRoute):
            if (route.source, route.destination) == ends:
                failure, errno = _DEAD_ROUTES[route.kind]
                return classify.Fault(failure, Operation.CONNECT, errno)
        if self._is_dropped(way, way.source.name, "there", length):
            return Lost.AT_HOME
        if refusal := self._refusal(way, way.source.name, length):
            return _from_own_host(refusal)
        if not way.neighbours and (stop := self._cross_router(way, length)):
            return stop
        if way.machine is None:
            if way.neighbours:
                icmp = _icmp(way, _NOBODY[way.family], way.source_address)
                return classify.Fault(Failure.NO_NEIGHBOUR, Operation.CONNECT, "EHOSTUNREACH", icmp)
            return self._by_router(way, self._why_nobody(way))
        if self._is_dropped(way, way.machine.name, "there", length):
            return Lost.ON_THE_WAY
        return self._refusal(way, way.machine.name, length)

    def carry_back(self, way: Way, length: int) -> Stop | None:
        """One packet of the answer, from the destination to the source."""
        assert way.machine is not None  # nobody else answers
        if self._is_dropped(way, way.machine.name, "back", length):
            return Lost.AT_HOME
        for at in (ROUTER, way.source.name):
            if not (at == ROUTER and way.neighbours) and self._is_dropped(way, at, "back", length):
                return Lost.ON_THE_WAY
        return None

    def _translate(self, way: Way) -> Way:
        """What the router's nat rules make of it."""
        aim: tuple[str, int | None] | None = None
        for balance in self.planted(faults.Balance):
            if balance.vip == way.asked:
                aim = balance.to[self._turns[balance.vip] % len(balance.to)], balance.port
                self._turns[balance.vip] += 1
        for redirect in self.planted(faults.Redirect):
            if _matches(redirect.traffic, way):
                aim = redirect.to, redirect.port
        machine, address, port = way.machine, way.address, way.port
        if aim is not None:
            machine = self._setting.machines_by_name[aim[0]]
            address = machine.address(way.family) or ""
            port = aim[1] or way.port
        translated = any(_matches(one.traffic, way) for one in self.planted(faults.Masquerade))
        observed = _gateway(address) if translated else way.source_address
        return Way(
            way.source, way.source_address, way.asked, way.asked_address, way.protocol, way.family,
            machine, address, port, observed, neighbours=False,
        )  # fmt: skip

    def _cross_router(self, way: Way, length: int) -> Stop | None:
        if any(_matches(one.traffic, way) for one in self.planted(faults.Expire)):
            icmp = Icmp(way.family, _EXPIRED[way.family], 0, _gateway(way.source_address))
            return classify.Fault(Failure.ICMP, Operation.CONNECT, "EHOSTUNREACH", icmp)
        if self._is_dropped(way, ROUTER, "there", length):
            return Lost.ON_THE_WAY
        return self._refusal(way, ROUTER, length)

    def _is_dropped(self, way: Way, at: str, direction: faults.Way, length: int) -> bool:
        for drop in self.planted(faults.Drop):
            if drop.at != at or drop.way != direction or not _matches(drop.traffic, way):
                continue
            if drop.longer_than is None or length > drop.longer_than:
                turn = self._passed[drop] % drop.share[1]
                self._passed[drop] += 1
                if turn < drop.share[0]:
                    return True
        return False

    def _refusal(self, way: Way, at: str, length: int) -> Stop | None:
        for refuse in self.planted(faults.Refuse):
            if refuse.at != at or not _matches(refuse.traffic, way):
                continue
            if refuse.longer_than is not None and length <= refuse.longer_than:
                continue
            if refuse.reason == TCP_RESET:
                return classify.Fault(Failure.RESET, Operation.CONNECT, "ECONNREFUSED")
            if at == ROUTER:
                return self._by_router(way, refuse.reason)
            sender = way.source_address if at == way.source.name else way.address
            icmp = _icmp(way, refuse.reason, sender)
            return classify.Fault(Failure.ICMP, Operation.CONNECT, "EHOSTUNREACH", icmp)
        return None

    def _by_router(self, way: Way, reason: str) -> Stop:
        """The router's ICMP error, unless it has sent too many of them."""
        if self._setting.icmp_limited:
            if self._icmp_left[way.source_address] <= 0:
                return Lost.ON_THE_WAY
            self._icmp_left[way.source_address] -= 1
        icmp = _icmp(way, reason, _gateway(way.source_address))
        return classify.Fault(Failure.ICMP, Operation.CONNECT, "EHOSTUNREACH", icmp)

    def _why_nobody(self, way: Way) -> str:
        subnets = {_subnet(one) for machine in self._setting.machines for one in machine.addresses}
        known = _subnet(way.address) in subnets
        return (_NOBODY if known else _NO_ROUTE)[way.family]


def _matches(traffic: Traffic, way: Way) -> bool:
    """Whether it is that traffic: by who is reached, or by who was asked for."""
    reached = way.machine.name if way.machine is not None else way.asked
    return (
        traffic.source == way.source.name
        and traffic.destination in (reached, way.asked)
        and traffic.protocol in (None, way.protocol)
        and traffic.family in (None, way.family)
        and (
            traffic.ports is None
            or bool(intersect(parse_ports(traffic.ports), ((way.port, way.port),)))
        )
    )


def _from_own_host(stop: Stop) -> Stop:
    """ICMP from an address of the source's own is its own firewall."""
    if isinstance(stop, Lost) or stop.failure is not Failure.ICMP:
        return stop
    return stop._replace(failure=Failure.SEND_DENIED)


def _icmp(way: Way, reason: str, sender: str) -> Icmp:
    return Icmp(way.family, _UNREACHABLE[way.family], _CODES[way.family][reason], sender)


def _subnet(address: str) -> str:
    length = _PREFIX_LENGTHS[ipaddress.ip_address(address).version]
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def _gateway(address: str) -> str:
    """The router's address on that address's link: the first one, as in the lab."""
    return str(ipaddress.ip_network(_subnet(address)).network_address + 1)
