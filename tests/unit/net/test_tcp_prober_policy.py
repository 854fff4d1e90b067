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
from preflight.net.tcp_destination import FEW_SILENT, FEW_STALLED, Destination
from preflight.net.tcp_patience import (
    FEWEST_SYNS,
    FRESH_SYN_INTERVAL,
    MOST_SYNS,
    Persistence,
    needed_syns,
)
from preflight.net.tcp_task import Step, TcpTask

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
            step, until = self.task.next_step(self.now, lambda: self.persistence)
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
    turns = range(1, len(begun) + 1)
    assert begun == pytest.approx([FRESH_SYN_INTERVAL * turn for turn in turns], abs=0.02)
    assert 2.9 < begun[-1] <= 3.5
    assert end == pytest.approx(4.0)


def test_under_loss_silence_lasts_up_to_six_seconds_and_twelve_syns() -> None:
    *begun, end = Clockwork(Persistence(MOST_SYNS, 6.0)).run()
    assert 4.0 < begun[-1] <= 5.5
    assert 4.0 <= end <= 6.0
    *begun, end = Clockwork(Persistence(4, 6.0)).run()
    assert (len(begun), end) == (3, 4.0)


def test_silence_is_believed_after_the_syns_that_are_needed() -> None:
    # Two more sockets: these have no kernel that repeats their SYNs.
    quick = Persistence(3, PATIENCE, last_wait=0.4, heard_at=START + 1.0)
    assert Clockwork(quick).run() == [0.55, 1.1, 1.5]


def test_silence_is_not_believed_early_when_nothing_else_was_answered_meanwhile() -> None:
    gone = Persistence(3, PATIENCE, last_wait=0.4, heard_at=START + 0.9)
    assert Clockwork(gone).run() == [0.55, 1.1, 4.0]


def test_loss_that_shows_late_asks_for_more_syns() -> None:
    clockwork = Clockwork(Persistence(1, PATIENCE, last_wait=0.4, heard_at=START))
    step, until = clockwork.task.next_step(START, lambda: clockwork.persistence)
    assert (step, until) == (Step.WAIT, START + 0.4)
    clockwork.persistence = Persistence(3, 6.0, last_wait=0.4, heard_at=START + 1.0)
    assert clockwork.run() == [0.55, 1.1, 1.5]


def test_syns_that_were_enough_at_the_end_of_the_patience_only_have_their_wait() -> None:
    late = Persistence(8, 6.0, last_wait=0.4, heard_at=START + 10)
    assert Clockwork(late).run() == [0.55, 1.1, 1.65, 2.2, 2.75, 3.3, 3.85, 4.25]
    later = Persistence(9, 6.0, last_wait=0.4, heard_at=START + 10)
    assert Clockwork(later).run()[-2:] == [4.4, 4.8]
    slow = Persistence(9, 6.0, last_wait=3.0, heard_at=START + 10)
    assert Clockwork(slow).run()[-2:] == [4.4, 5.0]


@pytest.mark.parametrize("last_wait", [0.4, 3.0])
@pytest.mark.parametrize("paused", [1.0, 3.9, 4.0, 6.3, 20.0])
def test_a_process_that_stood_still_gives_up_what_is_silent(
    paused: float, last_wait: float
) -> None:
    clockwork = Clockwork(Persistence(1, PATIENCE, last_wait=last_wait, heard_at=START + paused))
    clockwork.now += paused
    assert clockwork.run()[-1] <= max(PATIENCE, paused + 0.601)


@pytest.mark.parametrize(
    ("ports", "answered", "lost", "syns"),
    [
        (2_768, 2_491, 0, 3),  # a tenth is dropped: of so many others, none would lose nothing
        (110, 100, 0, 5),
        (3, 2, 0, MOST_SYNS + 1),  # two handshakes say next to nothing about loss
        (2_768, 0, 0, MOST_SYNS + 1),
        (2_768, 2_498, 270, 10),  # 5 % each way
        (2_768, 1_772, 996, MOST_SYNS + 1),  # 20 % each way
    ],
)
def test_syns_needed_by_the_loss_that_was_seen(
    ports: int, answered: int, lost: int, syns: int
) -> None:
    assert needed_syns(ports, answered, lost) == syns


@pytest.mark.parametrize("answered", [10, 100, 1_000])
@pytest.mark.parametrize("lost", [0, 1, 10, 100])
def test_as_many_syns_as_the_plain_estimate_asks_for_or_more(answered: int, lost: int) -> None:
    syns = needed_syns(2_768, answered, lost)
    estimate = lost / (lost + answered)
    assert syns >= FEWEST_SYNS
    assert syns > MOST_SYNS or 2_768 * estimate**syns < 1e-6
    assert needed_syns(2_768, answered, lost + 1) >= syns


def test_one_look_is_one_syn() -> None:
    assert Clockwork(EAGER, once=True).run() == [PATIENCE]


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.ICMP, Failure.NO_ROUTE])
def test_a_refusal_ends_it_at_once_whichever_connection_met_it(failure: Failure) -> None:
    clockwork = Clockwork(EAGER)
    clockwork.begin()
    clockwork.end(clockwork.task.attempts[0], failure)
    assert clockwork.run() == [0.0]
    assert clockwork.task.result(clockwork.now).failure is failure


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
    result = clockwork.task.result(clockwork.now)
    assert (result.failure, result.attempts) == (Failure.LOCAL_LIMIT, 0)


def test_silence_after_the_handshake_is_asked_three_times() -> None:
    clockwork = Clockwork(PATIENT)
    clockwork.on_begin = clockwork.connect  # type: ignore[method-assign] # scripted
    clockwork.connect(clockwork.task.attempts[0])
    assert clockwork.run() == [1.0, 2.0, 4.0]
    result = clockwork.task.result(clockwork.now)
    assert result.failure is Failure.SILENT_AFTER_CONNECT
    assert len(result.unanswered) == 3


def test_closed_then_refused_remains_closed() -> None:
    clockwork = Clockwork(PATIENT)
    first = clockwork.task.attempts[0]
    clockwork.connect(first)
    clockwork.end(first, Failure.CLOSED_AFTER_CONNECT)
    clockwork.on_begin = lambda attempt: clockwork.end(attempt, Failure.RESET)  # type: ignore[method-assign] # scripted
    assert clockwork.run() == [0.3, 0.6, 0.6]
    assert clockwork.task.result(clockwork.now).failure is Failure.CLOSED_AFTER_CONNECT


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


def note_handshakes(
    destination: Destination, lost_each: int, count: int, *, rtt_ms: float = 1.0
) -> None:
    for _ in range(count):
        clockwork = Clockwork(PATIENT)
        clockwork.task.attempts[0].rtt_ms = rtt_ms
        clockwork.connect(clockwork.task.attempts[0], retransmits=lost_each)
        destination.note_handshake(clockwork.task)


def test_persistence_grows_with_the_loss_that_was_seen() -> None:
    destination = make_destination()
    destination.silent = FEW_SILENT
    assert destination.persistence() == Persistence(MOST_SYNS, 4.0)
    destination.silent = FEW_SILENT + 1
    assert destination.persistence() == Persistence(0, 4.0)
    note_handshakes(destination, 0, 2_000)
    quick = destination.persistence()
    assert (quick.syns, quick.seconds, quick.last_wait) == (3, 4.0, 0.4)
    note_handshakes(destination, 1, 20)
    lossy = destination.persistence()
    assert (lossy.syns, lossy.seconds, lossy.last_wait) == (5, 6.0, 0.4)
    note_handshakes(destination, 3, 1_000)
    assert destination.persistence() == Persistence(MOST_SYNS, 6.0)


def test_a_slow_path_is_given_longer_for_the_last_syn() -> None:
    destination = make_destination()
    note_handshakes(destination, 0, 2_000, rtt_ms=300.0)
    assert destination.persistence().last_wait == pytest.approx(0.9)


def test_a_witness_is_called_once_for_silences_of_one_time() -> None:
    destination = make_destination(1)
    assert destination.next_task() is not None
    silent = Clockwork(PATIENT).task
    silent.enough_at = START + 1.0
    destination.call_witness(silent, START + 1.0)
    assert destination.next_task() is None  # nobody has answered yet
    note_handshakes(destination, 0, 1)
    destination.call_witness(silent, START + 1.0)
    witness = destination.next_task()
    assert witness is not None
    assert witness.port == 6_443
    destination.call_witness(silent, START + 1.1)
    assert destination.next_task() is None
    assert not destination.note_end(witness, PortResult(port=6_443, failure=None))


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
