"""What the TCP prober keeps of one order: which ports are still to be tried, and the loss seen."""

from collections import deque
from collections.abc import Iterator

from preflight.model.observation import Failure
from preflight.model.plan import ProbeOrder
from preflight.net.prober import PortResult, Work, patience_of, plain_address, socket_address
from preflight.net.tcp_patience import (
    LONGEST_SILENCE,
    MOST_SYNS,
    Persistence,
    last_wait,
    needed_syns,
)
from preflight.net.tcp_task import SAME_TIME, TcpTask
from preflight.net.tcp_window import Window
from preflight.ports import count_ports, each_port
from preflight.wire.challenge import SMALL_SIZE

FEW_SILENT = 16
"""Up to so many silent ports get further SYNs from new sockets although nothing answers."""
FEW_STALLED = 16
"""Up to so many ports that connect and stay silent get further connections without loss."""
_NOTABLE_LOSS = 0.02
_AT_ONCE = 4
"""Connections at a time to a port of which several are wanted."""


class _Series:
    """A port of which several proven connections are wanted."""

    __slots__ = ("ended", "proven", "running", "started")

    def __init__(self) -> None:
        self.started = self.running = self.ended = self.proven = 0


class Destination:
    """Yields the tasks of one order, in turn, and hears how they ended."""

    def __init__(self, index: int, order: ProbeOrder, work: Work) -> None:
        probe, once = order.probe, work.once
        self.index = index
        self.window = Window()
        self.asked = plain_address(probe.address)
        self.family, sample = socket_address(probe.address, 0)
        self._rest = sample[2:]
        self._host = sample[0]
        self._ports: Iterator[int] = each_port(probe.ports)
        self._port_count = count_ports(probe.ports)
        self._connect_only = frozenset(each_port(order.connect_only))
        self._wanted = 1 if once else probe.connections
        self._full_size_port = None if once else probe.full_size_port
        self._patience = patience_of(order, work)
        self._full_size = work.share.full_size
        self._once = once
        self._extra: deque[TcpTask] = deque()
        self._series: dict[int, _Series] = {}
        self._unended = self._port_count
        self._proven_port: int | None = None
        self.untried = self._port_count
        """Ports without any task so far."""
        self.silent = 0
        """Ports that are, or ended, without any answer to their SYNs."""
        self.stalled = 0
        """Ports that were connected, and had no answer a second later."""
        self._reached = 0
        self._lost = 0
        self._slowest = 0.0
        self._heard_at = 0.0
        self._heard_port: int | None = None
        self._witness_at = 0.0

    def socket_address(self, port: int) -> tuple[object, ...]:
        """The address for `connect`."""
        return (self._host, port, *self._rest)

    def next_task(self) -> TcpTask | None:
        """The next one to begin; None: nothing for now."""
        if self._extra:
            return self._extra.popleft()
        port = next(self._ports, None)
        if port is None:
            return None
        self.untried -= 1
        task = self._new_task(port)
        if self._wanted > 1 and not task.connect_only:
            series = self._series[port] = _Series()
            series.started = series.running = min(_AT_ONCE, self._wanted)
            self._extra.extend(self._new_task(port) for _ in range(series.started - 1))
        return task

    def drain(self) -> Iterator[int]:
        """The ports that were never tried; they never will be."""
        self._extra.clear()
        for port in self._ports:
            self.untried -= 1
            yield port

    def note_handshake(self, task: TcpTask) -> None:
        """The task was connected for the first time."""
        self._reached += 1
        self._lost += task.lost_syns()
        if task.winner is not None:
            self._heard_port = task.port
            self._heard_at = max(self._heard_at, task.winner.began_at)
            if not task.lost_syns():
                self._slowest = max(self._slowest, (task.winner.rtt_ms or 0.0) / 1000)

    def call_witness(self, silent: TcpTask, now: float) -> None:
        """Try a port that answered once more, if no other one was answered since the last SYN
        of this silent port: does the destination answer at all, at this time?
        """
        if silent.enough_at is None or self._heard_port is None or silent.connected_at is not None:
            return
        if max(self._heard_at, self._witness_at) < silent.enough_at - SAME_TIME:
            self._witness_at = now
            task = self._new_task(self._heard_port)
            task.witness = True
            self._extra.append(task)

    def persistence(self) -> Persistence:
        """What a silent port is worth, by how many there are and by the loss seen so far."""
        seconds = max(self._patience, LONGEST_SILENCE) if self._lost else self._patience
        loss = self._lost / max(1, self._lost + self._reached)
        # Thousands of connections that stand still fill the listener; three times as many more so.
        asks_again = self.stalled <= FEW_STALLED or loss >= _NOTABLE_LOSS
        syns = needed_syns(self._port_count, self._reached, self._lost)
        if syns <= MOST_SYNS:
            wait = last_wait(self._slowest)
            return Persistence(syns, seconds, asks_again, wait, self._heard_at)
        syns = MOST_SYNS if self._lost or self.silent <= FEW_SILENT else 0
        return Persistence(syns, seconds, asks_again)

    def note_end(self, task: TcpTask, result: PortResult) -> bool:
        """The task ended: sets `result.finishes`, and may have further tasks follow.

        False: the result says nothing that is not known from others of its port.
        """
        if task.witness:
            return False
        if task.stubborn:
            result.finishes = False
            return result.failure is not Failure.SKIPPED
        if result.answered:
            self._proven_port = self._proven_port or task.port
            if task.port == self._full_size_port:
                self._ask_full_size(task.port)
        series = self._series.get(task.port)
        worth_telling = result.failure is not Failure.SKIPPED or not (series and series.ended)
        result.finishes = series is None or not self._continue(series, task.port, result)
        if result.finishes:
            self._unended -= 1
            if not self._unended and self._full_size_port and self._proven_port:
                self._ask_full_size(self._proven_port)
        return worth_telling

    @property
    def has_waiting(self) -> bool:
        """Whether `next_task` would give one."""
        return bool(self._extra) or self.untried > 0

    def _continue(self, series: _Series, port: int, result: PortResult) -> bool:
        """Whether the port has connections running or to come."""
        series.running -= 1
        series.ended += 1
        series.proven += result.answered
        # If the first few all fail, the rest would only fail as well.
        while series.proven and series.running < _AT_ONCE and series.started < self._wanted:
            series.started += 1
            series.running += 1
            self._extra.append(self._new_task(port))
        return series.running > 0

    def _ask_full_size(self, port: int) -> None:
        self._full_size_port = None
        self._extra.append(TcpTask(port, self._full_size, self._patience, stubborn=True))

    def _new_task(self, port: int) -> TcpTask:
        connect_only = port in self._connect_only
        size = 0 if connect_only else SMALL_SIZE
        return TcpTask(port, size, self._patience, connect_only=connect_only, once=self._once)
