"""A UDP port on its way to a result, by a clock that the test sets."""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from preflight.model.observation import Failure
from preflight.net.udp_exchange import FIRST_DATAGRAMS, LOSSY_DATAGRAMS, Step, UdpExchange
from preflight.wire.challenge import SMALL_SIZE, Answer, encode_answer, read_challenge

KEY, RUN = os.urandom(32), os.urandom(16)
PATIENCE = 4.0


class Answering:
    """The other end: takes challenges, and answers when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)
        self.address: tuple[Any, ...] = self.socket.getsockname()

    def take(self) -> tuple[bytes, tuple[Any, ...]]:
        data, source = self.socket.recvfrom(SMALL_SIZE)
        challenge = read_challenge(data, KEY)
        assert challenge is not None
        answer = Answer(
            run_id=RUN,
            probe_id=challenge.probe_id,
            nonce=challenge.nonce,
            instance=bytes(16),
            source_address=source[0],
            source_port=source[1],
            address=self.address[0],
            port=self.address[1],
            node="m1",
        )
        return encode_answer(answer, challenge.size, KEY), source

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def answering() -> Iterator[Answering]:
    with closing(Answering()) as made:
        yield made


@pytest.fixture
def exchange(answering: Answering) -> Iterator[UdpExchange]:
    """Its four first datagrams are sent, the last at 0.09 s."""
    with closing(
        UdpExchange("127.0.0.1", answering.address[1], RUN, KEY, PATIENCE, once=False)
    ) as made:
        made.begin(socket.AF_INET, answering.address, 0.0)
        for number in range(FIRST_DATAGRAMS):
            now = 0.03 * number
            assert made.next_step(now)[0] is Step.SEND
            made.send(now)
        yield made


def give(answering: Answering, exchange: UdpExchange, *, now: float) -> None:
    """One answer arrives at that time."""
    data, source = answering.take()
    answering.socket.sendto(data, source)
    exchange.on_events(select.EPOLLIN, now)


def follow(exchange: UdpExchange) -> tuple[float, float]:
    """Do what it wants while nothing more arrives. When it ended, and when it sent last."""
    now = sent_at = 0.1
    while True:
        step, until = exchange.next_step(now)
        if step is Step.END:
            return now, sent_at
        if step is Step.SEND:
            exchange.send(now)
            sent_at = now
        now = max(now + 0.001, until)


def test_it_is_through_when_all_are_answered(answering: Answering, exchange: UdpExchange) -> None:
    for _ in range(FIRST_DATAGRAMS):
        assert exchange.next_step(0.1)[0] is Step.WAIT
        give(answering, exchange, now=0.1)
    assert exchange.next_step(0.1)[0] is Step.END


def test_prompt_answers_make_a_missing_one_a_loss_soon(
    answering: Answering, exchange: UdpExchange
) -> None:
    for _ in range(FIRST_DATAGRAMS - 1):
        give(answering, exchange, now=0.1)
    assert exchange.next_step(0.38)[0] is Step.WAIT
    assert exchange.next_step(0.5)[0] is Step.SEND


def test_late_answers_are_waited_for_before_more_is_sent(
    answering: Answering, exchange: UdpExchange
) -> None:
    for _ in range(FIRST_DATAGRAMS - 1):
        give(answering, exchange, now=0.35)
    assert exchange.next_step(1.1)[0] is Step.WAIT
    give(answering, exchange, now=1.1)
    assert exchange.next_step(1.1)[0] is Step.END
    assert (exchange.result(1.1).attempts, exchange.result(1.1).answered) == (4, 4)


def test_what_takes_as_long_as_others_did_is_not_lost_yet(
    answering: Answering, exchange: UdpExchange
) -> None:
    for _ in range(FIRST_DATAGRAMS - 1):
        give(answering, exchange, now=1.0)
    ended_at, last_sent_at = follow(exchange)
    assert ended_at - last_sent_at == pytest.approx(3.0, abs=0.1)
    result = exchange.result(ended_at)
    assert (result.failure, result.answered) == (None, 3)
    assert FIRST_DATAGRAMS < result.attempts <= LOSSY_DATAGRAMS


def test_at_the_deadline_what_may_still_come_is_not_counted(
    answering: Answering, exchange: UdpExchange
) -> None:
    give(answering, exchange, now=0.8)
    cut = exchange.result(2.0, cut=True)
    assert (cut.failure, cut.attempts, cut.answered) == (None, 1, 1)
    late = exchange.result(3.0, cut=True)
    assert (late.failure, late.attempts, late.answered) == (None, 4, 1)


def test_silence_is_silence(exchange: UdpExchange) -> None:
    ended_at, _ = follow(exchange)
    result = exchange.result(ended_at)
    assert (result.failure, result.attempts) == (Failure.NO_ANSWER, 12)
    assert ended_at == pytest.approx(PATIENCE, abs=0.1)
