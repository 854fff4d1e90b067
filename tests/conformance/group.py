"""Cases that share one cluster and one run: each has a pair of nodes to itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from preflight.model.plan import Family
from preflight.model.report import FlowRecord, Report
from tests.conformance.expectation import Expected, told
from tests.memory.faults import Fault
from tests.memory.setting import Setting

Table = Mapping[str, Expected]
"""What a report must say of a pair: "30000-30079,30081/tcp" -> what of these ports."""

Plant = Callable[[str, str], Iterable[Fault]]
"""The faults of a pair, by the names of its source and destination."""


@dataclass(frozen=True)
class Case:
    """What one pair of nodes must look like, and the faults that make it so."""

    name: str
    source: str
    destination: str
    table: Table
    faults: Sequence[Fault] = ()
    family: Family = 4


@dataclass(frozen=True)
class Draft:
    """A case that has no pair yet. `table` holds what differs from the group's own."""

    name: str
    plant: Plant
    table: Table


@dataclass(frozen=True)
class Group:
    """A setting with its cases. Pairs without a case must look like `otherwise`."""

    setting: Setting
    cases: Sequence[Case]
    exit_code: int
    otherwise: Table

    restless: frozenset[str] = frozenset()
    """Nodes with something wrong of their own, so that no pair with them is well."""

    def is_well(self, source: str, destination: str) -> bool:
        """Whether nothing but a case of its own can be wrong with a pair."""
        return bool(self.otherwise) and self.restless.isdisjoint({source, destination})

    @property
    def planted(self) -> Setting:
        """The setting with the faults of all cases."""
        every = [fault for case in self.cases for fault in case.faults]
        return replace(self.setting, faults=(*self.setting.faults, *every))


def hand_out(
    drafts: Sequence[Draft], pairs: Iterable[tuple[str, str]], otherwise: Table
) -> Iterator[Case]:
    """Give each draft the next pair."""
    for draft, (source, destination) in zip(drafts, pairs, strict=False):
        yield Case(
            draft.name,
            source,
            destination,
            dict(otherwise) | dict(draft.table),
            tuple(draft.plant(source, destination)),
        )


def table_of(records: Iterable[FlowRecord]) -> dict[str, Expected]:
    """What a report says of these records of one pair."""
    return {f"{record.ports}/{record.protocol}": told(record) for record in records}


def records_of_case(report: Report, case: Case) -> list[FlowRecord]:
    """The records of a case's pair."""
    return [
        record
        for record in report.flows
        if (record.source, record.destination, record.family)
        == (case.source, case.destination, case.family)
    ]
