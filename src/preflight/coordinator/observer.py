"""What a run tells whoever watches it. The run never waits for an answer and never reads one."""

from typing import Protocol


class RunObserver(Protocol):
    """Told of a run's course, from the run's own thread. Implementations must not raise."""

    def phase(self, name: str, bound: float) -> None:
        """A phase begins ("greet", "listen", "probe", …) and ends after `bound` s at the latest."""

    def agent(self, node: str, state: str, detail: str) -> None:
        """An agent's state is known, or has changed. `state` is a `model.observation.AgentState`;
        the same state may be told several times.
        """

    def listening(self, node: str, held: int, wanted: int) -> None:
        """An agent holds `held` of the `wanted` ports that the plan gives it."""

    def progress(self, node: str, finished: int, total: int) -> None:
        """A source has finished so many of its (probe, port) in this phase."""

    def warn(self, text: str) -> None:
        """One sentence that the user should see at once."""

    def finished(self) -> None:
        """The run is over; everything that was held has been released."""


class SilentObserver:
    """Watches and says nothing: for displays that failed, and for tests."""

    def phase(self, name: str, bound: float) -> None:
        """Say nothing."""

    def agent(self, node: str, state: str, detail: str) -> None:
        """Say nothing."""

    def listening(self, node: str, held: int, wanted: int) -> None:
        """Say nothing."""

    def progress(self, node: str, finished: int, total: int) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""
