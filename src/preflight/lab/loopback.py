"""Nodes on loopback addresses, where no namespaces can be had: no router, no firewall."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, Unpack

from preflight.lab.owner import sweep_leftovers
from preflight.lab.processes import Popen, Processes, ProcessOptions


class Site(Protocol):
    """Where the programs of a cluster run: a `Lab`, or a `Loopback`."""

    def popen(self, where: str, argv: Sequence[str], **options: Unpack[ProcessOptions]) -> Popen:
        """Start a program on a node."""

    def end(self, process: Popen, *, patience: float = 2.0) -> int:
        """SIGTERM, and after `patience` seconds SIGKILL. Returns the exit status."""

    def kill(self, process: Popen) -> int:
        """SIGKILL. Returns the exit status."""


class Loopback:
    """The host itself as every node: all of 127.0.0.0/8 is on it. Ports of the host are used."""

    def __init__(self) -> None:
        self._processes = Processes()

    def __enter__(self) -> Self:
        sweep_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.end_all()

    def popen(self, where: str, argv: Sequence[str], **options: Unpack[ProcessOptions]) -> Popen:
        """Start a program; which node it is for makes no difference here."""
        del where
        return self._processes.start(argv, **options)

    def end(self, process: Popen, *, patience: float = 2.0) -> int:
        """SIGTERM, and after `patience` seconds SIGKILL. Returns the exit status."""
        return self._processes.end(process, patience=patience)

    def kill(self, process: Popen) -> int:
        """SIGKILL. Returns the exit status."""
        return self._processes.kill(process)
