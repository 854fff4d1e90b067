"""Whose a process is, so that what a killed run left behind can be found and ended.

Every process of a lab carries a mark in its environment that names the process that owns the
lab. A mark is inherited, needs no state file, and can't outlive what it marks. Nothing else
has to be remembered: a lab's namespaces have no name outside their holder (`isolation`), so
they are gone when its last process is.
"""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARK = "PREFLIGHT_LAB"
"""Environment variable that every process of a lab has."""

PROC = Path("/proc")
_DEATH_PATIENCE = 2.0


@dataclass(frozen=True)
class Owner:
    """A process, told apart from a later one with the same number."""

    pid: int
    started: int
    """Clock ticks since boot (proc(5), stat, field 22)."""
    pid_namespace: int
    """Inode of the pid namespace: a number means nothing outside it."""

    def __str__(self) -> str:
        return f"{self.pid}.{self.started}.{self.pid_namespace}"


def this_process() -> Owner:
    """The owner of what is begun here and now."""
    started = start_time(os.getpid())
    assert started is not None
    return Owner(os.getpid(), started, _pid_namespace())


def read_owner(text: str) -> Owner | None:
    """The owner that a mark or a folder's name begins with; None where there is none."""
    try:
        pid, started, pid_namespace = (int(part) for part in text.split(".")[:3])
    except ValueError:
        return None
    return Owner(pid, started, pid_namespace)


def is_gone(owner: Owner) -> bool:
    """Whether the owner has ended. False also where we can't know: in another pid namespace."""
    return owner.pid_namespace == _pid_namespace() and start_time(owner.pid) != owner.started


def start_time(pid: int) -> int | None:
    """When a process began; None if it is no more, or is a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets, and may hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def end_marked(mark: str) -> int:
    """SIGKILL every process with this mark, and say how many these were."""
    return _end_all(lambda found: found == mark)


def sweep_leftovers() -> int:
    """End every process of a lab whose owner has ended, and say how many these were.

    Called at every start: a run that was killed could not clean up after itself.
    """

    def left(mark: str) -> bool:
        owner = read_owner(mark)
        return owner is not None and is_gone(owner)

    return _end_all(left)


def _end_all(chosen: Callable[[str], bool]) -> int:
    ended = 0
    for pid in [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]:
        with _held(pid) as descriptor:
            mark = _mark_of(pid) if descriptor is not None else None
            if descriptor is not None and mark is not None and pid != os.getpid() and chosen(mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                # Killed is not dead yet: its ports are free when the descriptor says so.
                select.select([descriptor], [], [], _DEATH_PATIENCE)
                ended += 1
    return ended


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor of the process: with it, the one that is looked at is the one signalled."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mark_of(pid: int) -> str | None:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def _pid_namespace() -> int:
    return (PROC / "self/ns/pid").stat().st_ino
