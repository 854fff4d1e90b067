"""The phases of a run: greet -> listen -> probe -> second look -> collect -> release.

Every phase is bounded, and every phase's results are recorded as they come. When `stop` is
set (Ctrl-C), probing ends at once; what was learned is still asked for and released.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from preflight.coordinator.handles import AgentHandle, Dial
from preflight.coordinator.observer import RunObserver
from preflight.coordinator.orders import (
    first_orders,
    second_orders,
    share_out,
    share_out_looks,
)
from preflight.model.observation import Observations, Outcome, Phase, Sightings
from preflight.model.plan import (
    COLLECT_PATIENCE,
    GRACE,
    HOLD_PATIENCE,
    RELEASE_PATIENCE,
    Plan,
    ProbeOrder,
    Share,
)
from preflight.ports import count_ports
from preflight.wire.messages import IDS_AT_ONCE
from preflight.wire.runfile import AgentLine, Line, OutcomesLine, PhaseLine, SightingsLine

Record = Callable[[Line], None]


def utc_now() -> str:
    """Now, as the report writes it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def gather_observations(
    plan: Plan,
    dial: Dial,
    coordinator: str,
    observer: RunObserver,
    record: Record,
    stop: asyncio.Event,
) -> Observations:
    """Do what the plan says, and return everything that was seen at both ends.

    Raises nothing for what agents or the network do.
    """
    run = _Run(plan, dial, coordinator, observer, record, stop)
    started = utc_now()
    try:
        await run.first_half()
        # Ctrl-C from here on cuts nothing short: all that there is to know will be known.
        interrupted = stop.is_set()
        await run.collect()
        await run.release()
    except BaseException:  # cancelled: not even the release is waited for
        run.drop()
        raise
    finally:
        observer.finished()
    return Observations(
        agents=tuple(handle.observation for handle in run.handles),
        outcomes=tuple(run.outcomes),
        sightings=tuple(run.sightings),
        phases=tuple(run.phases),
        started=started,
        finished=utc_now(),
        interrupted=interrupted,
    )


class _Run:
    def __init__(
        self,
        plan: Plan,
        dial: Dial,
        coordinator: str,
        observer: RunObserver,
        record: Record,
        stop: asyncio.Event,
    ) -> None:
        self.plan = plan
        self.handles = [AgentHandle(node) for node in plan.nodes]
        self.outcomes: list[Outcome] = []
        self.sightings: list[Sightings] = []
        self.phases: list[Phase] = []
        self._dial = dial
        self._coordinator = coordinator
        self._observer = observer
        self._record = record
        self._stop = stop

    async def first_half(self) -> None:
        """Greet, listen, probe, look again: everything that Ctrl-C cuts short."""
        limits = self.plan.limits
        async with self._phase("greet", limits.greet):
            await self._until_stop(self._greet(handle) for handle in self.handles)
        async with self._phase("listen", HOLD_PATIENCE):
            await self._until_stop(self._hold(handle) for handle in self._ready())
        agents = {handle.name: handle.observation for handle in self.handles}
        async with self._phase("probe", limits.deadline + GRACE):
            orders = first_orders(self.plan, agents)
            await self._probe(orders, share_out(limits, orders), limits.deadline)
        again = second_orders(self.plan, self.outcomes, limits.second_look)
        if again:
            async with self._phase("second-look", limits.second_look + GRACE):
                await self._probe(again, share_out_looks(limits, again), limits.second_look)

    async def collect(self) -> None:
        """Ask both ends' other half: what did the listeners see of what failed?"""
        async with self._phase("collect", COLLECT_PATIENCE):
            if self._stop.is_set():
                # To be asked ends an agent's probing, and it tells what it had not told yet.
                await asyncio.gather(
                    *(handle.ask((), COLLECT_PATIENCE) for handle in self._ready())
                )
            for handle in self.handles:
                handle.settle()
            wanted: dict[str, list[str]] = {handle.name: [] for handle in self.handles}
            answerers = {probe.id: probe.answerers for probe in self.plan.probes}
            for outcome in self.outcomes:
                for attempts in outcome.unanswered:
                    for name in answerers[outcome.probe]:
                        wanted[name].extend(attempts.probe_ids)
            await asyncio.gather(
                *(self._ask(handle, tuple(wanted[handle.name])) for handle in self._ready())
            )
            for handle in self.handles:
                self._note(handle)

    async def release(self) -> None:
        """Let every agent go."""
        async with self._phase("release", RELEASE_PATIENCE):
            await asyncio.gather(*(handle.release(RELEASE_PATIENCE) for handle in self.handles))

    def drop(self) -> None:
        """Break off all conversations at once."""
        for handle in self.handles:
            handle.drop()

    def _ready(self) -> list[AgentHandle]:
        return [handle for handle in self.handles if handle.ready]

    async def _greet(self, handle: AgentHandle) -> None:
        await handle.greet(self._dial, self.plan.run_id, self._coordinator, self.plan.limits.greet)
        self._note(handle)

    async def _hold(self, handle: AgentHandle) -> None:
        listens = tuple(one for one in self.plan.listens if one.node == handle.name)
        await handle.hold(listens, HOLD_PATIENCE, self.plan.limits.close)
        held = sum(
            count_ports(one.ports)
            for one in handle.observation.listeners
            if one.state == "listening"
        )
        wanted = sum(count_ports(one.ports) for one in listens if not one.only_if_local)
        self._observer.listening(handle.name, held, wanted)
        self._note(handle)

    async def _probe(
        self, orders: dict[str, tuple[ProbeOrder, ...]], shares: dict[str, Share], bound: float
    ) -> None:
        async def one(handle: AgentHandle) -> None:
            ours = orders[handle.name]
            total = sum(count_ports(order.probe.ports) for order in ours)

            def on_outcomes(outcomes: tuple[Outcome, ...]) -> None:
                self.outcomes.extend(outcomes)
                self._record(OutcomesLine(source=handle.name, outcomes=outcomes))

            def on_progress(finished: int) -> None:
                self._observer.progress(handle.name, finished, total)

            on_progress(0)
            await handle.probe(ours, shares[handle.name], bound + GRACE, on_outcomes, on_progress)
            self._note(handle)

        await self._until_stop(one(handle) for handle in self._ready() if handle.name in orders)

    async def _ask(self, handle: AgentHandle, probe_ids: tuple[str, ...]) -> None:
        """In one question as a rule; where everything stalls, its answer would be too long."""
        for begin in range(0, len(probe_ids) or 1, IDS_AT_ONCE):
            asked = probe_ids[begin : begin + IDS_AT_ONCE]
            seen = await handle.ask(asked, COLLECT_PATIENCE)
            if seen is not None:
                self.sightings.extend(seen.sightings)
                self._record(SightingsLine(node=handle.name, sightings=seen.sightings))

    def _note(self, handle: AgentHandle) -> None:
        self._observer.agent(handle.name, handle.observation.state, handle.observation.detail)
        self._record(AgentLine(agent=handle.observation))

    async def _until_stop(self, work: Iterable[Coroutine[None, None, None]]) -> None:
        """Everything at once, until it is done or the run is stopped; nothing if it is already."""
        if self._stop.is_set():
            return
        doing = asyncio.create_task(_all_of(work))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            stopping.cancel()
            await asyncio.wait((doing, stopping))
        if not doing.cancelled():
            doing.result()

    @asynccontextmanager
    async def _phase(self, name: str, bound: float) -> AsyncIterator[None]:
        began = time.monotonic()
        self._observer.phase(name, bound)
        try:
            yield
        finally:
            elapsed = (time.monotonic() - began) * 1000
            phase = Phase(name=name, elapsed_ms=round(elapsed, 1))
            self.phases.append(phase)
            self._record(PhaseLine(phase=phase))


async def _all_of(work: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
