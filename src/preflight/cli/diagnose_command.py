"""`preflight diagnose`: the report of a run file, again. Touches no network."""

from pathlib import Path
from typing import Annotated

import typer

from preflight.cli.options import ReportFormat, print_report
from preflight.errors import PreflightError


def diagnose(
    run_file: Annotated[
        Path, typer.Argument(metavar="RUNFILE", readable=False, help="Written by check --output.")
    ],
    format_: Annotated[
        ReportFormat, typer.Option("--format", help="The report on stdout: table or json.")
    ] = ReportFormat.TABLE,
    strict: Annotated[
        bool, typer.Option("--strict", metavar="", help="Degraded flows fail too.")
    ] = False,
) -> None:
    """Print the report of a run file, also of a run that was killed in the middle.

    Exit codes as for `check`.

    Example: preflight diagnose evening.jsonl --format json
    """
    from preflight.diagnosis import diagnose as judge
    from preflight.diagnosis import exit_code
    from preflight.wire.runfile import decode_run

    try:
        with run_file.open("rb") as lines:
            run = decode_run(lines)
    except PreflightError as error:
        raise PreflightError(f"{run_file}: {error}") from error
    except OSError as error:
        raise PreflightError(f"{run_file} can't be read: {error.strerror}") from error
    report = judge(run.plan, run.observations, strict=strict)
    print_report(report, format_)
    raise typer.Exit(exit_code(report))
