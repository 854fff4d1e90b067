import json
from collections.abc import Callable
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from preflight.model.observation import AgentObservation, Outcome, Phase, Sightings
from preflight.model.plan import Limits, Plan
from preflight.model.report import Report
from preflight.render.json_report import render_json
from preflight.render.schema import report_schema, run_file_schema, write_schemas
from preflight.wire.runfile import (
    AgentLine,
    EndLine,
    Line,
    OutcomesLine,
    PhaseLine,
    RunLine,
    SightingsLine,
    encode_line,
)
from tests.unit.render.samples import clean, forty, mixed

PUBLISHED = Path(__file__).parents[3] / "docs" / "schemas"
PLAN = Plan(
    run_id="0" * 32,
    cluster="prod",
    profiles=("apinizer",),
    nodes=(),
    vips=(),
    rules=(),
    flows=(),
    listens=(),
    probes=(),
    limits=Limits(),
)
SIGHTINGS = Sightings(
    node="w1",
    protocol="tcp",
    address="10.0.1.1",
    ports=(1,),
    source_address="10.0.1.2",
    source_ports=(2,),
    probe_ids=("aa",),
    answered=False,
)
LINES: list[Line] = [
    RunLine(version="0.1.0", started="2025-01-01T10:00:00Z", plan=PLAN),
    AgentLine(agent=AgentObservation(node="w1", state="ready")),
    OutcomesLine(source="w1", outcomes=(Outcome(probe=1, ports=((1, 2),), failure=None),)),
    SightingsLine(node="w1", sightings=(SIGHTINGS,)),
    PhaseLine(phase=Phase(name="greet", elapsed_ms=1.0)),
    EndLine(finished="2025-01-01T10:00:02Z", interrupted=False, report=mixed()),
]


def test_published_schemas_are_up_to_date(tmp_path: Path) -> None:
    for path in write_schemas(tmp_path):
        published = (PUBLISHED / path.name).read_text(encoding="utf-8")
        assert published == path.read_text(encoding="utf-8"), (
            f"docs/schemas/{path.name} is stale: run python -m preflight.render.schema docs/schemas"
        )


@pytest.mark.parametrize("make", [report_schema, run_file_schema])
def test_they_are_schemas(make: Callable[[], dict[str, object]]) -> None:
    jsonschema.Draft202012Validator.check_schema(make())


@pytest.mark.parametrize("make", [clean, mixed, forty])
def test_reports_follow_theirs(make: Callable[[], Report]) -> None:
    jsonschema.validate(json.loads(render_json(make())), report_schema())


@pytest.mark.parametrize(
    ("field", "value"),
    [("schema", "preflight.report/2"), ("interrupted", "no"), ("flows", [{"verdict": "fine"}])],
)
def test_what_is_no_report_does_not(field: str, value: object) -> None:
    wrong = json.loads(render_json(clean())) | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, report_schema())
    del wrong["schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, report_schema())


@pytest.mark.parametrize("line", LINES, ids=lambda line: type(line).__name__)
def test_lines_of_a_run_file_follow_theirs(line: Line) -> None:
    jsonschema.validate(json.loads(encode_line(line)), run_file_schema())


def test_a_line_of_another_kind_does_not() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"line": "other"}, run_file_schema())


def test_types_and_fields_are_described() -> None:
    definitions = run_file_schema()["$defs"]
    assert definitions["Report"]["description"] == Report.__doc__
    described = definitions["Outcome"]["properties"]["rtt_ms"]["description"]
    assert described.startswith("Median time from first SYN")
