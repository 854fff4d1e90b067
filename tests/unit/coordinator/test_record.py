"""The run file: one run at a time, nothing half overwritten."""

from pathlib import Path

import pytest

from preflight.coordinator.record import RunRecord
from preflight.errors import PreflightError
from preflight.model.observation import Phase
from preflight.wire.runfile import PhaseLine, RunLine
from tests.scenarios.cases import SCENARIOS

LINE = PhaseLine(phase=Phase(name="probe", elapsed_ms=1.0))


def test_a_second_run_does_not_touch_the_file_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with RunRecord(path) as first:
        first.write(LINE)
        with pytest.raises(PreflightError, match="another run is writing"):
            RunRecord(path)
        first.write(LINE)
    assert len(path.read_bytes().splitlines()) == 2


def test_a_later_run_begins_with_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    opening = RunLine(version="1", started="", plan=SCENARIOS[0].make().plan())
    for _ in range(2):
        with RunRecord(path) as record:
            record.write(opening)
    assert len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("content", ['name = "prod"\n', "-----BEGIN PRIVATE KEY-----\n", "{"])
def test_only_a_run_file_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(content)
    if content == "{":  # a run that was killed within its first line
        RunRecord(path).close()
        assert path.read_text() == ""
        return
    with pytest.raises(PreflightError, match="is no run file: it is not overwritten"):
        RunRecord(path)
    assert path.read_text() == content


def test_a_full_disk_costs_the_file_and_not_the_run() -> None:
    with RunRecord(Path("/dev/full")) as record:
        record.write(LINE)
        record.write(LINE)
    assert "incomplete: No space left" in record.problem


def test_no_path_writes_nothing() -> None:
    with RunRecord(None) as record:
        record.write(LINE)
    assert not record.problem
