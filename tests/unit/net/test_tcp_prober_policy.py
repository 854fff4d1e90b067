"""When a port is tried again and when it is given up, by a clock of the test's own."""

import time

import pytest

from preflight.model.observation import Failure, Operation
from preflight.model.plan import Probe, ProbeOrder, Share
from preflight.net.classify import Fault
from preflight.net.half_open import HalfOpen
from preflight.net.pacing import Pace
from preflight.net.prober import PortResult, Work
from preflight.net.tcp_attempt import Stage, TcpAttempt
from preflight.net.tcp_destination import FEW_SILENT, FEW_STALLED, MOST_SYNS, Destination
from preflight.net.tcp_task import Persistence, Step, TcpTask

PATIENCE = 4.0
PATIENT = Persistence(0, PATIENCE)
EAGER = Persistence(MOST_SYNS, PATIENCE)
START = 100.0


class Clockwork:
    """A task whose connections do what they are told."""

    def __init__(self, persistence: Persistence, **kind: bool) -> None:
        self.task = TcpTask(6443, 256, PATIENCE, **kind)
        self.persistence = persistence
        self.now = START
        self.begin()

    def begin(self) -> TcpAttempt:
        attempt = Told(self.now)
        self.task.note_begun(attempt, self.now)
        return attempt

    def connect(self, attempt: TcpAttempt, retransmits: int = 0) -> None:
        attempt.connected = True
        attempt.stage = Stage.ASKING
        attempt.retransmits = retransmits
        self.task.note_connected(attempt, self.now)

    def end(self, attempt: TcpAttempt, failure: Failure) -> None:
        attempt.fault = Fault(failure, Operation.CONNECT)
        attempt.stage = Stage.ENDED
        self.task.ended_at = self.now

    def run(self) -> list[float]:
        """Follow the steps to the end; gives when further connections began, and the end."""
        times: list[float] = []
        for _ in range(200):
            step, until = self.task.next_step(self.now, self.persistence)
            if step is Step.END:
                return [*times, round(self.now - START, 2)]
            if step is Step.BEGIN:
                times.append(round(self.now - START, 2))
                self.on_begin(self.begin())
            else:
                assert until > self.now
                self.now = until
        raise AssertionError("it never ends")

    def on_begin(self, attempt: TcpAttempt) -> None:
        """What becomes of further connections: nothing."""


class Told(TcpAttempt):
    """A connection without a socket, whose SYNs are not repeated."""

    def __init__(self, now: float) -> None:
        super().__init__("10.0.0.1", None, b"", now)

    def count_syns(self) -> int:
        return 1


def test_silence_is_waited_for_and_no_more() -> None:
    assert Clockwork(PATIENT).run() == [4.0]


def test_few_silent_ports_get_fresh_syns_within_the_patience() -> None:
    *begun, end = Clockwork(EAGER).run()
    assert begun == pytest.approx([0.35 * (turn + 1) for turn in range(len(begun))], abs=0.02)
    assert 3.0 < begun[-1] <= 3.5
    assert end == pytest.approx(4.0)


def test_under_loss_silence_lasts_up_to_six_seconds_and_twelve_syns() -> None:
    clockwork = Clockwork(Persistence(MOST_SYNS, 6.0))
    *begun, end = clockwork.run()
    assert len(begun) == MOST_SYNS - 1
    assert 4.0 <= end <= 6.0


def test_one_look_is_one_syn() -> None:
    assert Clockwork(EAGER, once=True).run() == [PATIENCE]


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.ICMP, Failure.NO_ROUTE])
def test_a_refusal_ends_it_at_once_whichever_connection_met_it(failure: Failure) -> None:
    clockwork = Clockwork(EAGER)
    clockwork.begin()
    clockwork.end(clockwork.task.attempts[0], failure)
    assert clockwork.run() == [0.0]
    assert clockwork.task.result().failure is failure


def test_a_stubborn_task_meets_a_refusal_three_times() -> None:
    clockwork = Clockwork(EAGER, stubborn=True)
    clockwork.on_begin = lambda attempt: clockwork.end(attempt, Failure.RESET)  # type: ignore[method-assign] # scripted
    clockwork.end(clockwork.task.attempts[0], Failure.RESET)
    assert clockwork.run() == [0.3, 0.6, 0.6]


def test_our_own_limits_are_waited_out() -> None:
    clockwork = Clockwork(EAGER)
    clockwork.on_begin = lambda attempt: clockwork.end(attempt, Failure.LOCAL_LIMIT)  # type: ignore[method-assign] # scripted
    clockwork.end(clockwork.task.attempts[0], Failure.LOCAL_LIMIT)
    *begun, end = clockwork.run()
    assert len(begun) > 10
    assert end >= PATIENCE
    result = clockwork.task.result()
    assert (result.failure, result.attempts) == (Failure.LOCAL_LIMIT, 0)


def test_silence_after_the_handshake_is_asked_three_times() -> None:
    clockwork = Clockwork(PATIENT)
    clockwork.on_begin = clockwork.connect  # type: ignore[method-assign] # scripted
    clockwork.connect(clockwork.task.attempts[0])
    assert clockwork.run() == [1.0, 2.0, 4.0]
    result = clockwork.task.result()
    assert result.failure is Failure.SILENT_AFTER_CONNECT
    assert len(result.unanswered) == 3


def test_closed_then_refused_remains_closed() -> None:
    clockwork = Clockwork(PATIENT)
    first = clockwork.task.attempts[0]
    clockwork.connect(first)
    clockwork.end(first, Failure.CLOSED_AFTER_CONNECT)
    clockwork.on_begin = lambda attempt: clockwork.end(attempt, Failure.RESET)  # type: ignore[method-assign] # scripted
    assert clockwork.run() == [0.3, 0.6, 0.6]
    assert clockwork.task.result().failure is Failure.CLOSED_AFTER_CONNECT


def test_a_handshake_by_the_second_socket_counts_as_loss() -> None:
    clockwork = Clockwork(EAGER)
    clockwork.now += 0.35
    second = clockwork.begin()
    clockwork.connect(second, retransmits=1)
    assert clockwork.task.lost_syns() == 2
    assert clockwork.task.needed_second_try()


def test_an_answer_on_another_connection_is_no_loss_unless_a_syn_was_lost() -> None:
    clockwork = Clockwork(PATIENT)
    clockwork.connect(clockwork.task.attempts[0])
    clockwork.now += 1.0
    second = clockwork.begin()
    clockwork.connect(second)
    assert not clockwork.task.needed_second_try()
    second.retransmits = 1
    assert clockwork.task.needed_second_try()


def test_a_slow_answer_to_the_first_socket_is_no_loss() -> None:
    clockwork = Clockwork(EAGER)
    clockwork.now += 0.35
    clockwork.begin()
    clockwork.now += 0.1
    clockwork.connect(clockwork.task.attempts[0])
    assert not clockwork.task.needed_second_try()


def test_the_deadline_makes_short_silence_nothing_and_long_silence_an_answer() -> None:
    task = Clockwork(PATIENT).task
    assert task.cut_result(START + 3.0).failure is Failure.SKIPPED
    assert task.cut_result(START + 4.0).failure is Failure.NO_ANSWER


def make_destination(count: int = 2_768) -> Destination:
    probe = Probe(
        id=1,
        source="w1",
        destination="m1",
        protocol="tcp",
        address="10.0.0.1",
        ports=((30_000, 30_000 + count - 1),),
        answerers=("m1",),
    )
    share = Share(rate=None, max_half_open=100, patience=4.0, deadline=8.0, full_size=8_192)
    order = ProbeOrder(probe=probe)
    work = Work(
        orders=(order,),
        run_id=b"",
        key=b"",
        share=share,
        pace=Pace(None),
        half_open=HalfOpen(share.max_half_open),
    )
    return Destination(0, order, work)


def note_handshakes(destination: Destination, lost_each: int, count: int) -> None:
    for _ in range(count):
        clockwork = Clockwork(PATIENT)
        clockwork.connect(clockwork.task.attempts[0], retransmits=lost_each)
        destination.note_handshake(clockwork.task)


def test_persistence_grows_with_the_loss_that_was_seen() -> None:
    destination = make_destination()
    destination.silent = FEW_SILENT
    assert destination.persistence() == Persistence(MOST_SYNS, 4.0)
    destination.silent = FEW_SILENT + 1
    note_handshakes(destination, 0, 100)
    assert destination.persistence() == Persistence(0, 4.0)
    note_handshakes(destination, 1, 1)
    # One of 102 lost: 2768 * (1/102)^5 is below one in a million, the fourth power is not.
    assert destination.persistence() == Persistence(5, 6.0)
    note_handshakes(destination, 3, 100)
    assert destination.persistence() == Persistence(MOST_SYNS, 6.0)


def test_ports_come_one_by_one_and_the_rest_can_be_drained() -> None:
    destination = make_destination(4)
    task = destination.next_task()
    assert task is not None
    assert (task.port, destination.untried) == (30_000, 3)
    assert list(destination.drain()) == [30_001, 30_002, 30_003]
    assert not destination.has_waiting
    result = PortResult(port=30_000, failure=None)
    assert destination.note_end(task, result)
    assert result.finishes


def test_the_pace_allows_a_small_burst_and_then_its_rate() -> None:
    pace = Pace(100.0)
    now = START * 1e6  # long after its beginning: it is full
    assert [pace.take(now) for _ in range(2)] == [0.0, 0.0]
    wait = pace.take(now)
    assert wait == pytest.approx(0.01)
    assert pace.take(now + wait) == 0.0
    assert pace.take(now + wait) > 0.0


@pytest.mark.parametrize("rate", [0.5, 10.0, 5_000.0])
def test_the_pace_begins_without_a_burst(rate: float) -> None:
    # The agents of a run begin together: each may have one connection beforehand.
    pace = Pace(rate)
    began = time.monotonic()
    taken = sum(not pace.take(began) for _ in range(100))
    assert taken <= 1 + rate * (time.monotonic() - began)


def test_no_rate_is_no_limit() -> None:
    pace = Pace(None)
    assert {pace.take(START) for _ in range(1_000)} == {0.0}


def test_many_connections_that_stand_still_are_not_made_again() -> None:
    clockwork = Clockwork(Persistence(0, PATIENCE, asks_again=False))
    clockwork.connect(clockwork.task.attempts[0])
    assert clockwork.run() == [PATIENCE]


def test_connections_are_made_again_where_few_stand_still_or_packets_are_lost() -> None:
    destination = make_destination()
    note_handshakes(destination, 0, 100)
    destination.stalled = FEW_STALLED
    assert destination.persistence().asks_again
    destination.stalled += 1
    assert not destination.persistence().asks_again
    note_handshakes(destination, 1, 10)
    assert destination.persistence().asks_again
