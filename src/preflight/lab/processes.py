"""The processes of one lab: started with its mark, and ended with it, each by its own number."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, TypeAlias, TypedDict, Unpack

from preflight.lab.owner import MARK, end_marked, this_process

Popen: TypeAlias = "subprocess.Popen[str]"

_serials = itertools.count(1)


class ProcessOptions(TypedDict, total=False):
    """What a program is started with, as `subprocess.Popen` knows it. Pipes carry text."""

    stdin: int | IO[Any] | None
    stdout: int | IO[Any] | None
    stderr: int | IO[Any] | None
    env: Mapping[str, str] | None
    """Instead of our own environment."""


class Processes:
    """What one lab has started.

    Each gets a session of its own: Ctrl-C at the terminal reaches the owner only, which then
    ends everything in order.
    """

    def __init__(self) -> None:
        self.mark = f"{this_process()}.{next(_serials)}"
        self._started: list[Popen] = []

    def start(self, argv: Sequence[str], **options: Unpack[ProcessOptions]) -> Popen:
        """Start a program."""
        environment = options.get("env")
        process = subprocess.Popen(
            argv,
            stdin=options.get("stdin"),
            stdout=options.get("stdout"),
            stderr=options.get("stderr"),
            env={**(os.environ if environment is None else environment), MARK: self.mark},
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(
        self, argv: Sequence[str], *, patience: float, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with `text` as its input.

        Raises `subprocess.TimeoutExpired` after `patience` seconds.
        """
        environment = {**os.environ, MARK: self.mark}
        return subprocess.run(
            argv,
            env=environment,
            timeout=patience,
            text=True,
            capture_output=True,
            check=False,
            input=text,
        )

    def end(self, process: Popen, *, patience: float = 2.0) -> int:
        """SIGTERM, and after `patience` seconds SIGKILL. Returns the exit status."""
        self._end([process], patience)
        return int(process.returncode)

    def kill(self, process: Popen) -> int:
        """SIGKILL at once. Returns the exit status."""
        self._end([process], None)
        return int(process.returncode)

    def end_all(self, *, patience: float = 2.0) -> None:
        """End everything that was started, and everything that these have started."""
        self._end(self._started[::-1], patience)
        end_marked(self.mark)

    def _end(self, processes: Sequence[Popen], patience: float | None) -> None:
        if patience is not None:
            for process in processes:
                _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + patience
            for process in processes:
                _wait_until(process, deadline)
        for process in processes:
            _signal(process, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._started = [one for one in self._started if one not in processes]


def _signal(process: Popen, number: signal.Signals) -> None:
    # Until it is waited for, its number, and so its session's, can't be another's.
    if process.poll() is None:
        os.killpg(process.pid, number)


def _wait_until(process: Popen, deadline: float) -> None:
    # Whoever is not done by then gets SIGKILL.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))
