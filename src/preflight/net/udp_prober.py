"""The UDP prober: one epoll loop over connected sockets, in a thread of its own."""

import select
from collections.abc import Iterator

from preflight.model.observation import Failure, Operation
from preflight.model.plan import SLOW_PATIENCE
from preflight.net.classify import Fault
from preflight.net.polling import Polling
from preflight.net.prober import (
    Report,
    Work,
    patience_of,
    plain_address,
    skipped,
    socket_address,
)
from preflight.net.udp_exchange import Step, UdpExchange
from preflight.net.udp_window import UdpWindow
from preflight.ports import each_port, subtract

_BATCH = 32
"""Exchanges begun before answers are looked at again."""
_LIMIT_PAUSE = 0.25
_GRACE = 0.3


class UdpProber:
    """Carries out the UDP orders of a `Work`, and reports each port once it is known."""

    def __init__(self, work: Work, report: Report) -> None:
        self._work = work
        self._report = report
        self._loop: Polling[tuple[int, UdpExchange]] = Polling()
        self._open: dict[UdpExchange, int] = {}
        self._window = UdpWindow()
        self._waiting = self._each_port()
        self._all_begun = False
        self._paused_until = 0.0

    def run(self) -> None:
        """Return when every port was reported, or soon after `stop`."""
        try:
            for index, order in enumerate(self._work.orders):
                # Nothing is ever sent to another program, and UDP knows no connecting alone.
                for port in each_port(order.connect_only):
                    self._report(index, skipped(port))
            self._probe()
        finally:
            for exchange in self._open:
                exchange.close()
            self._loop.close()

    def stop(self) -> None:
        """From any thread: give up, and report nothing more."""
        self._loop.stop()

    def _probe(self) -> None:
        loop = self._loop
        deadline = loop.now + self._work.share.deadline
        if self._work.once:
            deadline = max(deadline, loop.now + SLOW_PATIENCE + _GRACE)
        while (self._open or not self._all_begun) and not loop.stopped:
            if loop.now >= deadline:
                self._cut()
                return
            wait = self._launch()
            left = deadline - loop.now
            for owner, events in loop.poll(left if wait is None else min(wait, left)):
                self._on_events(owner, events)
            loop.fire_timers()

    def _each_port(self) -> Iterator[tuple[int, int]]:
        """(Index of the order, port), the orders taking turns."""
        turns = [
            (index, each_port(subtract(order.probe.ports, order.connect_only)))
            for index, order in enumerate(self._work.orders)
        ]
        while turns:
            remaining = []
            for index, ports in turns:
                port = next(ports, None)
                if port is not None:
                    remaining.append((index, ports))
                    yield index, port
            turns = remaining

    def _launch(self) -> float | None:
        """Begin what may be begun. Returns the seconds until more may be; None: on an event."""
        for _ in range(_BATCH):
            if self._all_begun:
                return None if self._open else 0.0
            if self._loop.now < self._paused_until:
                return self._paused_until - self._loop.now
            if not self._window.has_room:
                return None
            wait = self._work.pace.take(self._loop.now)
            if wait:
                return wait
            index, port = next(self._waiting, (-1, 0))
            if index < 0:
                self._all_begun = True
            else:
                self._begin((index, self._new_exchange(index, port)))
        return 0.0

    def _new_exchange(self, index: int, port: int) -> UdpExchange:
        work = self._work
        order = work.orders[index]
        asked = plain_address(order.probe.address)
        patience = patience_of(order, work)
        exchange = UdpExchange(asked, port, work.run_id, work.key, patience, once=work.once)
        exchange.began_at = self._loop.now
        exchange.in_window = True
        self._window.enter()
        self._open[exchange] = index
        return exchange

    def _begin(self, owner: tuple[int, UdpExchange]) -> None:
        """Also a timer, for an exchange that ran into our own limits."""
        index, exchange = owner
        now = self._loop.now
        try:
            family, address = socket_address(self._work.orders[index].probe.address, exchange.port)
        except OSError:
            # A link-local address on an interface that is not there.
            exchange.fail(Fault(Failure.NO_ROUTE, Operation.CONNECT))
        else:
            first_at = exchange.began_at
            exchange.begin(family, address, now)
            if exchange.is_limited and now < first_at + self._work.share.patience:
                exchange.began_at = first_at
                self._paused_until = now + _LIMIT_PAUSE
                self._loop.at(self._paused_until, self._begin, owner)
                return
        if exchange.sock is not None:
            self._loop.watch(exchange.sock.fileno(), owner, select.EPOLLIN)
        self._advance(owner)

    def _on_events(self, owner: tuple[int, UdpExchange], events: int) -> None:
        exchange = owner[1]
        slowest = exchange.slowest
        exchange.on_events(events, self._loop.now)
        if exchange.slowest > slowest:
            self._window.note_answer(exchange.slowest, self._loop.now)
        self._advance(owner)

    def _advance(self, owner: tuple[int, UdpExchange]) -> None:
        """Do the exchange's next steps. Also a timer; a stale one does no harm."""
        index, exchange = owner
        if exchange.ended:
            return
        now = self._loop.now
        step, until = exchange.next_step(now)
        while step is Step.SEND:
            exchange.send(now)
            step, until = exchange.next_step(now)
        if exchange.in_window and now >= exchange.is_silent_from:
            self._leave_window(exchange)
        if step is Step.WAIT:
            self._schedule(owner, until)
            return
        result = exchange.result(now)
        self._end(exchange)
        self._report(index, result)

    def _schedule(self, owner: tuple[int, UdpExchange], when: float) -> None:
        exchange = owner[1]
        if exchange.review_at != when:
            exchange.review_at = when
            self._loop.at(when, self._advance, owner)

    def _leave_window(self, exchange: UdpExchange) -> None:
        if exchange.in_window:
            exchange.in_window = False
            self._window.leave(silent=exchange.is_silent)

    def _end(self, exchange: UdpExchange) -> None:
        exchange.ended = True
        self._leave_window(exchange)
        del self._open[exchange]
        if exchange.sock is not None:
            self._loop.forget(exchange.sock.fileno())
        exchange.close()

    def _cut(self) -> None:
        """The deadline: say what is known of what runs, and that the rest was not tried."""
        for exchange, index in list(self._open.items()):
            result = exchange.result(self._loop.now, cut=True)
            self._end(exchange)
            self._report(index, result)
        for index, port in self._waiting:
            self._report(index, skipped(port))
        self._all_begun = True
