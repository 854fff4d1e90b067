"""A limit on new connections and first datagrams a second, shared by an agent's probers."""

import random
import threading
import time

_BURST_SECONDS = 0.02


class Pace:
    """A token bucket that holds 20 ms worth of tokens, at least one.

    It is taken from by several threads. A rate of None is no limit. It starts with a random part
    of one token: the agents of a run begin together, and must not begin with a burst, nor beat
    time where each of them has less than one connection a second.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._room = max(1.0, (rate or 0.0) * _BURST_SECONDS)
        self._tokens = random.random()  # noqa: S311 - it spreads, and protects nothing
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Take one token at `now` (monotonic seconds). 0: taken; else the seconds until one."""
        if self._rate is None:
            return 0.0
        with self._lock:
            elapsed = max(0.0, now - self._filled)
            self._tokens = min(self._room, self._tokens + elapsed * self._rate)
            self._filled = max(self._filled, now)
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return 0.0
            return (1.0 - self._tokens) / self._rate
