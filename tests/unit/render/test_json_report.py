import json
from collections.abc import Callable

import pytest

from preflight.errors import ConfigError
from preflight.model.report import Report
from preflight.render.json_report import read_report, render_json
from tests.unit.render.samples import clean, forty, mixed


@pytest.mark.parametrize("make", [clean, mixed, forty])
def test_what_is_written_is_read_back(make: Callable[[], Report]) -> None:
    text = render_json(make())
    assert read_report(text.encode()) == make()
    assert render_json(read_report(text.encode())) == text


def test_fields_and_nulls() -> None:
    report = json.loads(render_json(mixed()))
    assert next(iter(report)) == "schema"
    assert report["schema"] == "preflight.report/1"
    blocked = next(one for one in report["flows"] if one["cause"] == "reset")
    assert blocked["verdict"] == "blocked"
    assert blocked["reported_by"] is None
    assert blocked["rtt_ms"] is None
    assert "icmp" not in blocked["evidence"]
    assert report["domains"] == []


def test_unknown_fields_of_a_later_version_are_skipped() -> None:
    later = json.loads(render_json(clean())) | {"something_new": 1}
    assert read_report(json.dumps(later).encode()) == clean()


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b'{"schema": "preflight.report/2"}'])
def test_what_is_no_report(data: bytes) -> None:
    with pytest.raises(ConfigError, match="not a report"):
        read_report(data)
