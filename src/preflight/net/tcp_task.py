"""One proven connection that is wanted of one port: when to try again, and when to give up.

No I/O of its own: it looks at its attempts and at a clock that it is given.

Silence is the hard case. The kernel repeats a SYN after 1, 2 and 3 seconds (1 and 3 on old
kernels), which costs a firewall one state entry. Further sockets settle it sooner: where there
are few silent ports, or where the others of the destination answer (`tcp_patience`).
"""

from collections.abc import Callable
from enum import Enum

from preflight.model.observation import Failure, Operation
from preflight.net.classify import Fault
from preflight.net.prober import PortResult, skipped
from preflight.net.tcp_attempt import Stage, TcpAttempt
from preflight.net.tcp_patience import FRESH_SYN_INTERVAL, Persistence
from preflight.wire.challenge import Answer

TRIES_AFTER_CONNECT = 3
SAME_TIME = 0.15
"""Seconds: the last SYN of a silent port, and another's that was answered meanwhile."""
_LAST_CHANCE = 0.6
_SILENT_INTERVAL = STALLED_AFTER = 1.0
_CLOSED_INTERVAL = 0.3
_LIMIT_INTERVAL = 0.25
_MOST_UNANSWERED = 3

_AFTER_CONNECT = (
    Failure.FOREIGN_ANSWER,
    Failure.CLOSED_AFTER_CONNECT,
    Failure.SILENT_AFTER_CONNECT,
)
_RANK = {
    failure: rank
    for rank, failure in enumerate(
        (
            Failure.CONNECTED_ONLY,
            *_AFTER_CONNECT,
            Failure.ICMP,
            Failure.NO_NEIGHBOUR,
            Failure.SEND_DENIED,
            Failure.NO_ROUTE,
            Failure.RESET,
            Failure.NO_ANSWER,
            Failure.LOCAL_LIMIT,
        )
    )
}
"""Attempts that end differently: the one that came furthest speaks for the port."""

_SILENT = (Failure.NO_ANSWER, Failure.SILENT_AFTER_CONNECT)
_SILENCE = Fault(Failure.NO_ANSWER, Operation.CONNECT)
_STALL = Fault(Failure.SILENT_AFTER_CONNECT, Operation.RECEIVE)


class Step(Enum):
    """What is to be done now."""

    WAIT = 1
    BEGIN = 2
    END = 3


class TcpTask:
    """A port (or one of several connections to it) on its way to a `PortResult`."""

    __slots__ = (
        "attempts",
        "began_at",
        "connect_only",
        "connected_at",
        "counted_silent",
        "counted_stalled",
        "done",
        "ended_at",
        "enough_at",
        "last_began_at",
        "once",
        "patience",
        "port",
        "review_at",
        "size",
        "stubborn",
        "winner",
        "witness",
    )

    def __init__(
        self,
        port: int,
        size: int,
        patience: float,
        *,
        connect_only: bool = False,
        stubborn: bool = False,
        once: bool = False,
    ) -> None:
        """`stubborn`: even a definite refusal is tried three times. `once`: one socket only."""
        self.port = port
        self.size = size
        self.patience = patience
        self.connect_only = connect_only
        self.stubborn = stubborn
        self.once = once
        self.attempts: list[TcpAttempt] = []
        self.began_at = 0.0
        self.last_began_at = 0.0
        self.connected_at: float | None = None
        self.ended_at = 0.0
        self.enough_at: float | None = None
        """When it was seen that all SYNs that are wanted were sent."""
        self.review_at = 0.0
        self.counted_silent = False
        self.counted_stalled = False
        self.winner: TcpAttempt | None = None
        self.witness = False
        """It only shows that the destination answers, on a port that is known already."""
        self.done = False

    def note_begun(self, attempt: TcpAttempt, now: float) -> None:
        """A socket was opened for it."""
        if not self.attempts:
            self.began_at = now
        self.attempts.append(attempt)
        self.last_began_at = now

    def note_connected(self, attempt: TcpAttempt, now: float) -> None:
        """A handshake was completed; the first one begins the wait for an answer."""
        if self.connected_at is None:
            self.connected_at = now
            self.winner = attempt

    def next_step(self, now: float, persistence: Callable[[], Persistence]) -> tuple[Step, float]:
        """What to do, and for WAIT until when at most (monotonic seconds).

        `persistence` is asked only where something is missing: most ports just answer.
        """
        if any(a.answer is not None for a in self.attempts):
            return Step.END, now
        if self.connected_at is None:
            return self._seek_connection(now, persistence())
        return self._seek_answer(now, self.connected_at, persistence())

    def needed_second_try(self) -> bool:
        """Whether a handshake took more than one SYN.

        An answer on another connection alone is no loss: the listener may have stood still, or
        closed the first one.
        """
        return self.lost_syns() > 0 or any(a.connected and a.retransmits for a in self.attempts)

    def lost_syns(self) -> int:
        """SYNs without effect before the handshake that was completed first."""
        if self.winner is None:
            return 0
        if self.winner is self.attempts[0]:
            return self.winner.retransmits
        return self.winner.retransmits + self._begun().index(self.winner)

    def result(self, now: float) -> PortResult:
        """What became of it, as far as it is known now."""
        (first, *further) = self.attempts
        if first.answer is not None and not (further or first.retransmits):
            return self._proven_at_once(first, first.answer)
        begun = self._begun()
        result = PortResult(port=self.port, failure=Failure.SKIPPED, size=self.size)
        result.attempts = len(begun)
        result.retransmits = int(self.needed_second_try())
        result.local_address = next((a.local_address for a in begun if a.local_address), None)
        result.rtt_ms = self.winner.rtt_ms if self.winner else None
        proven = next((a for a in begun if a.answer is not None), None)
        if proven is not None and proven.answer is not None:
            result.set_answer(proven.answer)
            result.local_address = proven.local_address
            result.rtt_ms = proven.rtt_ms
            result.answered = 1
            return result
        fault = self._worst_fault()
        result.set_fault(fault)
        if fault.failure is Failure.NO_ANSWER:
            result.syns = self._count_syns()
        if fault.failure in _SILENT:
            result.waited = self._waited(now)
        if fault.failure in _AFTER_CONNECT:
            connected = [a for a in begun if a.connected]
            result.unanswered = tuple(
                a.as_unanswered(self.port, self._lost_before(a))
                for a in connected[:_MOST_UNANSWERED]
            )
            result.first_bytes = next((a.first_bytes.hex() for a in begun if a.first_bytes), "")
        return result

    def _proven_at_once(self, attempt: TcpAttempt, answer: Answer) -> PortResult:
        """As most ports are: a short way for thousands of them."""
        result = PortResult(port=self.port, failure=None, size=self.size)
        result.set_answer(answer)
        result.attempts = result.answered = 1
        result.local_address = attempt.local_address
        result.rtt_ms = attempt.rtt_ms
        return result

    def cut_result(self, now: float) -> PortResult:
        """What can be said of it when the deadline ends it early.

        Silence counts only when it lasted as long as it has to: else nothing was learned.
        """
        result = self.result(now)
        if result.failure in _SILENT and self._waited(now) < self.patience:
            cut = skipped(self.port, self.size)
            cut.attempts, cut.local_address = result.attempts, result.local_address
            return cut
        return result

    def _waited(self, now: float) -> float:
        return now - (self.began_at if self.connected_at is None else self.connected_at)

    def _lost_before(self, attempt: TcpAttempt) -> int:
        return self.lost_syns() if attempt is self.winner else attempt.retransmits

    def _begun(self) -> list[TcpAttempt]:
        """The attempts that came as far as a SYN."""
        return [a for a in self.attempts if not _was_limited(a)]

    def _worst_fault(self) -> Fault:
        faults = [a.fault for a in self.attempts if a.fault is not None]
        if self.connected_at is not None:
            faults.append(_STALL)
        elif self._begun():
            faults.append(_SILENCE)
        return min(faults, key=lambda fault: _RANK[fault.failure])

    def _seek_connection(self, now: float, persistence: Persistence) -> tuple[Step, float]:
        until = self.began_at + self.patience
        if any(a.fault is not None and _is_refusal(a.fault) for a in self.attempts):
            if not self.stubborn or len(self._begun()) >= TRIES_AFTER_CONNECT:
                return Step.END, now
            return _begin_at(self.ended_at + _CLOSED_INTERVAL, now)
        if _was_limited(self.attempts[-1]):
            if now >= until:
                return Step.END, now
            return _begin_at(self.ended_at + _LIMIT_INTERVAL, now)
        if self.once:
            return (Step.END if now >= until else Step.WAIT), until
        return self._outwait_silence(now, until, persistence)

    def _outwait_silence(
        self, now: float, until: float, persistence: Persistence
    ) -> tuple[Step, float]:
        """More SYNs where they are wanted; the end when silence is believed, or at `until`."""
        self._note_enough(now, persistence)
        if persistence.last_wait is not None and self.enough_at is not None:
            believed = self.enough_at + persistence.last_wait
            # Where that was seen late (many SYNs, or a process that stood still), the patience
            # may be over, and what came meanwhile not be looked at yet.
            heeded = min(believed, max(until, self.enough_at + _LAST_CHANCE))
            if now < heeded:
                return Step.WAIT, heeded
            if now >= believed and persistence.heard_at >= self.enough_at - SAME_TIME:
                return Step.END, now
        latest = self.began_at + max(self.patience, persistence.seconds) - _LAST_CHANCE
        again = self.last_began_at + FRESH_SYN_INTERVAL
        if now >= again:
            again = now + FRESH_SYN_INTERVAL
            if persistence.syns and now < latest and self.enough_at is None:
                return Step.BEGIN, now
        until = max(until, self.last_began_at + _LAST_CHANCE)
        if now >= until:
            return Step.END, now
        return Step.WAIT, min(until, again)

    def _note_enough(self, now: float, persistence: Persistence) -> None:
        """More may be wanted later than was enough before: loss shows in the meantime."""
        if not persistence.syns or self._count_syns() < persistence.syns:
            self.enough_at = None
        elif self.enough_at is None:
            self.enough_at = now

    def _seek_answer(
        self, now: float, connected_at: float, persistence: Persistence
    ) -> tuple[Step, float]:
        tried = [a for a in self.attempts if a.began_at >= connected_at or a.connected]
        asking = [a for a in tried if a.stage is not Stage.ENDED]
        if any(a.fault is not None and _is_conclusive(a.fault) for a in tried):
            return Step.END, now
        until = connected_at + self.patience
        room = len(tried) < TRIES_AFTER_CONNECT and not self.once
        if now >= until or not (room or asking):
            return Step.END, now
        if not room or (asking and not persistence.asks_again):
            return Step.WAIT, until
        if asking:
            again = self.last_began_at + _SILENT_INTERVAL
            if len(tried) == 1:
                again = connected_at + _SILENT_INTERVAL
        else:
            again = self.ended_at + _CLOSED_INTERVAL
        if now >= again:
            return Step.BEGIN, now
        return Step.WAIT, min(until, again)

    def _count_syns(self) -> int:
        return sum(a.count_syns() for a in self._begun())


def _was_limited(attempt: TcpAttempt) -> bool:
    return attempt.fault is not None and attempt.fault.failure is Failure.LOCAL_LIMIT


def _is_refusal(fault: Fault) -> bool:
    """Whether it ended for a reason, and not by silence or by our own limits."""
    return fault.failure not in (Failure.NO_ANSWER, Failure.LOCAL_LIMIT)


def _begin_at(when: float, now: float) -> tuple[Step, float]:
    return (Step.BEGIN if now >= when else Step.WAIT), when


def _is_conclusive(fault: Fault) -> bool:
    return fault.failure in (Failure.FOREIGN_ANSWER, Failure.CONNECTED_ONLY)
