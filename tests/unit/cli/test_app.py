"""The program as a whole: help, versions, and ends without a traceback."""

import subprocess
import sys

import pytest

import preflight
from preflight.cli import app as app_module
from preflight.cli.app import main
from preflight.errors import LimitError, PreflightError
from tests.unit.cli.program import run, sentence, shell

COMMANDS = ["serve", "check", "plan", "diagnose", "key", "demo", "schema", "profiles"]


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"preflight {preflight.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout
    if command != "profiles":  # a group: each of its commands has one
        assert f"Example: preflight {command}" in " ".join(done.stdout.split())


def test_help_waits_for_nothing_that_a_command_needs() -> None:
    program = (
        "import sys; import preflight.cli.app\n"
        "heavy = {'asyncio', 'rich.console', 'cryptography', 'psutil', 'preflight.config',\n"
        "         'preflight.lab', 'preflight.check', 'preflight.agent'}\n"
        "print(*sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [["chekc"], ["--verison"], ["diagnose"]])
def test_wrong_words_are_usage_errors(words: list[str]) -> None:
    assert "--help)" in sentence(run(*words))


def test_without_a_word_it_prints_its_help() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_take_no_value(command: str) -> None:
    lines = run(command, "--help").stdout.splitlines()
    flags = [line for line in lines if "<bool>" in line]
    assert all("--help" in line for line in flags)  # that one is typer's own


@pytest.mark.parametrize("error", [PreflightError, LimitError])
def test_what_stops_us_is_one_sentence(
    error: type[PreflightError],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error("it can't be done")

    monkeypatch.setattr(app_module, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "preflight: it can't be done\n")


def test_an_error_of_the_system_names_its_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/etc/shadow")

    monkeypatch.setattr(app_module, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "preflight: /etc/shadow: Permission denied\n"


def test_a_fault_of_our_own_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app_module, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 70
    assert "a fault of preflight, and no verdict" in capsys.readouterr().err


def test_a_closed_stderr_changes_nothing() -> None:
    done = shell('"$@" 2>&-', "profiles")
    assert done.returncode == 0
    assert "apinizer" in done.stdout


def test_ctrl_c_before_anything_began() -> None:
    program = (
        "import sys; from preflight.cli import check_command, options\n"
        "def interrupted(path): raise KeyboardInterrupt\n"
        "options.read_cluster = interrupted\n"
        "sys.argv = ['preflight', 'check', '--cluster', 'x']\n"
        "from preflight.cli.app import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_full_disk_and_a_reader_that_has_gone() -> None:
    full = shell('"$@" >/dev/full', "profiles", "show", "apinizer")
    assert "No space left on device" in sentence(full)
    gone = shell('"$@" | true; exit "${PIPESTATUS[0]}"', "profiles", "show", "apinizer")
    assert gone.stderr == ""
