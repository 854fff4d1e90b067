"""A run as it goes, on stderr: drawn with Rich on a terminal, else in plain lines.

Nothing here may spoil a run: whatever goes wrong while showing (a closed terminal, a broken
pipe) ends the showing, and not the run.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from preflight.coordinator.observer import RunObserver, SilentObserver
from preflight.diagnosis.naming import listed
from preflight.render.words import PHASES

_REFRESHES = 8
"""A second: enough that the clock runs smoothly."""
_BAR = 24


class PlainLines:
    """One line a phase, and one an agent that is not ready: for logs and pipes.

    `quiet`: only what is not as it should be.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._told: dict[str, tuple[str, str]] = {}

    def phase(self, name: str, bound: float) -> None:
        """Say which phase begins, and how long it may take."""
        if not self._quiet:
            self._line(f"{PHASES.get(name, name)} (at most {bound:.3g} s)")

    def agent(self, node: str, state: str, detail: str) -> None:
        """Say that an agent is not ready; once for each state."""
        if self._told.get(node) == (state, detail):
            return
        self._told[node] = (state, detail)
        if state != "ready":
            self._line(f"agent of {node} is {state}" + (f": {detail}" if detail else ""))

    def listening(self, node: str, held: int, wanted: int) -> None:
        """Say that an agent could not hold all its ports."""
        if held < wanted:
            self._line(f"{node} holds {held:,} of {wanted:,} ports")

    def progress(self, node: str, finished: int, total: int) -> None:
        """Say nothing: a log is not a display."""

    def warn(self, text: str) -> None:
        """Say it."""
        self._line(f"warning: {text}")

    def finished(self) -> None:
        """Say nothing: the report follows."""

    def _line(self, text: str) -> None:
        self._stream.write(f"preflight: {_printable(text)}\n")
        self._stream.flush()


class Live:
    """A few lines at the bottom of a terminal, redrawn by a thread, gone at the end.

    What should stay (agents that are not ready, warnings) is printed above them.
    """

    def __init__(
        self, console: Console, nodes: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, str] = dict.fromkeys(nodes, "")
        self._listening: dict[str, tuple[int, int]] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        self._phase = ""
        self._ends = 0.0

    def phase(self, name: str, bound: float) -> None:
        """Begin the phase's clock; probes are counted anew."""
        with self._lock:
            self._phase = name
            self._ends = self._clock() + bound
            self._progress.clear()

    def agent(self, node: str, state: str, detail: str) -> None:
        """Count it, and print it where it is not ready."""
        with self._lock:
            changed = self._states.get(node) != state
            self._states[node] = state
        if changed and state != "ready":
            self._print(f"agent of {node} is {state}" + (f": {detail}" if detail else ""))

    def listening(self, node: str, held: int, wanted: int) -> None:
        """Count it as listening."""
        with self._lock:
            self._listening[node] = (held, wanted)

    def progress(self, node: str, finished: int, total: int) -> None:
        """Add it to all that is done."""
        with self._lock:
            self._progress[node] = (finished, total)

    def warn(self, text: str) -> None:
        """Print it above."""
        self._print(f"warning: {text}")

    def finished(self) -> None:
        """Show nothing any more."""
        with self._lock:
            self._phase = ""

    def __rich__(self) -> Table:
        """What is shown now. Called by the redrawing thread."""
        with self._lock:
            lines = Table.grid(padding=(0, 2))
            if self._phase:
                left = max(0.0, self._ends - self._clock())
                name = PHASES.get(self._phase, self._phase)
                lines.add_row("now", Text(f"{name}, at most {left:.0f} s more", "bold"))
                lines.add_row("agents", Text(self._agents()))
                finished, total = map(sum, zip((0, 0), *self._progress.values(), strict=True))
                if total:
                    bar = ProgressBar(total=total, completed=finished, width=_BAR)
                    lines.add_row("probes", _beside(bar, f"{finished:,} of {total:,}"))
            return lines

    def _agents(self) -> str:
        """How many of all are there, and which are not."""
        done = {name for name, state in self._states.items() if state == "ready"}
        word = "ready"
        if self._phase == "listen":
            done &= self._listening.keys()
            word = "listening"
        missing = [_printable(name) for name in self._states if name not in done]
        words = f"{len(done)} of {len(self._states)} {word}"
        return f"{words}, missing: {listed(missing)}" if missing else words

    def _print(self, text: str) -> None:
        self._console.print(Text(_printable(text)), highlight=False)


class _Harmless:
    """Passes on what an observer is told, until it fails; the run never hears of that."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer: RunObserver = observer

    def phase(self, name: str, bound: float) -> None:
        """Pass it on."""
        self._try(lambda: self._observer.phase(name, bound))

    def agent(self, node: str, state: str, detail: str) -> None:
        """Pass it on."""
        self._try(lambda: self._observer.agent(node, state, detail))

    def listening(self, node: str, held: int, wanted: int) -> None:
        """Pass it on."""
        self._try(lambda: self._observer.listening(node, held, wanted))

    def progress(self, node: str, finished: int, total: int) -> None:
        """Pass it on."""
        self._try(lambda: self._observer.progress(node, finished, total))

    def warn(self, text: str) -> None:
        """Pass it on."""
        self._try(lambda: self._observer.warn(text))

    def finished(self) -> None:
        """Pass it on."""
        self._try(self._observer.finished)

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:  # noqa: BLE001 - whatever a display can't do, the run goes on without it
            self._observer = SilentObserver()


@contextlib.contextmanager
def make_observer(
    stream: TextIO, *, quiet: bool = False, nodes: Sequence[str] = ()
) -> Iterator[RunObserver]:
    """The observer that fits `stream` (stderr); its display is gone when the block ends.

    `nodes` are those of the plan, so that agents which have not said anything yet are counted.
    """
    console = Console(file=stream, stderr=stream is sys.stderr)
    if quiet:
        yield _Harmless(PlainLines(stream, quiet=True))
    elif _is_terminal(stream) and not console.is_dumb_terminal:
        live = Live(console, nodes)
        # Rich would send what is printed on stdout to this console: the report must stay there.
        screen = Screen(
            live,
            console=console,
            transient=True,
            refresh_per_second=_REFRESHES,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )
        with contextlib.suppress(OSError, ValueError):
            screen.start()
        try:
            yield _Harmless(live)
        finally:
            with contextlib.suppress(OSError, ValueError):
                screen.stop()
    else:
        yield _Harmless(PlainLines(stream))


def _is_terminal(stream: TextIO) -> bool:
    """Asked of the stream: Rich's own answer is yes for a pipe too where FORCE_COLOR is set."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _beside(bar: ProgressBar, words: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, words)
    return row


def _printable(text: str) -> str:
    """Without control characters: details come from other machines."""
    return "".join(one if one.isprintable() else " " for one in text)
