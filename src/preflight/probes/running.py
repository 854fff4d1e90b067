"""Runs probers in threads of their own and hands their results to the event loop.

Sockets are probed in plain threads because one tight epoll loop is four times faster than
asyncio's streams; everything else of the agent lives in the event loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec

from preflight.model.cluster import Protocol
from preflight.model.observation import Outcome
from preflight.model.plan import ProbeOrder
from preflight.net.half_open import HalfOpen
from preflight.net.pacing import Pace
from preflight.net.prober import PortResult, Prober, Report, Work, skipped
from preflight.ports import count_ports, each_port
from preflight.probes.grouping import group_results
from preflight.probes.kind import ProbeContext, ProbeKind
from preflight.probes.lane import Lane

OnOutcomes: TypeAlias = Callable[[tuple[Outcome, ...]], None]
OnFinished: TypeAlias = Callable[[int], None]

_PROGRESS_INTERVAL = 0.2
_OUTCOMES_INTERVAL = 1.0
_OUTCOMES_SHARE = 1 / 16
"""Seconds, or this part of the time so far, between outcomes of probes that are still running.
Every second of a long run would be an outcome of each probe otherwise, of a few ports each."""


def outcomes_interval(elapsed: float) -> float:
    """Seconds until what unfinished probes have found is told, so many seconds into the run.

    What an agent that dies had not told yet is lost: a second, or a sixteenth of the run.
    """
    return max(_OUTCOMES_INTERVAL, elapsed * _OUTCOMES_SHARE)


class _Collector:
    """Takes results from any thread; tells of them in the event loop's."""

    def __init__(
        self, orders: Sequence[ProbeOrder], on_outcomes: OnOutcomes, on_finished: OnFinished
    ) -> None:
        self._orders = orders
        self._on_outcomes = on_outcomes
        self._on_finished = on_finished
        self._arrived: deque[tuple[int, PortResult]] = deque()
        self._held: dict[int, list[PortResult]] = {}
        self._left = [count_ports(order.probe.ports) for order in orders]
        self._total = sum(self._left)
        self._told = -1

    def add(self, index: int, result: PortResult) -> None:
        """From any thread; `index` is the order's."""
        self._arrived.append((index, result))

    async def tell_regularly(self) -> None:
        """Progress a few times a second; outcomes when a probe is through, or now and then: the
        longer it runs, the less often.
        """
        clock = asyncio.get_running_loop().time
        began = told = clock()
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL)
            everything = clock() - told >= outcomes_interval(told - began)
            self.tell(everything=everything)
            if everything:
                told = clock()

    def tell(self, *, everything: bool) -> None:
        """Group and hand over what has arrived."""
        for _ in range(len(self._arrived)):
            index, result = self._arrived.popleft()
            self._held.setdefault(index, []).append(result)
            self._left[index] -= result.finishes
        outcomes: list[Outcome] = []
        for index in list(self._held):
            if everything or self._left[index] <= 0:
                order, results = self._orders[index], self._held.pop(index)
                outcomes += group_results(order.probe.id, results, second_look=order.second_look)
        if outcomes:
            self._on_outcomes(tuple(outcomes))
        self._tell_finished(self._total - sum(self._left))

    def tell_end(self) -> None:
        """Everything is known."""
        self.tell(everything=True)
        self._tell_finished(self._total)

    def _tell_finished(self, finished: int) -> None:
        if finished != self._told:
            self._told = finished
            self._on_finished(finished)


class Runner:
    """Carries out the orders of one `run_probes`."""

    def __init__(
        self,
        kinds: Mapping[Protocol, ProbeKind],
        orders: Sequence[ProbeOrder],
        context: ProbeContext,
        on_outcomes: OnOutcomes,
        on_finished: OnFinished,
    ) -> None:
        self._kinds = kinds
        self._orders = orders
        self._context = context
        self._collector = _Collector(orders, on_outcomes, on_finished)
        self._pace = Pace(context.share.rate)
        self._half_open = HalfOpen(context.share.max_half_open)

    async def run(self) -> None:
        """The first pass of all protocols side by side, then the second look."""
        telling = asyncio.create_task(self._collector.tell_regularly())
        try:
            await self._look_first()
            await self._look_again()
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            # Cancelled as well: what is known by now is not lost.
            self._collector.tell(everything=True)
        self._collector.tell_end()

    async def _look_first(self) -> None:
        async with asyncio.TaskGroup() as group:
            for protocol, kind in self._kinds.items():
                chosen = {
                    index: order
                    for index, order in enumerate(self._orders)
                    if order.probe.protocol == protocol and not order.second_look
                }
                if chosen:
                    report = self._report_by(tuple(chosen))
                    group.create_task(self._run_kind(kind, tuple(chosen.values()), report))

    def _report_by(self, indexes: Sequence[int]) -> Report:
        """For a prober that knows its orders by their place only."""
        return lambda place, result: self._collector.add(indexes[place], result)

    async def _look_again(self) -> None:
        """All lanes side by side."""
        async with asyncio.TaskGroup() as group:
            for turns in self._lanes():
                lane = Lane(
                    turns,
                    self._look_at,
                    self._collector.add,
                    deadline=self._context.share.deadline,
                    slow=any(self._orders[index].slow for index, _ in turns),
                    brief=all(self._orders[index].brief for index, _ in turns),
                )
                group.create_task(lane.run())

    async def _look_at(self, index: int, port: int) -> PortResult:
        """One port of an order, tried once."""
        order = self._orders[index]
        probe = msgspec.structs.replace(order.probe, ports=((port, port),))
        single = msgspec.structs.replace(order, probe=probe)
        found: list[PortResult] = []
        await self._run_kind(
            self._kinds[probe.protocol],
            (single,),
            lambda _, result: found.append(result),
            once=True,
        )
        return found[0] if found else skipped(port)

    def _lanes(self) -> list[list[tuple[int, int]]]:
        """(Index, port), by lane: one order after the other, as half a sample proves nothing."""
        lanes: dict[str, list[tuple[int, int]]] = {}
        for index, order in enumerate(self._orders):
            if order.second_look:
                ports = each_port(order.probe.ports)
                lanes.setdefault(order.lane, []).extend((index, port) for port in ports)
        return list(lanes.values())

    async def _run_kind(
        self, kind: ProbeKind, orders: Sequence[ProbeOrder], report: Report, *, once: bool = False
    ) -> None:
        """One prober in one thread."""
        work = Work(
            orders=tuple(orders),
            run_id=self._context.run_id,
            key=self._context.key,
            share=self._context.share,
            pace=self._pace,
            half_open=self._half_open,
            once=once,
        )
        await _run_in_thread(kind(work, report))


async def _run_in_thread(prober: Prober) -> None:
    """Wait for the prober's end. Cancelled: stop it, and return when its sockets are closed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            prober.run()
        except Exception as unexpected:  # noqa: BLE001 - it is raised again in the event loop
            error = unexpected
        loop.call_soon_threadsafe(tell, error)

    # Not the loop's own executor: other agents in this process could have its few threads.
    thread = threading.Thread(target=run, name="preflight-prober", daemon=True)
    thread.start()
    try:
        await ended
    finally:
        prober.stop()
        thread.join()
