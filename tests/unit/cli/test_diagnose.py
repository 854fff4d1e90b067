"""`preflight diagnose`: the same report again, and what is no run file."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.program import B, run, sentence, serving, write_cluster


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    file = folder / "run.jsonl"
    cluster = write_cluster(folder)
    with serving(folder / "cluster.agent.key", "--control", B):
        done = run("check", "-c", cluster, "-q", "--output", file, "--format", "json")
    assert done.returncode == 0, done.stderr
    (folder / "report.json").write_text(done.stdout)
    return file


def test_it_prints_the_same_report(run_file: Path) -> None:
    done = run("diagnose", run_file, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((run_file.parent / "report.json").read_text())


def test_it_prints_a_table(run_file: Path) -> None:
    done = run("diagnose", run_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "small" in done.stdout


@pytest.mark.parametrize("lines", range(1, 12, 2))
def test_a_run_that_was_killed_at_any_time(run_file: Path, tmp_path: Path, lines: int) -> None:
    """Also in the middle of a line."""
    whole = run_file.read_bytes().splitlines(keepends=True)
    assert len(whole) > 12
    killed = tmp_path / "killed.jsonl"
    killed.write_bytes(b"".join(whole[:lines]) + whole[lines][:-20])
    done = run("diagnose", killed, "--format", "json")
    assert done.returncode in {0, 3}, done.stderr
    report = json.loads(done.stdout)
    assert report["interrupted"] is True
    flows = report["summary"]["flows"]
    assert (flows["total"], flows["blocked"]) == (2, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a run file"),
        (b"\n\n", "not a run file"),
        (b"name = 'small'\n", "not a run file"),
        (b"\xff\xfe\0\0", "not a run file"),
        (b"{}\n{}\n", "not a run file"),
        (b'{"line": "phase", "phase": {"name": "greet", "elapsed_ms": 1}}\n', "not a run file"),
    ],
)
def test_what_is_no_run_file_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert words in sentence(run("diagnose", file))


def test_a_damaged_run_file_is_one_sentence(run_file: Path, tmp_path: Path) -> None:
    lines = run_file.read_bytes().splitlines(keepends=True)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(b"".join([lines[0], b'{"line": "agent"\n', *lines[1:]]))
    assert "line 2 is damaged" in sentence(run("diagnose", damaged))
    damaged.write_bytes(b"".join([*lines, *lines]))
    assert "a second run begins" in sentence(run("diagnose", damaged))


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    assert "No such file or directory" in sentence(run("diagnose", tmp_path / "nothing"))
    assert "Is a directory" in sentence(run("diagnose", tmp_path))
