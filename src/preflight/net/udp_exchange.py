"""One UDP port, asked over one connected socket: what was sent, answered and refused.

A port gets four challenges at first. If all are answered it is done. If some are, the way
loses packets, and 24 in all measure how many. If none is, 12 in all are spread over the
patience, because a router sends its ICMP errors in a burst of six and then one a second, and
because a firewall of the source's own that denies (EPERM) may do so to some datagrams only.
Where answers come late, because a host is busy, the missing ones are waited for longer: late
is not lost.
"""

import errno
import select
import socket
import statistics
from dataclasses import dataclass
from enum import Enum
from typing import Any

from preflight.model.observation import Attempt, Failure, Operation
from preflight.net.classify import Fault, classify
from preflight.net.errqueue import enable_error_queue, read_error_queue
from preflight.net.prober import (
    FIRST_BYTES,
    PortResult,
    check_belonging,
    own_address,
    skipped,
)
from preflight.wire.challenge import (
    SMALL_SIZE,
    Answer,
    Challenge,
    NotOurs,
    encode_challenge,
    new_challenge,
    read_answer,
)

FIRST_DATAGRAMS = 4
SILENT_DATAGRAMS = 12
LOSSY_DATAGRAMS = 24
LOST_AFTER = 1.5
"""Seconds after which a datagram without an answer is lost, unless others took as long."""
_FIRST_INTERVAL = 0.03
_FIRST_WAIT = 0.3
_ROUND_TRIPS = 3
"""So many times the slowest round trip is waited for where that is longer."""
_REFUSED_WAIT = 0.5
_REFUSALS_NEEDED = 2
_TRIES, _TRIES_WHEN_DENIED = 2, 4
"""How often one datagram may be given to the kernel. What is denied costs nobody anything."""
_LONGEST_DATAGRAM = 65_536

DENIED = frozenset({errno.EPERM})
"""The source's own firewall, for this one datagram: the next one may pass. A route that forbids
(EACCES) forbids always."""
_SILENCE = Fault(Failure.NO_ANSWER, Operation.RECEIVE)
_FOREIGN = Fault(Failure.FOREIGN_ANSWER, Operation.RECEIVE)


class Step(Enum):
    """What is to be done now."""

    WAIT = 1
    SEND = 2
    END = 3


@dataclass(slots=True)
class _Datagram:
    challenge: Challenge
    sent_at: float
    rtt: float | None = None
    unsent: bool = False
    """Our own limits held it back: it says nothing about the way."""
    denied: bool = False
    """The source's own firewall took it, without an ICMP error so far."""


class UdpExchange:
    """A port on its way to a `PortResult`."""

    def __init__(
        self, asked: str, port: int, run_id: bytes, key: bytes, patience: float, *, once: bool
    ) -> None:
        """`once`: a single datagram."""
        self.port = port
        self.sock: socket.socket | None = None
        self.began_at = 0.0
        self.ended = False
        self.review_at = 0.0
        self.in_window = False
        self.slowest = 0.0
        """The longest round trip so far, in seconds."""
        self._asked = asked
        self._run_id = run_id
        self._key = key
        self._once = once
        self._patience = patience
        self._sent: dict[bytes, _Datagram] = {}
        self._answered = 0
        self._answer: Answer | None = None
        self._faults: list[Fault] = []
        self._limit: Fault | None = None
        self._denial: Fault | None = None
        self._foreign: bytes | None = None
        self._refused_at: float | None = None
        self._last_sent_at = 0.0
        self._local_address = ""
        self._local_port = 0

    def begin(self, family: int, address: tuple[Any, ...], now: float) -> None:
        """Open and connect the socket. What fails is a fault, and then nothing can be sent."""
        self.began_at = now
        self._faults = []
        try:
            self.sock = sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            enable_error_queue(sock)
            sock.connect(address)
            self._local_address, self._local_port = own_address(sock)
        except OSError as error:
            self.fail(classify(error.errno or 0, operation=Operation.CONNECT))

    def fail(self, fault: Fault) -> None:
        """It can't even begin."""
        self._faults = [fault]
        self.close()

    @property
    def is_limited(self) -> bool:
        """Whether it failed by our own limits, before anything was sent."""
        limited = bool(self._faults) and self._faults[0].failure is Failure.LOCAL_LIMIT
        return self.sock is None and limited

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard of it, from anybody."""
        return not self._answered and self._refused_at is None

    @property
    def is_silent_from(self) -> float:
        """When it is no longer too early for what was sent first to be answered."""
        wait = max(_FIRST_WAIT, self.slowest * _ROUND_TRIPS)
        return self.began_at + (FIRST_DATAGRAMS - 1) * _FIRST_INTERVAL + wait

    def send(self, now: float) -> None:
        """Send one fresh challenge."""
        assert self.sock is not None
        challenge = new_challenge(self._run_id)
        data = encode_challenge(challenge, self._key)
        # The first few tell how much is denied, so they get no second chance.
        insists = len(self._sent) >= FIRST_DATAGRAMS and all(
            earlier.denied for earlier in self._sent.values()
        )
        datagram = self._sent[challenge.probe_id] = _Datagram(challenge, now)
        self._last_sent_at = now
        for _ in range(_TRIES_WHEN_DENIED if insists else _TRIES):
            datagram.denied = False
            try:
                self.sock.send(data)
            except OSError as error:
                # An error of an earlier datagram is told here too, and this one was not sent.
                if self._note_error(error.errno or 0, now, Operation.SEND):
                    continue
                datagram.denied = error.errno in DENIED
                datagram.unsent = self._limit is not None
                if datagram.denied and insists:
                    continue
            return

    def on_events(self, events: int, now: float) -> None:
        """Take errors and answers: what epoll told of, and what has come since."""
        assert self.sock is not None
        if events & select.EPOLLERR:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._note_error(code, now, Operation.RECEIVE)
        while True:
            try:
                data = self.sock.recv(_LONGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self._note_error(error.errno or 0, now, Operation.RECEIVE)
            else:
                self._note_data(data, now)

    def next_step(self, now: float) -> tuple[Step, float]:
        """What to do, and for WAIT until when at most (monotonic seconds)."""
        if self.sock is None or self._is_decided(now):
            return Step.END, now
        step, until = self._step_once(now) if self._once else self._step_by_answers(now)
        if step is Step.WAIT and self._refused_at is not None and not self._answered:
            until = min(until, self._refused_at + _REFUSED_WAIT)
        return step, until

    def result(self, now: float, *, cut: bool = False) -> PortResult:
        """What became of it. `cut`: the deadline ended it, perhaps before its patience."""
        result = PortResult(port=self.port, failure=None, size=SMALL_SIZE)
        result.local_address = self._local_address or None
        result.answered = self._answered
        sent = [d for d in self._sent.values() if not d.unsent]
        counted = [d for d in sent if not (cut and self._is_pending(d, now))]
        result.attempts = len(counted)
        if self._answer is not None:
            result.set_answer(self._answer)
            times = [d.rtt for d in counted if d.rtt is not None]
            result.rtt_ms = statistics.median(times) * 1000
        elif self._faults or self._foreign is not None:
            result.attempts = len(sent)
            result.set_fault(self._faults[0] if self._faults else _FOREIGN)
            result.first_bytes = (self._foreign or b"").hex()
        elif self._denial is not None and all(d.denied for d in sent):
            result.attempts = len(sent)
            result.set_fault(self._denial)
        elif self._limit is not None and not sent:
            result.set_fault(self._limit)
        elif cut and now - self.began_at < self._patience:
            result = skipped(self.port)
            result.attempts, result.local_address = len(sent), self._local_address or None
        else:
            result.set_fault(_SILENCE)
        if result.failure in (None, Failure.NO_ANSWER, Failure.FOREIGN_ANSWER):
            result.unanswered = tuple(self._as_attempt(d) for d in counted if d.rtt is None)
        return result

    def close(self) -> None:
        """Free the socket; closing twice does no harm."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _step_once(self, now: float) -> tuple[Step, float]:
        until = self.began_at + self._patience
        if not self._sent:
            return Step.SEND, now
        heard = self._answered or self._faults or self._foreign is not None
        return (Step.END if heard or now >= until else Step.WAIT), until

    def _step_by_answers(self, now: float) -> tuple[Step, float]:
        sent = len(self._sent)
        if sent < FIRST_DATAGRAMS:
            return _send_at(self.began_at + sent * _FIRST_INTERVAL, now)
        if self._answered == sent:
            return Step.END, now
        until = self.began_at + self._patience
        looked_at = self.is_silent_from
        if now < looked_at:
            return Step.WAIT, looked_at
        wanted = LOSSY_DATAGRAMS if self._answered else SILENT_DATAGRAMS
        if sent < wanted and now < until:
            spread = max(0.5, until - LOST_AFTER - looked_at)
            return _send_at(self._last_sent_at + spread / (wanted - FIRST_DATAGRAMS), now)
        if self._answered:
            until = max(until, self._last_sent_at + self._lost_after)
        return (Step.END if now >= until else Step.WAIT), until

    @property
    def _lost_after(self) -> float:
        return max(LOST_AFTER, self.slowest * _ROUND_TRIPS)

    def _is_pending(self, datagram: _Datagram, now: float) -> bool:
        """At the deadline a datagram that may still be answered is not lost."""
        return datagram.rtt is None and now - datagram.sent_at < self._lost_after

    def _is_decided(self, now: float) -> bool:
        """Whether refusals, or foreign answers, and nothing else, came for long enough."""
        if self._answered or self._refused_at is None:
            return False
        return len(self._faults) >= _REFUSALS_NEEDED or now >= self._refused_at + _REFUSED_WAIT

    def _note_error(self, code: int, now: float, operation: Operation) -> bool:
        """Keep what errno and queue say. True: they were about an earlier datagram."""
        assert self.sock is not None
        queued = read_error_queue(self.sock)
        own = self._local_address
        for entry in queued:
            self._note_fault(
                classify(
                    entry.errno, (entry,), operation=Operation.RECEIVE, own=own, asked=self._asked
                ),
                now,
            )
        if queued:
            return True
        fault = classify(code, operation=operation)
        # Without an entry, a refusal of a datagram is one whose entry was read before.
        if code and fault.failure is Failure.RESET:
            return True
        if code and operation is Operation.SEND:
            if fault.failure is Failure.LOCAL_LIMIT:
                self._limit = fault
            elif code in DENIED:
                self._denial = fault
            else:
                self._note_fault(fault, now)
        return False

    def _note_fault(self, fault: Fault, now: float) -> None:
        self._faults.append(fault)
        if self._refused_at is None:
            self._refused_at = now

    def _note_data(self, data: bytes, now: float) -> None:
        found = self._read(data)
        if found is None:
            if self._foreign is None:
                self._foreign = data[:FIRST_BYTES]
            if self._refused_at is None:
                self._refused_at = now
            return
        datagram, answer = found
        if datagram.rtt is None:
            datagram.rtt = now - datagram.sent_at
            self.slowest = max(self.slowest, datagram.rtt)
            self._answered += 1
            self._answer = self._answer or answer

    def _read(self, data: bytes) -> tuple[_Datagram, Answer] | None:
        """The answer and what it answers; None: these are not our bytes."""
        try:
            answer = read_answer(data, self._key)
            datagram = self._sent.get(answer.probe_id) if answer else None
            if answer and datagram:
                check_belonging(answer, len(data), datagram.challenge)
                return datagram, answer
        except NotOurs:
            pass
        return None

    def _as_attempt(self, datagram: _Datagram) -> Attempt:
        return Attempt(
            probe_id=datagram.challenge.probe_id.hex(),
            port=self.port,
            local_address=self._local_address,
            local_port=self._local_port,
        )


def _send_at(when: float, now: float) -> tuple[Step, float]:
    return (Step.SEND if now >= when else Step.WAIT), when
