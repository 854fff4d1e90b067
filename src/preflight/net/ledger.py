"""What came with a valid challenge, packed: 27 bytes a sighting, as objects 300.

Fifty sources over the NodePort range are 138,400 sightings, of which the coordinator asks for
a few. They would be the larger part of an agent's memory.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from preflight.wire.challenge import ID_BYTES

# Probe id, numbers of listener and source address, source port; then whether it was answered.
_ENTRY = struct.Struct("=16sIIH")
_SIZE = _ENTRY.size + 1


class Entry(NamedTuple):
    """One line of the ledger. The two numbers are its user's own."""

    listener: int
    source: int
    source_port: int
    answered: bool


class Ledger:
    """Entries by probe id, several of one id if need be, and at most `room` in all.

    Entries are numbered from 0 and lie one after the other. A hash table with open addressing
    leads from a probe id to its entries: ids are random, so their own bits are the hash.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._entries = bytearray()
        self._mask = (1 << (2 * room).bit_length()) - 1  # never more than half full
        # One more than an entry's number; 0 is a free slot. Untouched pages take no memory.
        self._slots = memoryview(bytearray(4 * (self._mask + 1))).cast("I")

    def __len__(self) -> int:
        return len(self._entries) // _SIZE

    def add(
        self, probe_id: bytes, listener: int, source: int, source_port: int, *, most: int
    ) -> int | None:
        """The number of the new entry. None: there is no room, or `most` have this id already."""
        number = len(self)
        *earlier, (_, slot) = self._walk(probe_id)
        if number >= self._room or len(earlier) >= most:
            return None
        self._entries += _ENTRY.pack(probe_id, listener, source, source_port) + b"\0"
        self._slots[slot] = number + 1
        return number

    def mark_answered(self, number: int) -> None:
        """The answer to what this entry tells of was sent."""
        self._entries[number * _SIZE + _ENTRY.size] = 1

    def find(self, probe_id: bytes) -> Iterator[Entry]:
        """The entries of this id, in order of arrival. Other lengths than an id's have none."""
        if len(probe_id) != ID_BYTES:
            return
        for number, _ in self._walk(probe_id):
            if number is not None:
                begin = number * _SIZE
                _, listener, source, port = _ENTRY.unpack_from(self._entries, begin)
                yield Entry(listener, source, port, bool(self._entries[begin + _ENTRY.size]))

    def _walk(self, probe_id: bytes) -> Iterator[tuple[int | None, int]]:
        """(Number, slot) of each entry with this id, and at the end (None, the next free slot)."""
        slot = int.from_bytes(probe_id[:4]) & self._mask
        while taken := self._slots[slot]:
            if self._entries.startswith(probe_id, (taken - 1) * _SIZE):
                yield taken - 1, slot
            slot = (slot + 1) & self._mask
        yield None, slot
