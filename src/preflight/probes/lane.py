"""One lane of the second look: its ports in turn, as slowly as one host sends ICMP errors.

Or, in a brief lane, slowly enough for a firewall that limits new connections.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from preflight.model.observation import Failure
from preflight.model.plan import (
    BRIEF_INTERVAL,
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

    A sender may need twice the usual quiet before each error. Two errors in a row at the usual
    pace show that it does not. Until then a port that stays silent is tried again after the
    longer quiet, and an error that only this brings makes the lane slow. A brief lane hopes for
    no error, and tries each port once.
    """

    def __init__(
        self,
        turns: Iterable[Turn],
        look: Look,
        tell: Tell,
        *,
        deadline: float,
        slow: bool,
        brief: bool = False,
    ) -> None:
        """`deadline`: seconds after which nothing new is begun. Others: as in `ProbeOrder`."""
        self._waiting = deque(turns)
        self._look = look
        self._tell = tell
        self._slow = slow
        self._brief = brief
        self._heard_in_a_row = 0
        self._again: Turn | None = None
        self._latest = deadline - (SLOW_PATIENCE - SINGLE_PATIENCE if slow else 0.0)

    async def run(self) -> None:
        """Return when every port was told of.

        The first has to wait as well: the last SYNs of the first pass took what there was.
        """
        now = asyncio.get_running_loop().time
        began, last = now(), 0.0
        running: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while self._waiting or running:
                due = last + self._quiet
                late = due > self._latest
                left = began + due - now()
                settled = self._again is None
                if running and (not self._waiting or (late and not settled)):
                    _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                elif late:
                    self._skip_waiting()
                elif running and left > 0:
                    # A try that ends meanwhile may ask for more quiet, or for less.
                    _, running = await asyncio.wait(
                        running, timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
                elif left > 0:
                    await asyncio.sleep(left)
                else:
                    last = max(due, now() - began)
                    running.add(group.create_task(self._try(*self._waiting.popleft())))

    @property
    def _quiet(self) -> float:
        """Seconds between the last try and the next."""
        if self._brief:
            return BRIEF_INTERVAL
        hasty = not self._slow and self._again is None
        return SECOND_LOOK_INTERVAL if hasty else SLOW_SECOND_LOOK_INTERVAL

    async def _try(self, index: int, port: int) -> None:
        turn = (index, port)
        unhurried = self._slow or self._again == turn
        result = await self._look(index, port)
        if self._brief:
            self._tell(index, result)
            return
        denied = result.failure is Failure.SEND_DENIED and result.icmp is not None
        heard = denied or result.failure is Failure.ICMP
        if heard and unhurried:
            self._slow = True
        elif heard:
            self._heard_in_a_row += 1
        elif result.failure is Failure.NO_ANSWER and not unhurried and self._heard_in_a_row < 2:
            self._heard_in_a_row = 0
            self._again = turn
            self._waiting.appendleft(turn)
            return
        self._again = None
        self._tell(index, result)

    def _skip_waiting(self) -> None:
        for index, port in self._waiting:
            self._tell(index, skipped(port))
        self._waiting.clear()
