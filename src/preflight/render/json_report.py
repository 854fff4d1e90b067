"""The report as JSON, `preflight.report/1`: for programs, and to be kept."""

import msgspec

from preflight.errors import ConfigError
from preflight.model.report import Report

_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def render_json(report: Report) -> str:
    """The report, indented by two, in the order of its fields, with a newline at its end.

    What is not known is `null`; only `evidence` leaves out what it has nothing to say about.
    """
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def read_report(data: bytes) -> Report:
    """Read what `render_json` wrote, by this version or a later one (unknown fields are skipped).

    Raises `ConfigError` where it is not a report, with the path to what is wrong.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ConfigError(f"not a report: {error}") from error
