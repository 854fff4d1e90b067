"""A probe's ports, cut into cells: ports of one cell have the same evidence.

Everything that is known of a port is known of a range of ports, so the 2,768 ports of a
NodePort range are a handful of cells, whatever happened to them.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec import Struct

from preflight.diagnosis.denial import OwnDenial, ports_denied_alike
from preflight.diagnosis.destination import End, PortFact, end_of, port_facts
from preflight.diagnosis.haste import Haste, hasty_ports
from preflight.diagnosis.icmp import shared_errors
from preflight.diagnosis.index import Index
from preflight.diagnosis.joining import Seen, ports_by_sight
from preflight.model.observation import Icmp, Outcome
from preflight.model.plan import Flow, Probe
from preflight.ports import Ranges, normalise, union

Layer = TypeVar("Layer")


class Cell(Struct, frozen=True, kw_only=True):
    """Ports of one probe about which the same things are known."""

    ports: Ranges
    outcomes: tuple[Outcome, ...]
    end: End
    seen: Seen | None = None
    """What the listeners saw of unanswered attempts; None: no attempt is listed."""
    shared_icmp: Icmp | None = None
    """Silent, but refused like its neighbours: the error that they got."""
    denied_alike: bool = False
    """TCP: the source's own firewall denies UDP there, and may have dropped this as well."""
    hasty: bool = False
    """Failed, as did others that worked when they were tried slowly."""


def cut_cells(probe: Probe, flows: Iterable[Flow], index: Index) -> tuple[Cell, ...]:
    """The cells of a probe, which cover each of its ports exactly once."""
    outcomes = index.outcomes.get(probe.id, ())
    layers: list[tuple[Outcome | PortFact | Seen | Icmp | Haste | OwnDenial, Ranges]] = [
        (outcome, outcome.ports) for outcome in outcomes
    ]
    layers += port_facts(probe, index)
    layers += ports_by_sight(probe, index)
    flows = tuple(flows)
    layers += shared_errors(flows, outcomes)
    layers.append((Haste(), hasty_ports(flows, outcomes)))
    layers.append((OwnDenial(), ports_denied_alike(probe, outcomes, index)))
    cells = []
    for known, ports in partition(probe.ports, layers):
        cells.append(
            Cell(
                ports=ports,
                outcomes=tuple(one for one in known if isinstance(one, Outcome)),
                end=end_of((one for one in known if isinstance(one, PortFact)), probe, index),
                seen=next((one for one in known if isinstance(one, Seen)), None),
                shared_icmp=next((one for one in known if isinstance(one, Icmp)), None),
                denied_alike=any(isinstance(one, OwnDenial) for one in known),
                hasty=any(isinstance(one, Haste) for one in known),
            )
        )
    return tuple(cells)


def held_ports(cells: Iterable[Cell]) -> Ranges:
    """Ports whose listener was up all the time: what was lost there, was lost on the way."""
    return union(*(cell.ports for cell in cells if cell.end.held))


def partition(
    ports: Ranges, layers: Sequence[tuple[Layer, Ranges]]
) -> list[tuple[tuple[Layer, ...], Ranges]]:
    """Cut `ports` by which of the layers cover them. One sweep over all borders."""
    borders: list[tuple[int, int]] = []
    for number, (_, covered) in enumerate([(None, ports), *layers]):
        for first, last in normalise(covered):
            borders += ((first, number), (last + 1, number))
    borders.sort()
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    active: set[int] = set()
    start = 0
    for position, number in borders:
        if position > start and 0 in active:
            found.setdefault(tuple(sorted(active)), []).append((start, position - 1))
        start = position
        active ^= {number}
    return [
        (tuple(layers[number - 1][0] for number in key[1:]), normalise(ranges))
        for key, ranges in found.items()
    ]
