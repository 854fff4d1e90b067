"""One thread's epoll set with timers, and a way to stop it from another thread."""

import heapq
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Owner = TypeVar("Owner")

_LONGEST_WAIT = 1.0
_EVENTS_AT_ONCE = 256


class Polling(Generic[Owner]):
    """Watches sockets, each for an owner. A socket that is closed must be forgotten first.

    asyncio does the same at four times the cost for each connection, which a sweep of
    thousands of ports feels.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._owners: dict[int, Owner] = {}
        self._timers: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._serial = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self.stopped = False
        self.now = time.monotonic()

    def watch(self, descriptor: int, owner: Owner, events: int) -> None:
        """Report these events of the descriptor under its owner's name."""
        self._epoll.register(descriptor, events)
        self._owners[descriptor] = owner

    def forget(self, descriptor: int) -> None:
        """Report nothing more of it; closing it takes it out of the epoll set."""
        self._owners.pop(descriptor, None)

    def owners(self) -> list[Owner]:
        """Everybody who has a descriptor watched."""
        return list(self._owners.values())

    def at(self, when: float, action: Callable[[Any], None], argument: object) -> None:
        """Call `action(argument)` at this monotonic time. It can't be called off."""
        heapq.heappush(self._timers, (when, next(self._serial), action, argument))

    def fire_timers(self) -> None:
        """Call what is due. What these calls set for now has its turn after the next `poll`."""
        timers, now = self._timers, self.now
        due = []
        while timers and timers[0][0] <= now:
            due.append(heapq.heappop(timers))
        for _, _, action, argument in due:
            action(argument)

    def poll(self, longest: float | None) -> Iterator[tuple[Owner, int]]:
        """Wait for events until the next timer, or at most `longest` seconds."""
        wait = _LONGEST_WAIT if longest is None else min(longest, _LONGEST_WAIT)
        if self._timers:
            wait = min(wait, self._timers[0][0] - time.monotonic())
        ready = self._epoll.poll(max(0.0, wait), _EVENTS_AT_ONCE)
        self.now = time.monotonic()
        for descriptor, events in ready:
            # An earlier event of the same batch may have ended this one's owner.
            owner = self._owners.get(descriptor)
            if owner is not None:
                yield owner, events

    def stop(self) -> None:
        """From any thread: `stopped` becomes true, and a waiting `poll` returns."""
        with self._lock:
            self.stopped = True
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Free the two descriptors of our own."""
        with self._lock:
            self._closed = True
            self._epoll.close()
            os.close(self._wake)
