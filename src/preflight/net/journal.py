"""What listeners saw, kept for the question that comes after the probing.

The TCP side writes from its own thread while the event loop reads, hence the lock.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from preflight.model.cluster import Protocol
from preflight.model.observation import Sighting
from preflight.net.ledger import Ledger

MAX_CLAIMED = 500_000
"""Valid challenges remembered: 180 sources over the NodePort range, 18 MB."""
MAX_UNCLAIMED = 20_000
"""Connections without a valid challenge remembered: the newest."""
MAX_REPEATS = 8
"""Different sightings of one probe id: a source never sends one twice, a replayer may."""


@dataclass(slots=True, eq=False)
class Listener:
    """One held address and port, with its counts (see `model.observation.ListenerCount`)."""

    protocol: Protocol
    address: str
    port: int
    accepted: int = 0
    answered: int = 0
    dropped: int = 0


@dataclass(slots=True, eq=False)
class Seen:
    """One connection or datagram that came to a listener."""

    listener: Listener
    source_address: str
    source_port: int
    entry: int | None = None
    """Its number in the ledger, once it has sent a valid challenge."""


class Journal:
    """Every sighting of one run, bounded; what the bounds push out counts as dropped."""

    def __init__(
        self, node: str, *, max_claimed: int = MAX_CLAIMED, max_unclaimed: int = MAX_UNCLAIMED
    ) -> None:
        self._node = node
        self._max_unclaimed = max_unclaimed
        self._claimed = Ledger(max_claimed)
        self._listeners: dict[Listener, int] = {}  # each with its number in the ledger
        self._sources: dict[str, int] = {}  # addresses, the same
        self._unclaimed: dict[Seen, None] = {}  # in order of arrival
        self._lock = threading.Lock()

    def accept(self, listener: Listener, source_address: str, source_port: int) -> Seen:
        """A connection was accepted, and has not said yet what it is."""
        seen = Seen(listener, source_address, source_port)
        with self._lock:
            self._unclaimed[seen] = None
            if len(self._unclaimed) > self._max_unclaimed:
                oldest = next(iter(self._unclaimed))
                del self._unclaimed[oldest]
                oldest.listener.dropped += 1
        return seen

    def claim(self, seen: Seen, probe_id: bytes) -> None:
        """A valid challenge with this probe id came on the connection or in the datagram."""
        with self._lock:
            self._unclaimed.pop(seen, None)
            seen.entry = self._claimed.add(
                probe_id,
                self._listeners.setdefault(seen.listener, len(self._listeners)),
                self._sources.setdefault(seen.source_address, len(self._sources)),
                seen.source_port,
                most=MAX_REPEATS,
            )
        if seen.entry is None:
            seen.listener.dropped += 1

    def note_answered(self, seen: Seen) -> None:
        """The answer to what it claimed has left."""
        seen.listener.answered += 1
        if seen.entry is not None:
            self._claimed.mark_answered(seen.entry)

    def sightings(self, probe_ids: Collection[str]) -> tuple[Sighting, ...]:
        """The sightings of these ids (hexadecimal), and those that have none."""
        with self._lock:
            listeners, sources = list(self._listeners), list(self._sources)
            found = [
                self._sighting(
                    listeners[entry.listener],
                    sources[entry.source],
                    entry.source_port,
                    probe_id=probe_id,
                    answered=entry.answered,
                )
                for probe_id in probe_ids
                for entry in self._claimed.find(_from_hex(probe_id))
            ]
            found += [
                self._sighting(seen.listener, seen.source_address, seen.source_port)
                for seen in self._unclaimed
            ]
        return tuple(found)

    def _sighting(
        self,
        listener: Listener,
        source_address: str,
        source_port: int,
        *,
        probe_id: str | None = None,
        answered: bool = False,
    ) -> Sighting:
        return Sighting(
            node=self._node,
            protocol=listener.protocol,
            address=listener.address,
            port=listener.port,
            source_address=source_address,
            source_port=source_port,
            probe_id=probe_id,
            answered=answered,
        )


def _from_hex(probe_id: str) -> bytes:
    try:
        return bytes.fromhex(probe_id)
    except ValueError:
        return b""  # no probe id at all, so nobody has seen it
