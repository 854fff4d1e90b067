"""Who may command this agent, and until when; and whether the agent itself was there."""

import asyncio
import time
from dataclasses import dataclass

LEASE_SECONDS = 10.0
"""How long an agent stays with a coordinator of which it hears nothing."""

PULSE_SECONDS = 0.25
MAX_PAUSE = 2.0
"""Seconds for which an agent may stand still. A source waits twice as long for an answer, so
that a shorter pause makes nothing look silent."""


@dataclass
class Lease:
    """One run's hold on this agent, renewed by every message of its coordinator."""

    run_id: str
    coordinator: str
    since: float
    renewed: float

    @classmethod
    def begin(cls, run_id: str, coordinator: str) -> "Lease":
        """A lease that starts now."""
        return cls(run_id, coordinator, time.time(), time.monotonic())

    def renew(self) -> None:
        """The coordinator was heard."""
        self.renewed = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until it ends, if the coordinator stays silent; 0 when it has ended."""
        return max(0.0, self.renewed + LEASE_SECONDS - time.monotonic())

    def describe(self) -> str:
        """For whoever is turned away."""
        since = time.strftime("%H:%M:%S", time.gmtime(self.since))
        return (
            f"run {self.run_id[:8]} of {self.coordinator} holds this agent since {since} UTC; "
            f"it is free {LEASE_SECONDS:.0f} s after that coordinator was last heard, "
            f"or as soon as its run ends"
        )


class Pulse:
    """Notices that this process stood still: stopped by somebody, starved, or frozen with its host.

    Meanwhile the kernel went on completing handshakes for it, so that silence after them
    says nothing about the network.
    """

    def __init__(self) -> None:
        self._beating: asyncio.Task[None] | None = None
        self._last = 0.0
        self._longest = 0.0

    def start(self) -> None:
        """Begin to watch, or begin anew."""
        self.stop()
        self._last = time.monotonic()
        self._longest = 0.0
        self._beating = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Watch no more. May be called again."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    @property
    def paused(self) -> bool:
        """Whether it stood still for too long since `start`, just now included."""
        return max(self._longest, self._gap()) > MAX_PAUSE

    def _gap(self) -> float:
        return time.monotonic() - self._last - PULSE_SECONDS

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            self._longest = max(self._longest, self._gap())
            self._last = time.monotonic()
