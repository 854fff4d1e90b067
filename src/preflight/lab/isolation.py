"""Where a lab may have network namespaces of its own, and the process that holds them.

A holder is one process with a private mount namespace (and, without root, a user namespace)
in which `ip netns` keeps its names. The namespaces are reached through `/proc/<holder>/root`,
so their names collide with nobody's, and the kernel removes them all when the holder and the
processes inside have ended. The holder reads from a pipe of its owner's, so it ends with it,
however that happens.
"""

import os
import shutil
import subprocess
from functools import cache
from typing import Literal

from preflight.errors import PreflightError
from preflight.lab.processes import Processes

Isolation = Literal["root", "user-namespace"]

PROGRAMS = ("ip", "nft", "nsenter", "unshare")

_RUN = os.path.realpath("/var/run")
"""`ip netns` names its namespaces below /var/run. Resolved here, because an absolute symbolic
link below `/proc/<holder>/root` would lead out of it again."""

_ENTER = f'mount -t tmpfs tmpfs "{_RUN}" && mkdir "{_RUN}/netns"'
_TRIAL = (
    f"{_ENTER} && ip netns add trial && ip netns exec trial sh -c '"
    "echo 1 >/proc/sys/net/ipv4/ip_forward && nft add table inet trial'"
)
_HOLD = f"{_ENTER} && echo ready && exec cat"


class LabError(PreflightError):
    """The lab could not be built, or a command in it failed."""


@cache
def how_isolated() -> Isolation | None:
    """By which right a lab can be had here. Tried, not guessed; None where it can't."""
    if any(shutil.which(program) is None for program in PROGRAMS):
        return None
    ways: tuple[Isolation, ...] = ("root", "user-namespace")
    return next((way for way in ways if _works(way)), None)


def _works(way: Isolation) -> bool:
    if way == "root" and os.geteuid() != 0:
        return False
    trial = subprocess.run(
        [*_unshare(way), "sh", "-c", _TRIAL], capture_output=True, check=False, timeout=10
    )
    return trial.returncode == 0


def _unshare(way: Isolation) -> list[str]:
    # --net: a command that went astray would meet an empty namespace, never the host's.
    return ["unshare", "--net", "--mount", *(["--map-root-user"] if way != "root" else []), "--"]


class Holder:
    """Keeps the namespaces of one lab, and knows how a command gets into them."""

    def __init__(self, processes: Processes) -> None:
        """Raises `LabError` where no namespaces can be had."""
        way = how_isolated()
        if way is None:
            raise LabError(
                "no network namespaces can be had here: that needs root or user namespaces,"
                " and the programs " + ", ".join(PROGRAMS)
            )
        self._process = processes.start(
            [*_unshare(way), "sh", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != "ready\n":
            raise LabError(f"no namespaces: {self._process.stderr.read().strip()}")
        self.pid = self._process.pid
        self._nsenter = ["nsenter"]
        if way == "user-namespace":
            # Credentials stay as they are: our user is root in there already, and setgroups
            # is not allowed in a namespace made without root.
            self._nsenter += [f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials"]

    def enter(self, namespace: str) -> list[str]:
        """What to put before a command that is to run in that network namespace."""
        return [*self._nsenter, f"--net=/proc/{self.pid}/root{_RUN}/netns/{namespace}", "--"]

    def enter_names(self, namespace: str | None = None) -> list[str]:
        """The same, and with the names of the other namespaces known, as `ip` needs it."""
        net = f"/proc/{self.pid}/root{_RUN}/netns/{namespace}" if namespace else None
        return [
            *self._nsenter,
            f"--mount=/proc/{self.pid}/ns/mnt",
            f"--net={net or f'/proc/{self.pid}/ns/net'}",
            "--",
        ]
