"""What a golden scenario is, and its files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec

from preflight.diagnosis import diagnose
from preflight.model.report import Cause, Report, Verdict, Where
from tests.scenarios.world import World

ROOT = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Row:
    """What the tables of the design demand of a record (written by hand, unlike the golden)."""

    ports: str
    verdict: Verdict
    cause: Cause | None = None
    where: Where | None = None
    ok: bool | None = None


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One row of the tables, as a folder of files."""

    name: str
    story: str
    make: Callable[[], World]
    rows: tuple[Row, ...]

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    def files(self) -> dict[str, str]:
        """Everything that the folder holds."""
        world = self.make()
        plan, observations = world.plan(), world.observations()
        return {
            "README.md": f"# {self.name}\n\n{self.story}\n",
            "plan.json": _to_json(plan),
            "observations.json": _to_json(observations),
            "report.json": _to_json(diagnose(plan, observations)),
        }


def rows_of(report: Report) -> tuple[Row, ...]:
    """The part of a report that the tables speak of."""
    return tuple(
        Row(record.ports, record.verdict, record.cause, record.where, record.ok)
        for record in report.flows
    )


def _to_json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"
