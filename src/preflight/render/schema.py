"""The published JSON Schemas, made from the types: `python -m preflight.render.schema DIRECTORY`.

What a field means is said where it is declared, in the string below it; the schemas repeat
it as the field's description.
"""

import ast
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from preflight.model import cluster, observation, plan
from preflight.model import report as report_module
from preflight.model.report import REPORT_SCHEMA, Report
from preflight.wire import runfile
from preflight.wire.runfile import RUN_SCHEMA, Line

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODULES = (cluster, plan, observation, report_module, runfile)


def report_schema() -> Schema:
    """The schema of a report (JSON Schema 2020-12). Unknown fields are allowed: fields are only
    ever added.
    """
    return _publish(msgspec.json.schema(Report), REPORT_SCHEMA)


def run_file_schema() -> Schema:
    """The schema of each single line of a run file."""
    described = "One line of a run file, which is one JSON object a line."
    return _publish(msgspec.json.schema(Line), RUN_SCHEMA) | {"description": described}


def write_schemas(directory: Path) -> list[Path]:
    """Write `report-1.json` and `run-1.json`, and say which files they are.

    Raises `OSError` where the directory can't be written.
    """
    written = []
    for name, schema in (("report-1.json", report_schema()), ("run-1.json", run_file_schema())):
        path = directory / name
        path.write_text(schema_text(schema), encoding="utf-8")
        written.append(path)
    return written


def schema_text(schema: Schema) -> str:
    """The schema as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _publish(schema: Schema, name: str) -> Schema:
    """With its name, with descriptions of the fields, and in an order that stays the same."""
    for title, definition in schema["$defs"].items():
        for field, value in definition.get("properties", {}).items():
            described = _field_notes().get((title, field))
            if described:
                value["description"] = described
            if field == "schema":
                # It has a default for those who make one in Python; a file always has it.
                definition["required"].insert(0, field)
    definitions = dict(sorted(schema.pop("$defs").items()))
    return {"$schema": _DIALECT, "$id": name, "title": name, **schema, "$defs": definitions}


@cache
def _field_notes() -> dict[tuple[str, str], str]:
    """The strings below the fields of all types, by the names of type and field."""
    return {key: text for module in _MODULES for key, text in _notes_of(module).items()}


def _notes_of(module: ModuleType) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[node.name, name] = " ".join(text.split())
    return found


if __name__ == "__main__":
    for path in write_schemas(Path(*sys.argv[1:2])):
        sys.stdout.write(f"{path}\n")
