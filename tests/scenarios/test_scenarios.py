"""The golden folders, and that no row of the tables lacks one."""

import msgspec
import pytest

from preflight.diagnosis import diagnose, exit_code
from preflight.model.observation import Observations
from preflight.model.plan import Plan
from preflight.model.report import Cause, Report, Verdict, Where
from tests.scenarios.cases import SCENARIOS
from tests.scenarios.scenario import ROOT, Scenario, rows_of

NEEDS_CAPTURE = {Where.RETURN_PATH, Where.SOURCE_INGRESS}
"""Told apart by captured packets only."""

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)


@every_scenario
def test_report_is_the_golden_one(scenario: Scenario) -> None:
    plan = msgspec.json.decode((scenario.folder / "plan.json").read_bytes(), type=Plan)
    observations = msgspec.json.decode(
        (scenario.folder / "observations.json").read_bytes(), type=Observations
    )
    golden = msgspec.json.decode((scenario.folder / "report.json").read_bytes(), type=Report)

    assert diagnose(plan, observations) == golden


@every_scenario
def test_golden_report_says_what_the_tables_demand(scenario: Scenario) -> None:
    report = msgspec.json.decode((scenario.folder / "report.json").read_bytes(), type=Report)

    assert rows_of(report) == scenario.rows
    expected = {row.ok for row in scenario.rows}
    assert exit_code(report) == (1 if False in expected else 3 if None in expected else 0)


@every_scenario
def test_folder_is_what_regenerate_writes(scenario: Scenario) -> None:
    for name, text in scenario.files().items():
        assert (scenario.folder / name).read_text() == text, "python -m tests.scenarios.regenerate"


def test_every_folder_has_a_scenario() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/report.json")}

    assert folders == {scenario.name for scenario in SCENARIOS}


def test_every_verdict_cause_and_place_has_a_scenario() -> None:
    rows = [row for scenario in SCENARIOS for row in scenario.rows]

    assert {row.verdict for row in rows} == set(Verdict)
    assert {row.cause for row in rows} == {None, *Cause}
    assert {row.where for row in rows} == {None, *Where} - NEEDS_CAPTURE
