import asyncio
import socket
from typing import Any

import pytest

from preflight.columns import each_attempt
from preflight.model.observation import Failure
from preflight.model.plan import ProbeOrder
from preflight.net.udp_exchange import UdpExchange
from preflight.wire.challenge import SMALL_SIZE, Answer
from tests.unit.probes.answering_side import (
    ADDRESS,
    count_descriptors,
    free_port,
    make_order,
    make_probe,
    probe,
    probe_one,
    share,
    udp_listener,
)


@pytest.mark.parametrize("address", [ADDRESS, "::1"])
async def test_four_answers_prove_the_port(address: str) -> None:
    async with udp_listener(address=address) as (port, listener):
        seen = await probe_one(make_order("udp", port, address=address), share(patience=60.0))
    assert seen.failure is None
    assert (seen.attempts, seen.answered) == (4, 4)
    assert len({challenge.probe_id for challenge in listener.arrived}) == 4
    assert seen.answered_by == "m1"
    assert seen.observed_source == seen.local_address
    assert seen.size == SMALL_SIZE
    assert seen.rtt_ms is not None
    assert seen.unanswered == ()


async def test_late_answers_are_no_loss() -> None:
    async with udp_listener(delay=0.5) as (port, _):
        seen = await probe_one(make_order("udp", port), share(patience=3.0))
    assert seen.failure is None
    assert seen.answered == seen.attempts
    assert seen.rtt_ms is not None
    assert seen.rtt_ms >= 450


async def test_a_lost_answer_is_measured_over_more_datagrams() -> None:
    async with udp_listener(lambda number: number % 2 == 0) as (port, listener):
        seen = await probe_one(make_order("udp", port), share(patience=2.0))
        unanswered = {attempt.probe_id for attempt in each_attempt(seen.unanswered)}
        assert unanswered == {c.probe_id.hex() for c in listener.arrived[1::2]}
    assert seen.failure is None
    assert (seen.attempts, seen.answered) == (24, 12)


async def test_silence_keeps_the_ids_for_the_destination() -> None:
    async with udp_listener(lambda _: False) as (port, listener):
        seen = await probe_one(make_order("udp", port), share(patience=1.5))
        assert {attempt.probe_id for attempt in each_attempt(seen.unanswered)} == {
            challenge.probe_id.hex() for challenge in listener.arrived
        }
    assert seen.failure is Failure.NO_ANSWER
    assert (seen.attempts, seen.answered) == (12, 0)
    assert all(attempt.local_port for attempt in each_attempt(seen.unanswered))


async def test_a_closed_port_is_refused_by_icmp() -> None:
    port = free_port(socket.SOCK_DGRAM)
    seen = await probe_one(make_order("udp", port), share(patience=60.0, deadline=60.0))
    assert seen.failure is Failure.ICMP
    assert seen.errno == "ECONNREFUSED"
    assert seen.icmp is not None
    assert (seen.icmp.family, seen.icmp.type, seen.icmp.code) == (4, 3, 3)
    assert seen.icmp.sender == ADDRESS
    assert seen.icmp_seen == 1


async def test_an_answer_to_another_challenge_is_foreign() -> None:
    async with udp_listener(change=lambda answer: answer._replace(nonce=bytes(16))) as (port, _):
        seen = await probe_one(make_order("udp", port), share(patience=60.0, deadline=60.0))
    assert seen.failure is Failure.FOREIGN_ANSWER
    assert seen.first_bytes.startswith("f19e5046")


@pytest.mark.parametrize("look", ["first", "second"])
async def test_an_empty_datagram_is_a_foreign_answer(look: str) -> None:
    # asyncio's own transport of this Python sends no empty datagram.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering:
        answering.bind((ADDRESS, 0))
        loop = asyncio.get_running_loop()
        loop.add_reader(answering, lambda: answering.sendto(b"", answering.recvfrom(SMALL_SIZE)[1]))
        probed = make_probe("udp", answering.getsockname()[1])
        order = ProbeOrder(probe=probed, second_look=look == "second")
        seen = await probe_one(order, share(patience=60.0, deadline=60.0))
        loop.remove_reader(answering)
    assert (seen.failure, seen.first_bytes) == (Failure.FOREIGN_ANSWER, "")


async def test_one_valid_answer_outweighs_foreign_ones() -> None:
    answers = 0

    def spoil_the_first(answer: Answer) -> Answer:
        nonlocal answers
        answers += 1
        return answer._replace(nonce=bytes(16)) if answers == 1 else answer

    async with udp_listener(change=spoil_the_first) as (port, _):
        seen = await probe_one(make_order("udp", port), share(patience=2.0))
    assert seen.failure is None
    assert seen.answered == seen.attempts - 1


async def test_another_programs_port_is_sent_nothing() -> None:
    async with udp_listener() as (port, listener):
        order = ProbeOrder(probe=make_probe("udp", port), connect_only=((port, port),))
        seen = await probe_one(order)
        assert listener.arrived == []
    assert seen.failure is Failure.SKIPPED


async def test_the_deadline_leaves_silence_unproven() -> None:
    async with udp_listener(lambda _: False) as (port, _):
        outcomes, finished = await probe(
            [make_order("udp", port, *range(50_000, 50_100))],
            share(rate=20.0, patience=4.0, deadline=0.5),
        )
    assert Failure.NO_ANSWER not in {o.failure for o in outcomes}
    assert finished[-1] == 101


async def test_a_second_look_sends_one_datagram() -> None:
    async with udp_listener() as (port, listener):
        order = ProbeOrder(probe=make_probe("udp", port), second_look=True)
        seen = await probe_one(order)
        assert len(listener.arrived) == 1
    assert seen.failure is None
    assert seen.second_look


async def test_both_protocols_run_side_by_side() -> None:
    async with udp_listener() as (port, _):
        orders = [make_order("udp", port), make_order("tcp", free_port(), id=2)]
        outcomes, finished = await probe(orders)
    assert {(o.probe, o.failure) for o in outcomes} == {(1, None), (2, Failure.RESET)}
    assert finished[-1] == 2


async def test_silent_ports_are_asked_a_few_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []
    begin = UdpExchange.begin

    def record(self: UdpExchange, family: int, address: tuple[Any, ...], now: float) -> None:
        begun.append(now)
        begin(self, family, address, now)

    monkeypatch.setattr(UdpExchange, "begin", record)
    async with udp_listener(lambda _: False) as (port, _):
        # The same port, asked in the name of many: one listener is enough.
        orders = [make_order("udp", port, id=number) for number in range(100)]
        await probe(orders, share(patience=1.0))
    after = [moment - begun[0] for moment in begun]
    assert len(after) == 100
    assert after[16] >= 0.39  # the first sixteen have had their time by then
    assert after[16 + 64] >= 2 * 0.39


async def test_cancellation_closes_every_socket_at_once() -> None:
    async with udp_listener(lambda _: False) as (port, listener):
        before = count_descriptors()
        running = asyncio.create_task(
            probe([make_order("udp", port)], share(patience=60.0, deadline=60.0))
        )
        while not listener.arrived:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 2)
        assert count_descriptors() <= before
