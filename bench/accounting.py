"""What processes cost: CPU time and memory, as proc(5) tells."""

import os
import time
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from preflight.lab.owner import PROC
from preflight.lab.processes import Popen

_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_INTERVAL = 0.05
_KIB_PER_MB = 1024


class Memory(NamedTuple):
    """Of one process, in MB (2**20 bytes). Pages that several share count in parts in `pss`."""

    pss: float
    rss: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine_seconds() -> float:
    """What all processors together have worked so far, for whomever."""
    user, nice, system, _idle, _wait, *rest = (
        int(field) for field in (PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + sum(rest)) / _TICKS


def memory(pid: int) -> Memory:
    """What a process has in memory now."""
    found = _kib(PROC / str(pid) / "smaps_rollup")
    return Memory(found["Pss"] / _KIB_PER_MB, found["Rss"] / _KIB_PER_MB)


def wait_with_peak(process: Popen, patience: float) -> float:
    """Wait for a process to end. Returns the largest RSS seen in MB, a bit less than the true one.

    Its pipes must not fill up meanwhile. Raises `subprocess.TimeoutExpired`.
    """
    deadline = time.monotonic() + patience
    peak = 0
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutExpired(process.args, patience)
        try:
            peak = max(peak, _kib(PROC / str(process.pid) / "status").get("VmHWM", 0))
        except OSError:
            break
        time.sleep(_LOOK_INTERVAL)
    process.wait(patience)
    return peak / _KIB_PER_MB


def neighbour_table_overflows() -> int:
    """How often a new neighbour found the kernel's table full: it is one for all namespaces."""
    rows = (PROC / "net/stat/arp_cache").read_text().splitlines()
    column = rows[0].split().index("table_fulls")
    return sum(int(row.split()[column], 16) for row in rows[1:])


def _kib(file: Path) -> dict[str, int]:
    """The lines of a file that are a name and a number of KiB."""
    found: dict[str, int] = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.split()[0])
    return found
