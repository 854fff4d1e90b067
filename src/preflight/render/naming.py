"""Names for sets of nodes, so that one line can speak of forty of them."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from preflight.diagnosis.naming import name_both, name_set
from preflight.model.report import Report

Pair = tuple[str, str]
"""A source and a destination."""


class Box(NamedTuple):
    """Every one of `sources` with every one of `destinations`, but no node with itself."""

    sources: frozenset[str]
    destinations: frozenset[str]


class Names:
    """The nodes of a report in its order, and the roles they have."""

    def __init__(self, report: Report) -> None:
        self.nodes = [agent.node for agent in report.agents]
        self.roles: dict[str, list[str]] = {}
        for agent in report.agents:
            for role in agent.roles:
                self.roles.setdefault(role, []).append(agent.node)
        flowing = dict.fromkeys(flow.destination for flow in report.flows)
        self.vips = [name for name in flowing if name not in self.nodes]
        self._order = {name: place for place, name in enumerate([*self.nodes, *self.vips])}

    def ordered(self, names: Iterable[str]) -> list[str]:
        """In the order of the report."""
        return sorted(names, key=lambda name: (self._order.get(name, len(self._order)), name))

    def of(self, names: Collection[str], but: Collection[str] = ()) -> str:
        """A set of nodes in words: whole roles by their role, the others by name.

        `but` is left out of the count: "2 other workers", where the third is the destination.
        """
        return name_set(self.ordered(set(names)), self.nodes, self.roles, but)

    def both(self, box: Box) -> str:
        """`"2 workers → db1"`, `"3 control-plane nodes → each other"`."""
        ends = (self.ordered(box.sources), self.ordered(box.destinations))
        return " → ".join(name_both(*ends, self.nodes, self.roles))


def boxes(pairs: Iterable[Pair]) -> list[Box]:
    """Few boxes that hold exactly these pairs, each pair once.

    Destinations with the same sources share a box. A node is never its own source, so where
    all of a role reach each other the sources differ by just the destination: such ones
    are compared with the destination added.
    """
    sources: dict[str, set[str]] = {}
    for source, destination in pairs:
        sources.setdefault(destination, set()).add(source)
    closed: dict[frozenset[str], list[str]] = {}
    for destination, found in sources.items():
        closed.setdefault(frozenset(found | {destination}), []).append(destination)
    grouped: dict[frozenset[str], list[str]] = {
        together: members for together, members in closed.items() if len(members) > 1
    }
    taken = {name for members in grouped.values() for name in members}
    for destination, found in sources.items():
        if destination not in taken:
            grouped.setdefault(frozenset(found), []).append(destination)
    return [Box(found, frozenset(members)) for found, members in grouped.items()]
