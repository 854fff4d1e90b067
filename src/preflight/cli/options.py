"""Options that several commands share, and how they are read."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preflight.errors import ConfigError, PreflightError

if TYPE_CHECKING:
    from preflight.check import Narrowing
    from preflight.model.cluster import Cluster, Profile
    from preflight.model.plan import Limits
    from preflight.model.report import Report


class ReportFormat(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    JSON = "json"


class Close(StrEnum):
    """How TCP connections end."""

    RESET = "reset"
    FIN = "fin"


ClusterOption = Annotated[
    Path,
    typer.Option(
        "--cluster", "-c", readable=False, metavar="FILE", help="The cluster file, cluster.toml."
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="FROM:TO,…",
        help="Only flows between these roles or nodes; repeatable.",
    ),
]
FromOption = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="NODE|ROLE,…", help="Only flows from these; repeatable."),
]
ToOption = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="NODE|ROLE|VIP,…", help="Only flows to these; repeatable."),
]
PortOption = Annotated[
    list[str] | None,
    typer.Option("--port", metavar="PORTS", help="Only these ports, as in 2379-2380; repeatable."),
]
RateOption = Annotated[
    str,
    typer.Option(
        "--rate", metavar="N|max", help="New connections a second in the whole run; max: no limit."
    ),
]
MaxHalfOpenOption = Annotated[
    int,
    typer.Option(
        "--max-half-open",
        min=1,
        max=1_000_000,
        metavar="N",
        help="TCP connections without an answer to their SYN, in the whole run.",
    ),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        min=1,
        max=65_535,
        metavar="N",
        help="Try N ports of each range, spread over it; the others are untested.",
    ),
]
CloseOption = Annotated[
    Close,
    typer.Option(
        "--close",
        help="How TCP connections end: reset, or in order (fin) where resets raise alarms.",
    ),
]


def read_cluster(path: Path) -> "tuple[Cluster, Profile]":
    """The cluster file and its profile, names resolved. Raises `ConfigError`."""
    from preflight.config import load_cluster
    from preflight.net.resolve import resolve_name

    return load_cluster(path, resolve=resolve_name)


def read_narrowing(
    only: list[str] | None, from_: list[str] | None, to: list[str] | None, port: list[str] | None
) -> "Narrowing":
    """The four narrowing options as one value. Raises `ConfigError`."""
    from preflight.check import Narrowing
    from preflight.ports import parse_ports, union

    try:
        ports = union(*(parse_ports(text) for text in port or ()))
    except ValueError as error:
        # Words that are wanted elsewhere: the rules of a profile say "6443/tcp".
        hint = "; leave out the protocol, --port means both" if "/" in "".join(port or ()) else ""
        raise ConfigError(f"{error}{hint}", path="--port") from error
    return Narrowing(
        only=_words(only),
        sources=_words(from_),
        destinations=_words(to),
        ports=ports,
    )


def _words(given: list[str] | None) -> tuple[str, ...]:
    """What a repeatable option was given, where a comma separates words too, as in ports."""
    return tuple(word.strip() for text in given or () for word in text.split(","))


def read_limits(rate: str, max_half_open: int, sample: int | None, close: Close) -> "Limits":
    """The options that bound a run as one value. Raises `ConfigError`."""
    from preflight.model.plan import Limits

    return Limits(
        rate=parse_rate(rate), max_half_open=max_half_open, sample=sample, close=close.value
    )


def parse_rate(text: str) -> float | None:
    """`"5000"`, or None for `"max"`. Raises `ConfigError`."""
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= 1_000_000:
        raise ConfigError(f'"{text}" is neither max nor a number from 1 to 1000000', path="--rate")
    return rate


def print_report(report: "Report", format_: ReportFormat) -> None:
    """The report on stdout.

    A reader that has gone (`| head`) changes nothing: neither what is true nor the exit code.
    Raises `PreflightError` where stdout can't be written for another reason.
    """
    try:
        _write_report(report, format_)
        flush_stdout()
    except (BrokenPipeError, SystemExit):  # SystemExit is how Rich tells of a broken pipe
        silence_stdout()
    except OSError as error:
        raise _unwritable(error) from error


def _write_report(report: "Report", format_: ReportFormat) -> None:
    if format_ is ReportFormat.JSON:
        from preflight.render.json_report import render_json

        print(render_json(report))
        return
    from rich.console import Console

    from preflight.render.table import render_table

    render_table(report, Console(file=sys.stdout))


def flush_stdout() -> None:
    """Write what was printed. Raises `BrokenPipeError`, or `PreflightError` where it can't be."""
    try:
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> PreflightError:
    silence_stdout()
    return PreflightError(f"stdout can't be written: {error.strerror}")


def silence_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere, so that the end of us does not stumble."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
