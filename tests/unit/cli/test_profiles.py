"""`preflight profiles`."""

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from preflight.cli import profile_tables
from preflight.cli.app import app
from preflight.config import load_profile
from preflight.errors import ConfigError


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["profiles", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_it_lists_the_built_in_ones() -> None:
    text = run().stdout
    for name in ("apinizer", "flannel", "kubernetes"):
        assert name in text
    assert "the pod network between all cluster nodes" in text


@pytest.mark.parametrize("width", [40, 80, 100, 120, 130, 160, 200])
def test_show_has_every_rule_and_domain_and_source(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = run("show", "apinizer").stdout
    profile = load_profile("apinizer")
    said = text.split()
    for rule in profile.rules:
        assert rule.name in said
        assert rule.source_text.split()[0] in said
    for domain in profile.domains:
        assert domain.pattern in said
        assert width < 80 or set(domain.hosts) <= set(said)  # whole names, where they have room
    assert "30000-32767/tcp" in text
    assert "…" not in text  # nothing is cut
    assert "[1]" in text
    assert "profile" not in said or "kubernetes" in said
    assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_whole_rows_unless_columns_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert profile_tables.stdout_console().width == 160
    monkeypatch.setenv("COLUMNS", "72")
    assert profile_tables.stdout_console().width == 72


def test_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match='did you mean "flannel"'):
        run("show", "flanell")
    assert capsys.readouterr().out == ""


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "91")
    console = profile_tables.stdout_console()
    assert isinstance(console, Console)
    assert console.width == 91
