"""One lane of the second look: its ports in turn, as slowly as one host sends ICMP errors."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from preflight.model.observation import Failure
from preflight.model.plan import (
    SECOND_LOOK_INTERVAL,
    SLOW_PATIENCE,
    SLOW_SECOND_LOOK_INTERVAL,
)
from preflight.net.prober import SINGLE_PATIENCE, PortResult, skipped

Turn: TypeAlias = tuple[int, int]
"""The order's index, and a port."""
Look: TypeAlias = Callable[[int, int], Awaitable[PortResult]]
Tell: TypeAlias = Callable[[int, PortResult], None]


class Lane:
    """Tries each port once, and tells what became of it.

    A sender may need twice the usual quiet before each error. So when a try at the usual pace
    stays silent, that port is tried again after the longer quiet, and the lane goes on slowly.
    """

    def __init__(
        self, turns: Iterable[Turn], look: Look, tell: Tell, *, deadline: float, slow: bool
    ) -> None:
        """`deadline`: seconds after which nothing new is begun. `slow`: as in `ProbeOrder`."""
        self._waiting = deque(turns)
        self._look = look
        self._tell = tell
        self._interval = SLOW_SECOND_LOOK_INTERVAL if slow else SECOND_LOOK_INTERVAL
        self._latest = deadline - (SLOW_PATIENCE - SINGLE_PATIENCE if slow else 0.0)

    async def run(self) -> None:
        """Return when every port was told of.

        The first has to wait as well: the last SYNs of the first pass took what there was.
        """
        began, last = time.monotonic(), 0.0
        running: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while self._waiting or running:
                left = began + last + self._interval - time.monotonic()
                if not self._waiting:
                    _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                elif last + self._interval > self._latest:
                    self._skip_waiting()
                elif left > 0:
                    # A try that ends meanwhile may make the lane slower.
                    await asyncio.sleep(left)
                else:
                    last = max(last + self._interval, time.monotonic() - began)
                    index, port = self._waiting.popleft()
                    running.add(group.create_task(self._try(index, port)))

    async def _try(self, index: int, port: int) -> None:
        usual = self._interval < SLOW_SECOND_LOOK_INTERVAL
        result = await self._look(index, port)
        if usual and result.failure is Failure.NO_ANSWER:
            self._interval = SLOW_SECOND_LOOK_INTERVAL
            self._waiting.appendleft((index, port))
        else:
            self._tell(index, result)

    def _skip_waiting(self) -> None:
        for index, port in self._waiting:
            self._tell(index, skipped(port))
        self._waiting.clear()
