"""The TCP prober: one tight epoll loop over plain sockets, in a thread of its own.

A window bounds the connections that make progress, so that no listener is overrun; those
that stay silent or stand still are set aside with their timers, so that a whole range may
be silent at once and still end together. Orders take turns, small ones first.
"""

from collections import deque

from preflight.model.observation import Failure, Operation
from preflight.model.plan import SLOW_PATIENCE, ProbeOrder
from preflight.net.classify import Fault
from preflight.net.polling import Polling
from preflight.net.prober import Report, Work, skipped
from preflight.net.tcp_attempt import EVENTS, Stage, TcpAttempt
from preflight.net.tcp_destination import Destination
from preflight.net.tcp_patience import FRESH_SYN_INTERVAL, Persistence
from preflight.net.tcp_task import Step, TcpTask
from preflight.ports import count_ports, each_port
from preflight.wire.challenge import new_challenge

_BATCH = 64
"""Connections begun before the events of others are looked at again."""
_LIMIT_PAUSE = 0.05
_FIRST_TRIES_A_RETRY = 8
"""While ports that were never tried wait for the pace, one retry may pass for so many of them."""
_NOTHING_MORE = Persistence(0, 0.0)


class _Run:
    """A connection on its way, with what it belongs to."""

    __slots__ = ("attempt", "destination", "task")

    def __init__(self, destination: Destination, task: TcpTask, attempt: TcpAttempt) -> None:
        self.destination = destination
        self.task = task
        self.attempt = attempt


class TcpProber:
    """Carries out the TCP orders of a `Work`, and reports each port once it is known."""

    def __init__(self, work: Work, report: Report) -> None:
        self._work = work
        self._report = report
        self._loop: Polling[_Run] = Polling()
        self._turns: deque[Destination] = deque()
        self._open_tasks: dict[TcpTask, Destination] = {}
        self._deadline = 0.0
        self._paused_until = 0.0
        self._waits_for_pace = False
        self._first_tries = 0

    def run(self) -> None:
        """Return when every port was reported, or soon after `stop`."""
        orders = sorted(
            enumerate(self._work.orders), key=lambda pair: count_ports(pair[1].probe.ports)
        )
        try:
            for index, order in orders:
                try:
                    destination = Destination(index, order, self._work)
                except OSError:
                    # A link-local address on an interface that is not there.
                    self._report_unroutable(index, order)
                else:
                    self._turns.append(destination)
            self._probe()
        finally:
            for run in self._loop.owners():
                self._abandon(run.destination, run.attempt)
            self._loop.close()

    def stop(self) -> None:
        """From any thread: give up, and report nothing more."""
        self._loop.stop()

    def _probe(self) -> None:
        loop = self._loop
        self._deadline = loop.now + self._work.share.deadline
        if self._work.once:
            least = loop.now + SLOW_PATIENCE + FRESH_SYN_INTERVAL
            self._deadline = max(self._deadline, least)
        while (self._open_tasks or self._turns) and not loop.stopped:
            if loop.now >= self._deadline:
                self._cut()
                return
            wait = self._launch()
            left = self._deadline - loop.now
            for run, events in loop.poll(left if wait is None else min(wait, left)):
                self._on_events(run, events)
            loop.fire_timers()

    def _launch(self) -> float | None:
        """Begin what may be begun. Returns the seconds until more may be; None: on an event."""
        self._waits_for_pace = False
        for _ in range(_BATCH):
            destination = self._next_destination()
            if destination is None:
                return None if self._open_tasks else 0.0
            if self._loop.now < self._paused_until:
                return self._paused_until - self._loop.now
            if not self._work.half_open.take(self._loop.now):
                return self._wait_for_room()
            wait = self._work.pace.take(self._loop.now)
            if wait:
                self._work.half_open.give_back()
                self._waits_for_pace = True
                return wait
            self._turns.rotate(-1)
            task = destination.next_task()
            assert task is not None  # it has work waiting
            self._first_tries += 1
            self._open_tasks[task] = destination
            self._begin(destination, task)
        return 0.0

    def _wait_for_room(self) -> float | None:
        """Until the bound on unanswered SYNs lets one more pass. If that is too late, all that
        was not tried is left out.
        """
        wait = self._work.half_open.wait(self._loop.now)
        if wait is not None and self._loop.now + wait >= self._deadline:
            self._skip_untried()
            return 0.0
        return wait

    def _next_destination(self) -> Destination | None:
        """Whose turn it is: the first with work waiting and room in its part of the window."""
        for _ in range(len(self._turns)):
            destination = self._turns[0]
            if not destination.has_waiting:
                self._turns.popleft()
            elif destination.window.has_room(len(self._turns)):
                return destination
            else:
                self._turns.rotate(-1)
        return None

    def _take_for_retry(self) -> bool:
        """Whether a further SYN has room: what was never tried goes first, also at the pace."""
        if self._waits_for_pace and self._first_tries < _FIRST_TRIES_A_RETRY:
            return False
        untried = sum(destination.untried for destination in self._turns)
        return self._work.half_open.take(self._loop.now, leaving=untried)

    def _begin(self, destination: Destination, task: TcpTask) -> None:
        """Send a SYN, for which there is room and pace."""
        now = self._loop.now
        challenge = None if task.connect_only else new_challenge(self._work.run_id, task.size)
        attempt = TcpAttempt(destination.asked, challenge, self._work.key, now)
        address = destination.socket_address(task.port)
        attempt.begin(destination.family, address, self._work.share.close)
        task.note_begun(attempt, now)
        if attempt.sock is None or attempt.stage is Stage.ENDED:
            self._work.half_open.give_back()
            if attempt.fault is not None and attempt.fault.failure is Failure.LOCAL_LIMIT:
                self._paused_until = now + _LIMIT_PAUSE
            attempt.close()
            task.ended_at = now
            self._advance(destination, task)
            return
        run = _Run(destination, task, attempt)
        self._loop.watch(attempt.sock.fileno(), run, EVENTS)
        destination.window.taken += 1
        attempt.in_window = True
        self._loop.at(now + destination.window.stay(asking=False), self._set_aside, run)
        self._schedule(destination, task, now + min(FRESH_SYN_INTERVAL, task.patience))

    def _on_events(self, run: _Run, events: int) -> None:
        attempt, task, now = run.attempt, run.task, self._loop.now
        was_connecting = attempt.stage is Stage.CONNECTING
        attempt.on_events(events, now)
        if was_connecting and attempt.stage is not Stage.CONNECTING:
            self._settle(run)
            self._note_silent(run.destination, task, silent=False)
            if attempt.connected:
                self._note_connected(run, now)
        if attempt.stage is Stage.ENDED:
            if attempt.answer is not None and not attempt.retransmits:
                run.destination.window.note_answer(now - attempt.began_at)
            self._close(run.destination, attempt)
            task.ended_at = now
            self._advance(run.destination, task)

    def _settle(self, run: _Run) -> None:
        """The SYN had its answer, or its end.

        What `plan` says of state tables counts one connection with an answer for each that is
        wanted. Others come on top, and so are bounded as those without an answer are.
        """
        others = (one for one in run.task.attempts if one is not run.attempt)
        if run.attempt.in_vain or not all(one.in_vain for one in others):
            self._work.half_open.leave(self._loop.now)
        else:
            self._work.half_open.give_back()

    def _note_connected(self, run: _Run, now: float) -> None:
        task, attempt = run.task, run.attempt
        if task.connected_at is None:
            task.note_connected(attempt, now)
            run.destination.note_handshake(task)
            for rival in task.attempts:
                if rival is not attempt and rival.stage is Stage.CONNECTING:
                    self._abandon(run.destination, rival)
        if attempt.rtt_ms is not None and not attempt.retransmits:
            run.destination.window.note_handshake(attempt.rtt_ms / 1000)
        if attempt.stage is Stage.ASKING:
            self._advance(run.destination, task)

    def _set_aside(self, run: _Run) -> None:
        """A timer: the connection has had its time in the window."""
        attempt, window = run.attempt, run.destination.window
        if not attempt.in_window:
            return
        asking = attempt.stage is Stage.ASKING
        until = attempt.began_at + window.stay(asking=asking)
        if asking and self._loop.now < until:
            self._loop.at(until, self._set_aside, run)
            return
        if asking:
            window.note_stall()
        self._leave_window(run.destination, attempt)

    def _leave_window(self, destination: Destination, attempt: TcpAttempt) -> None:
        if attempt.in_window:
            attempt.in_window = False
            destination.window.taken -= 1

    def _schedule(self, destination: Destination, task: TcpTask, when: float) -> None:
        task.review_at = when
        self._loop.at(when, self._review, (destination, task, when))

    def _review(self, due: tuple[Destination, TcpTask, float]) -> None:
        """A timer: look at a task again, unless it ended or another review was set since."""
        destination, task, when = due
        if not task.done and task.review_at == when:
            if task.connected_at is None:
                self._note_silent(destination, task, silent=True)
            elif not task.counted_stalled and when > task.connected_at:
                task.counted_stalled = True
                destination.stalled += 1
            self._advance(destination, task)

    def _note_silent(self, destination: Destination, task: TcpTask, *, silent: bool) -> None:
        if task.counted_silent is not silent:
            task.counted_silent = silent
            destination.silent += 1 if silent else -1

    def _advance(self, destination: Destination, task: TcpTask) -> None:
        """Do the task's next step."""
        if task.done:
            return
        now = self._loop.now
        step, until = task.next_step(now, destination.persistence())
        if step is Step.END:
            self._finish(destination, task)
        elif step is Step.WAIT:
            destination.call_witness(task, now)
            self._take_turns(destination)
            self._schedule(destination, task, until)
        elif not self._take_for_retry():
            self._put_off(destination, task, FRESH_SYN_INTERVAL)
        elif wait := self._work.pace.take(now):
            self._work.half_open.give_back()
            self._put_off(destination, task, wait)
        else:
            self._first_tries = 0
            self._begin(destination, task)

    def _put_off(self, destination: Destination, task: TcpTask, seconds: float) -> None:
        """A further attempt has to wait; a task that was going to end anyway ends."""
        step, until = task.next_step(self._loop.now, _NOTHING_MORE)
        if step is Step.END:
            self._finish(destination, task)
        else:
            latest = until if step is Step.WAIT else self._loop.now + seconds
            self._schedule(destination, task, min(latest, self._loop.now + seconds))

    def _finish(self, destination: Destination, task: TcpTask) -> None:
        task.done = True
        del self._open_tasks[task]
        result = task.result(self._loop.now)
        for attempt in task.attempts:
            self._abandon(destination, attempt)
        if destination.note_end(task, result):
            self._report(destination.index, result)
        self._take_turns(destination)

    def _take_turns(self, destination: Destination) -> None:
        if destination.has_waiting and destination not in self._turns:
            self._turns.append(destination)

    def _abandon(self, destination: Destination, attempt: TcpAttempt) -> None:
        if attempt.stage is Stage.CONNECTING:
            self._work.half_open.leave(self._loop.now)
        self._close(destination, attempt)

    def _close(self, destination: Destination, attempt: TcpAttempt) -> None:
        if attempt.sock is not None:
            self._loop.forget(attempt.sock.fileno())
        attempt.close()
        self._leave_window(destination, attempt)

    def _report_unroutable(self, index: int, order: ProbeOrder) -> None:
        for port in each_port(order.probe.ports):
            result = skipped(port)
            result.set_fault(Fault(Failure.NO_ROUTE, Operation.CONNECT))
            self._report(index, result)

    def _skip_untried(self) -> None:
        for destination in self._turns:
            for port in destination.drain():
                self._report(destination.index, skipped(port))
        self._turns.clear()

    def _cut(self) -> None:
        """The deadline: say what is known of what runs, and that the rest was not tried."""
        open_tasks, self._open_tasks = self._open_tasks, {}
        for task, destination in open_tasks.items():
            result = task.cut_result(self._loop.now)
            if destination.note_end(task, result):
                self._report(destination.index, result)
        self._skip_untried()
