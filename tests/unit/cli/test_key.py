"""`preflight key`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from preflight.cli.app import app
from preflight.errors import KeyFileError

runner = CliRunner()


def test_it_writes_two_files_and_says_where_each_belongs(tmp_path: Path) -> None:
    out = tmp_path / "cluster.key"
    result = runner.invoke(app, ["key", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [str(out), str(tmp_path / "cluster.agent.key")]
    assert "copy it to every node" in result.stderr
    assert out.stat().st_mode & 0o777 == 0o600


def test_it_never_overwrites_without_force(tmp_path: Path) -> None:
    out = tmp_path / "cluster.key"
    runner.invoke(app, ["key", "--out", str(out)], catch_exceptions=False)
    before = out.read_text()
    with pytest.raises(KeyFileError, match="without --force"):
        runner.invoke(app, ["key", "--out", str(out)], catch_exceptions=False)
    assert out.read_text() == before
    runner.invoke(app, ["key", "--out", str(out), "--force"], catch_exceptions=False)
    assert out.read_text() != before
