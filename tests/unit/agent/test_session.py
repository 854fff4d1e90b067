"""What an agent tells while it probes."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from preflight.agent import session
from preflight.agent.lease import Lease
from preflight.agent.session import Session
from preflight.model.observation import Facts, Failure, Outcome
from preflight.model.plan import ProbeOrder, Share
from preflight.net.conversation import conversation_in_process
from preflight.probes import ProbeContext
from preflight.wire.messages import WIRE_VERSION, Done, Greet, Progress, Results, Start

GREET = Greet(
    wire_version=WIRE_VERSION,
    version="0.1.0",
    run_id="ab" * 16,
    coordinator="me",
    node="n1",
    addresses=("127.77.22.1",),
)
SHARE = Share(rate=None, max_half_open=64, patience=1.0, deadline=10.0, full_size=8192)
FOUND = tuple(
    Outcome(probe=number, ports=((80, 80),), failure=Failure.NO_ANSWER) for number in range(5)
)


async def find_all_at_once(
    orders: Sequence[ProbeOrder],
    context: ProbeContext,
    on_outcomes: Callable[[tuple[Outcome, ...]], None],
    on_finished: Callable[[int], None],
) -> None:
    del orders, context
    on_outcomes(FOUND)
    on_finished(5)


async def test_many_results_are_told_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "run_probes", find_all_at_once)
    monkeypatch.setattr(session, "OUTCOMES_AT_ONCE", 2)
    coordinator, agent = await conversation_in_process()
    lease = Lease.begin(GREET.run_id, GREET.coordinator)
    running = Session(agent, GREET, Facts(), lease, instance=b"i" * 16, key=b"k" * 32)
    told = []
    async with asyncio.timeout(5):
        await running._probe(Start(orders=(), share=SHARE))
        while not isinstance(message := await coordinator.receive(), Done):
            assert isinstance(message, Results | Progress)
            if isinstance(message, Results):
                told.append(message.outcomes)
    assert told == [FOUND[:2], FOUND[2:4], FOUND[4:]]
    await coordinator.close()
    await agent.close()
