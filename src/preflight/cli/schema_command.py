"""`preflight schema`: the published JSON Schemas, from the types themselves."""

import json
from enum import StrEnum
from typing import Annotated

import typer


class SchemaName(StrEnum):
    """What has a schema."""

    REPORT = "report"
    RUN = "run"


def schema(
    name: Annotated[SchemaName, typer.Argument(help="report, or run for a line of a run file.")],
) -> None:
    """Print the JSON Schema of the report, or of a run file's lines.

    Example: preflight schema report > report.schema.json
    """
    from preflight.render.schema import report_schema, run_file_schema

    made = report_schema() if name is SchemaName.REPORT else run_file_schema()
    print(json.dumps(made, indent=2))
