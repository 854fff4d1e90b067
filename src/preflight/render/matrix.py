"""The matrix source x destination, of nodes or of roles, as plain strings. Pure: no Rich here."""

from typing import NamedTuple

from preflight.model.report import FlowRecord, Report
from preflight.render.marks import Mark, count_flows, mark_of
from preflight.render.naming import Names

MOST_NODES = 12
"""Above so many nodes the matrix is one of roles."""


class Cell(NamedTuple):
    """The worst mark of one source and one destination."""

    mark: Mark
    bad: int
    """How many have this mark: flows, or pairs of nodes in a matrix of roles. 0 where all passed.
    What has a better mark, though not the best, is told below the matrix."""


class Matrix(NamedTuple):
    """Rows are sources, columns are destinations; where there is no cell, nothing is required."""

    of_roles: bool
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    sizes: dict[str, int]
    """A matrix of roles: how many nodes have the role."""
    vips: tuple[str, ...]


def make_matrix(report: Report) -> Matrix:
    """The matrix of a report. Sources that need nothing and destinations that nothing needs are
    left out.
    """
    names = Names(report)
    of_roles = len(names.nodes) > MOST_NODES
    places = _roles_of(names) if of_roles else {}
    held: dict[tuple[str, str], list[FlowRecord]] = {}
    for record in report.flows:
        for row in places.get(record.source, [record.source]):
            for column in places.get(record.destination, [record.destination]):
                held.setdefault((row, column), []).append(record)
    order = [*(names.roles if of_roles else names.nodes), *names.vips]
    rows = {row for row, _ in held}
    columns = {column for _, column in held}
    return Matrix(
        of_roles=of_roles,
        rows=tuple(name for name in order if name in rows),
        columns=tuple(name for name in order if name in columns),
        cells={place: _cell(records, of_roles=of_roles) for place, records in held.items()},
        sizes={role: len(members) for role, members in names.roles.items()} if of_roles else {},
        vips=tuple(names.vips),
    )


def _cell(records: list[FlowRecord], *, of_roles: bool) -> Cell:
    worst = max(map(mark_of, records), default=Mark.PASSED)
    if worst is Mark.PASSED:
        return Cell(worst, 0)
    bad = [record for record in records if mark_of(record) is worst]
    if of_roles:
        return Cell(worst, len({(record.source, record.destination) for record in bad}))
    return Cell(worst, count_flows(bad))


def _roles_of(names: Names) -> dict[str, list[str]]:
    roles: dict[str, list[str]] = {}
    for role, members in names.roles.items():
        for member in members:
            roles.setdefault(member, []).append(role)
    return roles
