import io
import os
import pty
import sys

import pytest
from rich.console import Console

from preflight.cli.live import Live, make_observer
from preflight.coordinator.observer import RunObserver


class Terminal(io.StringIO):
    """What a terminal is to Rich."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, text: str) -> int:
        del text
        raise BrokenPipeError


class Clock:
    """Shows what it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tell_a_run(observer: RunObserver) -> None:
    observer.phase("greet", 5.0)
    observer.agent("m1", "ready", "")
    observer.agent("w1", "refused", "has\x1b[2J another key")
    observer.agent("w1", "refused", "has\x1b[2J another key")
    observer.phase("listen", 5.0)
    observer.listening("m1", 5, 6)
    observer.phase("probe", 8.0)
    observer.progress("m1", 3, 10)
    observer.warn("slow disk")
    observer.finished()


def shown(live: Live) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(live)
    return capture.get()


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with make_observer(stream, nodes=["m1", "w1"]) as observer:
        tell_a_run(observer)
    assert stream.getvalue().splitlines() == [
        "preflight: greeting the agents (at most 5 s)",
        "preflight: agent of w1 is refused: has [2J another key",
        "preflight: opening the listeners (at most 5 s)",
        "preflight: m1 holds 5 of 6 ports",
        "preflight: probing (at most 8 s)",
        "preflight: warning: slow disk",
    ]
    assert capsys.readouterr() == ("", "")


def test_force_color_does_not_make_a_terminal_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with make_observer(stream) as observer:
        tell_a_run(observer)
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with make_observer(stream) as observer:
        tell_a_run(observer)
    assert stream.getvalue().startswith("preflight: greeting the agents")
    assert "\x1b" not in stream.getvalue()


def test_quiet_says_what_is_not_as_it_should_be_and_no_more() -> None:
    stream = Terminal()
    with make_observer(stream, quiet=True) as observer:
        tell_a_run(observer)
    assert stream.getvalue().splitlines() == [
        "preflight: agent of w1 is refused: has [2J another key",
        "preflight: m1 holds 5 of 6 ports",
        "preflight: warning: slow disk",
    ]


def test_what_the_display_shows() -> None:
    clock = Clock()
    live = Live(Console(file=io.StringIO()), ["m1", "m2", "w1"], clock)
    assert shown(live).strip() == ""
    live.phase("greet", 5.0)
    live.agent("m1", "ready", "")
    live.agent("m2", "ready", "")
    clock.now += 2
    assert "greeting the agents, at most 3 s more" in shown(live)
    assert "2 of 3 ready, missing: w1" in shown(live)
    live.phase("listen", 5.0)
    live.listening("m2", 6, 6)
    assert "1 of 3 listening, missing: m1 and w1" in shown(live)
    live.phase("probe", 8.0)
    assert "probes" not in shown(live)
    live.progress("m1", 1_000, 2_000)
    live.progress("m2", 500, 1_000)
    live.progress("m2", 600, 1_000)
    assert "1,600 of 3,000" in shown(live)
    clock.now += 20
    assert "probing, at most 0 s more" in shown(live)
    live.finished()
    assert shown(live).strip() == ""


def test_a_terminal_is_left_clean_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def interrupted_run() -> None:
        with make_observer(stream, nodes=["m1"]) as observer:
            tell_a_run(observer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    text = stream.getvalue()
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "agent of w1 is refused: has [2J another key" in text
    assert text.count("agent of w1 is refused") == 1
    assert "warning: slow disk" in text
    assert capsys.readouterr() == ("", "")


def test_stdout_is_left_alone_on_a_real_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    controller, terminal = pty.openpty()
    try:
        with os.fdopen(terminal, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with make_observer(stream, nodes=["m1"]) as observer:
                tell_a_run(observer)
                sys.stdout.write("the report\n")
            stream.flush()
            drawn = os.read(controller, 65_536).decode()
    finally:
        os.close(controller)
    assert "warning: slow disk" in drawn
    assert "the report" not in drawn
    assert "\x1b[3" not in drawn, "NO_COLOR was not respected"
    assert capsys.readouterr().out == "the report\n"


def test_a_display_that_fails_does_not_spoil_the_run() -> None:
    with make_observer(Broken()) as observer:
        tell_a_run(observer)
    closed = io.StringIO()
    closed.close()
    with make_observer(closed) as observer:
        tell_a_run(observer)
