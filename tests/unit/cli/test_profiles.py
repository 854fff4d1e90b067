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


@pytest.mark.parametrize("width", [160, 80])
def test_show_has_every_rule_and_domain_and_source(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_tables, "WIDTH", width)
    text = run("show", "apinizer").stdout
    profile = load_profile("apinizer")
    for rule in profile.rules:
        assert rule.name in text
        assert rule.source_text in text
    for domain in profile.domains:
        assert domain.pattern in text
    assert "30000-32767/tcp" in text
    assert "…" not in text  # nothing is cut
    assert "[1]" in text
    assert "why [source]" in text


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
