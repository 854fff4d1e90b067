"""Attempts and sightings as rows, one object each, and as columns, many in one object.

Of a NodePort range that is cut after the handshake there is an attempt for each port, and a
sighting of each at the other end. What they have in common is said once; what each has of its
own stands in columns, where the n-th entry of each belongs to the n-th row. Columns of unequal
length, which no agent of ours sends, are read as far as the shortest goes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from preflight.model.observation import Attempt, Attempts, Sighting, Sightings


def pack_attempts(rows: Iterable[Attempt]) -> tuple[Attempts, ...]:
    """Attempts that differ only in what columns hold, together."""
    groups: dict[tuple[str, bool, int, bool], list[Attempt]] = defaultdict(list)
    for row in rows:
        groups[row.local_address, row.connected, row.lost_syns, row.unheard].append(row)
    return tuple(
        Attempts(
            probe_ids=tuple(row.probe_id for row in members),
            ports=tuple(row.port for row in members),
            local_ports=tuple(row.local_port for row in members),
            local_address=local_address,
            connected=connected,
            lost_syns=lost_syns,
            unheard=unheard,
        )
        for (local_address, connected, lost_syns, unheard), members in groups.items()
    )


def each_attempt(groups: Iterable[Attempts]) -> Iterator[Attempt]:
    """Every attempt by itself."""
    for group in groups:
        rows = zip(group.probe_ids, group.ports, group.local_ports, strict=False)
        for probe_id, port, local_port in rows:
            yield Attempt(
                probe_id=probe_id,
                port=port,
                local_address=group.local_address,
                local_port=local_port,
                connected=group.connected,
                lost_syns=group.lost_syns,
                unheard=group.unheard,
            )


def pack_sightings(rows: Iterable[Sighting]) -> tuple[Sightings, ...]:
    """Sightings that differ only in what columns hold, together."""
    groups: dict[tuple[object, ...], list[Sighting]] = defaultdict(list)
    for row in rows:
        challenged = row.probe_id is not None
        key = (row.node, row.protocol, row.address, row.source_address, row.answered, challenged)
        groups[key].append(row)
    return tuple(
        Sightings(
            node=members[0].node,
            protocol=members[0].protocol,
            address=members[0].address,
            source_address=members[0].source_address,
            answered=members[0].answered,
            ports=tuple(row.port for row in members),
            source_ports=tuple(row.source_port for row in members),
            probe_ids=tuple(row.probe_id for row in members if row.probe_id is not None),
        )
        for members in groups.values()
    )


def each_sighting(groups: Iterable[Sightings]) -> Iterator[Sighting]:
    """Every sighting by itself."""
    for group in groups:
        probe_ids = group.probe_ids or (None,) * len(group.ports)
        rows = zip(probe_ids, group.ports, group.source_ports, strict=False)
        for probe_id, port, source_port in rows:
            yield Sighting(
                node=group.node,
                protocol=group.protocol,
                address=group.address,
                port=port,
                source_address=group.source_address,
                source_port=source_port,
                probe_id=probe_id,
                answered=group.answered,
            )
