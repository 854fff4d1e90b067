"""What listeners saw, kept for the question that comes after the probing.

The TCP side writes from its own thread while the event loop reads, hence the lock.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from preflight.model.cluster import Protocol
from preflight.model.observation import Sighting

MAX_CLAIMED = 500_000
"""Valid challenges remembered: about 200 bytes each, 180 sources over the NodePort range."""
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
    answered: bool = False


class Journal:
    """Every sighting of one run, bounded; what the bounds push out counts as dropped."""

    def __init__(
        self, node: str, *, max_claimed: int = MAX_CLAIMED, max_unclaimed: int = MAX_UNCLAIMED
    ) -> None:
        self._node = node
        self._max_claimed = max_claimed
        self._max_unclaimed = max_unclaimed
        self._claimed: dict[bytes, tuple[Seen, ...]] = {}
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
            earlier = self._claimed.get(probe_id, ())
            if len(earlier) >= MAX_REPEATS or (
                not earlier and len(self._claimed) >= self._max_claimed
            ):
                seen.listener.dropped += 1
            else:
                self._claimed[probe_id] = (*earlier, seen)

    def sightings(self, probe_ids: Collection[str]) -> tuple[Sighting, ...]:
        """The sightings of these ids (hexadecimal), and those that have none."""
        with self._lock:
            found = [
                self._sighting(seen, probe_id)
                for probe_id in probe_ids
                for seen in self._claimed.get(_from_hex(probe_id), ())
            ]
            found += [self._sighting(seen, None) for seen in self._unclaimed]
        return tuple(found)

    def _sighting(self, seen: Seen, probe_id: str | None) -> Sighting:
        return Sighting(
            node=self._node,
            protocol=seen.listener.protocol,
            address=seen.listener.address,
            port=seen.listener.port,
            source_address=seen.source_address,
            source_port=seen.source_port,
            probe_id=probe_id,
            answered=seen.answered,
        )


def _from_hex(probe_id: str) -> bytes:
    try:
        return bytes.fromhex(probe_id)
    except ValueError:
        return b""  # no probe id at all, so nobody has seen it
