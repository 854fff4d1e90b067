"""Who may command this agent, and until when."""

import time
from dataclasses import dataclass

LEASE_SECONDS = 10.0
"""How long an agent stays with a coordinator of which it hears nothing."""


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
