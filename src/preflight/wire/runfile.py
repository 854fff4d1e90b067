"""The run file, `preflight.run/1`: one JSON object a line, written as things become known.

A run that is killed leaves every line but the one it was writing; reading stops there and
says that the run was interrupted. The plan comes first, so that `diagnose` on any such file
gives each flow a verdict.
"""

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from preflight.errors import PreflightError
from preflight.model.observation import (
    AgentObservation,
    Observations,
    Outcome,
    Phase,
    Sightings,
)
from preflight.model.plan import Plan
from preflight.model.report import Report

RUN_SCHEMA: Literal["preflight.run/1"] = "preflight.run/1"


class RunLine(Struct, frozen=True, kw_only=True, tag="run", tag_field="line"):
    """The first line: what was going to be done, and by which version."""

    schema: Literal["preflight.run/1"] = RUN_SCHEMA
    version: str
    started: str
    plan: Plan


class AgentLine(Struct, frozen=True, kw_only=True, tag="agent", tag_field="line"):
    """What is known of an agent by now; a later line for the same node replaces it."""

    agent: AgentObservation


class OutcomesLine(Struct, frozen=True, kw_only=True, tag="outcomes", tag_field="line"):
    """What a source saw."""

    source: str
    outcomes: tuple[Outcome, ...]


class SightingsLine(Struct, frozen=True, kw_only=True, tag="sightings", tag_field="line"):
    """What a destination saw."""

    node: str
    sightings: tuple[Sightings, ...]


class PhaseLine(Struct, frozen=True, kw_only=True, tag="phase", tag_field="line"):
    """A phase has ended."""

    phase: Phase


class EndLine(Struct, frozen=True, kw_only=True, tag="end", tag_field="line"):
    """The run is over, and this is its report."""

    finished: str
    interrupted: bool
    report: Report


Line: TypeAlias = RunLine | AgentLine | OutcomesLine | SightingsLine | PhaseLine | EndLine

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class RunFile(Struct, frozen=True, kw_only=True):
    """A run file, read."""

    plan: Plan
    observations: Observations
    report: Report | None
    """The report that the run itself printed; None where it was killed before."""


LONGEST_OPENING = 64
"""Bytes of a file that tell whether it is a run file."""
_OPENING = b'{"line":"run","schema":"preflight.run/'


def is_run_file(start: bytes) -> bool:
    """Whether a file that begins so is a run file, or one that was cut off at once."""
    return start[: len(_OPENING)] == _OPENING[: len(start)]


def encode_line(line: Line) -> bytes:
    """One line, with its end."""
    return _encoder.encode(line) + b"\n"


def decode_run(lines: Iterable[bytes]) -> RunFile:
    """Read a whole run file.

    Raises `PreflightError` where it is not one, or where a line that is not the last is damaged.
    """
    found = list(_whole_lines(lines))
    openings = [line for line in found if isinstance(line, RunLine)]
    if not found or found[0] not in openings:
        raise PreflightError("not a run file: it does not begin with a run")
    if len(openings) > 1:
        raise PreflightError("not one run file: a second run begins in it")
    ending = next((line for line in reversed(found) if isinstance(line, EndLine)), None)
    agents = {line.agent.node: line.agent for line in found if isinstance(line, AgentLine)}
    return RunFile(
        plan=openings[0].plan,
        observations=Observations(
            agents=tuple(agents.values()),
            outcomes=tuple(
                one for line in found if isinstance(line, OutcomesLine) for one in line.outcomes
            ),
            sightings=tuple(
                one for line in found if isinstance(line, SightingsLine) for one in line.sightings
            ),
            phases=tuple(line.phase for line in found if isinstance(line, PhaseLine)),
            started=openings[0].started,
            finished=ending.finished if ending else "",
            interrupted=ending.interrupted if ending else True,
        ),
        report=ending.report if ending else None,
    )


def _whole_lines(lines: Iterable[bytes]) -> Iterable[Line]:
    """Each line decoded. A damaged one is forgiven only at the end: a kill cut it off."""
    damaged: tuple[int, msgspec.DecodeError] | None = None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if damaged is not None:
            raise PreflightError(f"run file: line {damaged[0]} is damaged: {damaged[1]}")
        try:
            yield _decoder.decode(text)
        except msgspec.DecodeError as error:
            if number == 1:
                raise PreflightError(
                    f"not a run file: {error} (`check --output` writes one; what "
                    "`check --format json` prints is a report)"
                ) from error
            damaged = (number, error)
