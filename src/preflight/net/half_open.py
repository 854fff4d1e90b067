"""The bound on connections without an answer to their SYN, shared by an agent's probers."""

import threading
from collections import deque

KEPT_SECONDS = 120.0
"""How long a firewall may keep an entry for a SYN that nobody answers (Linux: 120 s)."""


class HalfOpen:
    """Counts the SYNs that are on their way, and those of the last 120 s that got no answer.

    It is used by several threads. Times are monotonic seconds.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._on_their_way = 0
        self._left: deque[float] = deque()
        """When each of those without an answer was given up."""
        self._lock = threading.Lock()

    def take(self, now: float, *, leaving: int = 0) -> bool:
        """Whether one more may be sent, with room for so many others; then it is on its way."""
        with self._lock:
            self._forget(now)
            if self._on_their_way + len(self._left) + leaving >= self._bound:
                return False
            self._on_their_way += 1
            return True

    def give_back(self) -> None:
        """It was answered, or never sent."""
        with self._lock:
            self._on_their_way -= 1

    def leave(self, now: float) -> None:
        """It got no answer, and firewalls keep it."""
        with self._lock:
            self._on_their_way -= 1
            self._left.append(now)

    def wait(self, now: float) -> float | None:
        """Seconds until there is room for one; None: it may come with any answer."""
        with self._lock:
            self._forget(now)
            taken = self._on_their_way + len(self._left)
            if taken < self._bound:
                return 0.0
            if self._on_their_way or not self._left:
                return None
            return self._left[0] + KEPT_SECONDS - now

    def _forget(self, now: float) -> None:
        while self._left and self._left[0] + KEPT_SECONDS <= now:
            self._left.popleft()
