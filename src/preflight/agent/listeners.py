"""The ports that an agent holds under one lease, and what came to them."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from preflight.agent.facts import Owner, PortOwners, is_own_address
from preflight.columns import pack_sightings
from preflight.errors import LimitError
from preflight.model.cluster import Protocol
from preflight.model.observation import (
    Confirmation,
    ListenerCount,
    ListenerState,
    ListenerStatus,
    Sightings,
)
from preflight.model.plan import Close, Listen
from preflight.net.answering import Identity
from preflight.net.backlog import backlog_overflows
from preflight.net.binding import BindDenied, PortOccupied, bind_listener, kernel_drops
from preflight.net.journal import Journal, Listener
from preflight.net.limits import open_descriptors, raise_descriptor_limit
from preflight.net.strangers import MAX_STRANGERS, Strangers
from preflight.net.tcp_listener import TcpListeners
from preflight.net.udp_listener import UdpListeners
from preflight.ports import each_port, from_ports

MIN_CONNECTIONS = 128
MAX_CONNECTIONS = 16_384
"""Accepted connections at once: several sources that each stall on the whole NodePort range."""
BINDS_AT_ONCE = 256
"""Sockets bound before the event loop gets its turn: a few milliseconds."""


class _Place(NamedTuple):
    protocol: Protocol
    address: str
    port: int


class _Fate(NamedTuple):
    """What became of a place: everything of a `ListenerState` but the ports."""

    protocol: Protocol
    address: str
    state: ListenerStatus
    owner: str = ""
    owner_listens: bool = False
    detail: str = ""


class Listeners:
    """Binds, answers and counts for one run. Between `hold` and `release` it has one thread."""

    def __init__(self, *, node: str, run_id: bytes, instance: bytes, key: bytes) -> None:
        self._identity = Identity(node, run_id, instance, key)
        self._journal = Journal(node)
        self._udp = UdpListeners(self._identity, self._journal)
        self._tcp: TcpListeners | None = None
        self._strangers: Strangers | None = None
        self._places: set[_Place] = set()
        self._overflows_before = 0

    async def hold(
        self, listens: Sequence[Listen], close: Close = "reset"
    ) -> tuple[ListenerState, ...]:
        """Bind every port that is asked for, and say what became of each.

        A VIP's address (`only_if_local`) that is not on this host is left out. Raises
        `LimitError` where descriptors don't suffice; then nothing stays bound. May be called
        again for more ports: what is held already stays held.
        """
        places = list(dict.fromkeys(_places(listens)))
        fates: dict[_Place, _Fate] = {}
        try:
            self._prepare(sum(place not in self._places for place in places), close)
            for number, place in enumerate(places):
                if number % BINDS_AT_ONCE == BINDS_AT_ONCE - 1:
                    await asyncio.sleep(0)
                fates[place] = await self._hold_one(place)
        except BaseException:  # cancelled as well
            await self.release()
            raise
        return _group(_name_owners(fates).items())

    def seen(self, probe_ids: Collection[str]) -> tuple[Sightings, ...]:
        """What was seen of these probe ids (hexadecimal), and of TCP connections without one.

        Those were accepted and never sent a valid challenge; the newest 20,000 are kept.
        """
        return pack_sightings(self._journal.sightings(probe_ids))

    def confirm(self) -> Confirmation:
        """The listeners that were held without a break until now, and what they counted.

        Ports that dropped something, also in the kernel's own queues, are counted apart.
        """
        counted = list(self._count())
        return Confirmation(
            instance=self._identity.instance.hex(),
            held=_group(
                (
                    _Place(listener.protocol, listener.address, listener.port),
                    _Fate(listener.protocol, listener.address, "listening"),
                )
                for listener, _ in counted
            ),
            counts=_sum_up(counted),
        )

    async def release(self) -> None:
        """Let go of everything: no port is bound and no thread runs afterwards. Repeatable."""
        tcp, self._tcp = self._tcp, None
        strangers, self._strangers = self._strangers, None
        self._places.clear()
        await self._udp.stop()
        if tcp is not None:
            tcp.stop()
        if strangers is not None:
            await strangers.close()

    def _prepare(self, ports: int, close: Close) -> None:
        limit, in_use = raise_descriptor_limit(), open_descriptors()
        # Half of what is left is for the probes that this agent sends at the same time.
        connections = (limit - in_use - ports) // 2
        if connections < MIN_CONNECTIONS:
            needed = in_use + ports + 2 * MIN_CONNECTIONS
            raise LimitError(
                f"holding {ports} ports needs {needed} open files, and the hard limit of this "
                f"process is {limit}: raise it (ulimit -Hn, LimitNOFILE= of a systemd unit)"
            )
        if self._tcp is None:
            self._overflows_before = backlog_overflows()
            self._strangers = Strangers()
            self._tcp = TcpListeners(
                self._identity,
                self._journal,
                max_connections=min(connections, MAX_CONNECTIONS) - MAX_STRANGERS,
                hand_over=self._strangers.offer,
                close=close,
            )

    async def _hold_one(self, place: _Place) -> _Fate:
        protocol, address, port = place
        held = _Fate(protocol, address, "listening")
        if place in self._places:
            return held
        try:
            bound = bind_listener(protocol, address, port)
        except PortOccupied:
            return _Fate(protocol, address, "occupied")
        except BindDenied as denied:
            return _Fate(protocol, address, "denied", detail=str(denied))
        listener = Listener(protocol, address, port)
        if protocol == "udp":
            await self._udp.add(bound, listener)
        elif self._tcp is not None:
            self._tcp.add(bound, listener)
        self._places.add(place)
        return held

    def _count(self) -> Iterator[tuple[Listener, int]]:
        """Every listener that is held, with all that it or the kernel dropped there."""
        if self._tcp is not None and self._tcp.attentive:
            overflowed = backlog_overflows() != self._overflows_before
            for bound, listener in self._tcp.held():
                lost = kernel_drops(bound) if overflowed else 0
                yield listener, listener.dropped + lost
        for listener, lost in self._udp.held():
            yield listener, listener.dropped + lost


def _places(listens: Iterable[Listen]) -> Iterator[_Place]:
    for listen in listens:
        if listen.only_if_local and not is_own_address(listen.address):
            continue
        for port in each_port(listen.ports):
            yield _Place(listen.protocol, listen.address, port)


def _name_owners(fates: dict[_Place, _Fate]) -> dict[_Place, _Fate]:
    """Say of every occupied port who holds it, with one look at the system's sockets."""
    owners = PortOwners() if any(fate.state == "occupied" for fate in fates.values()) else None
    return {
        place: fate
        if owners is None or fate.state != "occupied"
        else _owned(fate, owners.find(*place))
        for place, fate in fates.items()
    }


def _owned(fate: _Fate, owner: Owner) -> _Fate:
    return fate._replace(owner=owner.text, owner_listens=owner.listens)


def _group(fates: Iterable[tuple[_Place, _Fate]]) -> tuple[ListenerState, ...]:
    """One state for all ports that share everything else."""
    ports: dict[_Fate, list[int]] = defaultdict(list)
    for place, fate in fates:
        ports[fate].append(place.port)
    return tuple(
        ListenerState(ports=from_ports(numbers), **fate._asdict())
        for fate, numbers in ports.items()
    )


def _sum_up(counted: Iterable[tuple[Listener, int]]) -> tuple[ListenerCount, ...]:
    """One count for the ports of an address that dropped nothing, and one for the others."""
    groups: dict[tuple[Protocol, str, bool], list[tuple[Listener, int]]] = defaultdict(list)
    for listener, dropped in counted:
        groups[listener.protocol, listener.address, dropped > 0].append((listener, dropped))
    return tuple(
        ListenerCount(
            protocol=protocol,
            address=address,
            ports=from_ports(listener.port for listener, _ in members),
            accepted=sum(listener.accepted for listener, _ in members),
            answered=sum(listener.answered for listener, _ in members),
            dropped=sum(dropped for _, dropped in members),
        )
        for (protocol, address, _), members in groups.items()
    )
