"""What a source sees in a memory network: the real probers' policy without sockets or time."""

import itertools
from collections.abc import Iterator, Mapping

from preflight.model.observation import Attempt, Failure, Icmp, Operation
from preflight.model.plan import ProbeOrder, Share
from preflight.net.classify import Fault
from preflight.net.prober import PortResult, skipped
from preflight.net.tcp_patience import MOST_SYNS
from preflight.net.tcp_task import TRIES_AFTER_CONNECT
from preflight.net.udp_exchange import FIRST_DATAGRAMS, LOSSY_DATAGRAMS, SILENT_DATAGRAMS
from preflight.ports import each_port
from preflight.wire.challenge import SMALL_SIZE, Challenge, new_challenge
from tests.memory.hosts import Host
from tests.memory.network import Lost, MemoryNetwork, Way
from tests.memory.setting import Machine

HANDSHAKE_LENGTH = 60
HEADERS = {"tcp": 52, "udp": 28}
LONGEST_PACKET = 1_500
KERNEL_TRIES = 4
"""How often a kernel sends a segment within the patience, the first time included."""
BANNER = b"SSH-2.0-stranger"
RTT_MS = 0.3
NOBODY_LISTENS = {4: (3, 3), 6: (1, 4)}
"""Type and code of the ICMP error that a host sends for a datagram to a port without a socket."""


class Source:
    """Probes from one machine, as its agent is ordered to."""

    def __init__(
        self, machine: Machine, network: MemoryNetwork, hosts: Mapping[str, Host], run_id: bytes
    ) -> None:
        self._machine = machine
        self._network = network
        self._hosts = hosts
        self._run_id = run_id
        self._local_ports = itertools.cycle(range(32_768, 61_000))
        self._room = 0.0
        self._silent_room = 0

    def begin(self, share: Share) -> None:
        """A new `Start`: so much may be tried at this rate until the deadline, and so much of
        it without an answer.
        """
        self._room = float("inf") if share.rate is None else share.rate * share.deadline
        self._silent_room = share.max_half_open
        self._full_size = share.full_size

    def carry_out(self, order: ProbeOrder) -> Iterator[PortResult]:
        """The results of one order, at least one for each of its ports."""
        probe = order.probe
        connect_only = frozenset(each_port(order.connect_only))
        proven: list[int] = []
        for port in each_port(probe.ports):
            if order.second_look:
                self._network.wait_a_second()
            # Nothing is ever sent to another program, and UDP knows no connecting alone.
            nothing_to_send = probe.protocol == "udp" and port in connect_only
            if min(self._room, self._silent_room) < 1 or nothing_to_send:
                yield skipped(port)
                continue
            self._room -= 1
            if probe.protocol == "udp":
                yield self._ask_udp(order, port)
                continue
            wanted = 1 if order.second_look or port in connect_only else probe.connections
            for _ in range(wanted):
                size = 0 if port in connect_only else SMALL_SIZE
                result = self._ask_tcp(order, port, size)
                self._silent_room -= result.failure is Failure.NO_ANSWER
                yield result
                proven += [port] if result.answered else []
        if probe.full_size_port is not None and proven and not order.second_look:
            port = probe.full_size_port if probe.full_size_port in proven else proven[0]
            yield self._ask_tcp(order, port, self._full_size)

    def _ask_tcp(self, order: ProbeOrder, port: int, size: int) -> PortResult:
        """One proven connection; size 0: only the connection."""
        result = PortResult(port=port, failure=None, size=size, rtt_ms=RTT_MS)
        way = self._network.find_way(self._machine, "tcp", order.probe.address, port)
        result.local_address = way.source_address or None
        fault, syns = self._connect(way, 1 if order.second_look else MOST_SYNS)
        result.attempts = syns
        if fault is not None:
            result.rtt_ms = None
            result.set_fault(fault)
            result.syns = syns if fault.failure is Failure.NO_ANSWER else 0
            return result
        result.retransmits = int(syns > 1)
        if not size:
            result.set_fault(Fault(Failure.CONNECTED_ONLY, Operation.CONNECT))
            return result
        for number in range(1 if order.second_look else TRIES_AFTER_CONNECT):
            challenge = new_challenge(self._run_id, size)
            source_port = next(self._local_ports)
            fault = self._exchange(way, challenge, source_port)
            if fault is None:
                result.answered, result.unanswered = 1, ()
                result.retransmits |= int(number > 0)
                self._set_answer(result, way)
                return result
            attempt = _attempt(way, port, challenge, source_port, connected=True)
            result.unanswered += (attempt,)
            result.set_fault(fault)
        if result.failure is Failure.FOREIGN_ANSWER:
            result.first_bytes = BANNER.hex()
        return result

    def _connect(self, way: Way, most: int) -> tuple[Fault | None, int]:
        """Up to so many SYNs. Returns the fault, if any, and how many SYNs it took."""
        for syns in range(1, most + 1):
            stop = self._network.carry_there(way, HANDSHAKE_LENGTH)
            if isinstance(stop, Fault):
                return stop, syns
            if stop is not None:
                continue
            host = self._host(way)
            if not (host.listens(way) or host.program(way)):
                return Fault(Failure.RESET, Operation.CONNECT, "ECONNREFUSED"), syns
            if self._network.carry_back(way, HANDSHAKE_LENGTH) is None:
                return None, syns
        return Fault(Failure.NO_ANSWER, Operation.CONNECT), most

    def _exchange(self, way: Way, challenge: Challenge, source_port: int) -> Fault | None:
        """Challenge and answer over a connection that is made. None: answered."""
        host = self._host(way)
        program = host.program(way)
        if program is not None:
            return {
                "greets": Fault(Failure.FOREIGN_ANSWER, Operation.RECEIVE),
                "closes": Fault(Failure.CLOSED_AFTER_CONNECT, Operation.RECEIVE),
            }.get(program.behaviour, Fault(Failure.SILENT_AFTER_CONNECT, Operation.RECEIVE))
        length = min(LONGEST_PACKET, challenge.size + HEADERS["tcp"])
        silence = Fault(Failure.SILENT_AFTER_CONNECT, Operation.RECEIVE)
        for _ in range(KERNEL_TRIES):
            stop = self._network.carry_there(way, length)
            if isinstance(stop, Fault):
                host.note(way, source_port, None, answered=False)
                if stop.failure is Failure.RESET:
                    return Fault(Failure.CLOSED_AFTER_CONNECT, Operation.RECEIVE, "ECONNRESET")
                return silence
            if stop is None:
                break
        else:
            host.note(way, source_port, None, answered=False)
            return silence
        host.note(way, source_port, challenge, answered=True)
        if all(self._network.carry_back(way, length) for _ in range(KERNEL_TRIES)):
            return silence
        return None

    def _ask_udp(self, order: ProbeOrder, port: int) -> PortResult:
        result = PortResult(port=port, failure=None, size=SMALL_SIZE)
        way = self._network.find_way(self._machine, "udp", order.probe.address, port)
        result.local_address = way.source_address or None
        source_port = next(self._local_ports)
        wanted = 1 if order.second_look else FIRST_DATAGRAMS
        fault: Fault | None = None
        while result.attempts < wanted and fault is None:
            challenge = new_challenge(self._run_id)
            result.attempts += 1
            fault = self._send_datagram(way, challenge, source_port, result)
            if result.attempts == FIRST_DATAGRAMS and result.answered < FIRST_DATAGRAMS:
                wanted = LOSSY_DATAGRAMS if result.answered else SILENT_DATAGRAMS
        if result.answered:
            result.rtt_ms = RTT_MS
            self._set_answer(result, way)
        else:
            result.set_fault(fault or Fault(Failure.NO_ANSWER, Operation.RECEIVE))
            if result.failure is Failure.FOREIGN_ANSWER:
                result.first_bytes = BANNER.hex()
            elif result.failure is not Failure.NO_ANSWER:
                result.unanswered = ()
        return result

    def _send_datagram(
        self, way: Way, challenge: Challenge, source_port: int, result: PortResult
    ) -> Fault | None:
        """One challenge; an answer, or the lack of one, is noted in `result`."""
        length = challenge.size + HEADERS["udp"]
        lost = _attempt(way, result.port, challenge, source_port, connected=False)
        stop = self._network.carry_there(way, length)
        if stop is Lost.AT_HOME:
            return Fault(Failure.SEND_DENIED, Operation.SEND, "EPERM")
        if isinstance(stop, Fault):
            return stop._replace(operation=Operation.RECEIVE)
        if stop is None:
            host = self._host(way)
            program = host.program(way)
            if program is not None and program.behaviour == "greets":
                result.unanswered += (lost,)
                return Fault(Failure.FOREIGN_ANSWER, Operation.RECEIVE)
            if host.listens(way):
                back = self._network.carry_back(way, length)
                host.note(way, source_port, challenge, answered=back is not Lost.AT_HOME)
                if back is None:
                    result.answered += 1
                    return None
            elif program is None:
                kind, code = NOBODY_LISTENS[way.family]
                icmp = Icmp(way.family, kind, code, way.address)
                return Fault(Failure.ICMP, Operation.RECEIVE, "ECONNREFUSED", icmp)
        result.unanswered += (lost,)
        return None

    def _set_answer(self, result: PortResult, way: Way) -> None:
        """What the answer of the agent that was reached says."""
        host = self._host(way)
        result.failure, result.operation = None, Operation.RECEIVE
        result.errno = result.icmp = None
        result.answered_by, result.answered_instance = host.machine.name, host.instance
        result.answered_port = way.port if way.port != result.port else None
        result.observed_source = way.observed_source

    def _host(self, way: Way) -> Host:
        assert way.machine is not None  # packets arrive at machines only
        return self._hosts[way.machine.name]


def _attempt(
    way: Way, port: int, challenge: Challenge, source_port: int, *, connected: bool
) -> Attempt:
    return Attempt(
        probe_id=challenge.probe_id.hex(),
        port=port,
        local_address=way.source_address,
        local_port=source_port,
        connected=connected,
    )
