"""Agents of a cluster in memory that tell at once what was planted: no network is played."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

from preflight.model.observation import Attempt, Failure, Operation
from preflight.model.plan import ProbeOrder
from preflight.net.classify import Fault
from preflight.net.prober import PortResult
from preflight.ports import each_port
from preflight.wire.challenge import SMALL_SIZE, new_challenge
from tests.memory.agents import MemoryCluster
from tests.memory.hosts import Host
from tests.memory.network import MemoryNetwork, Way
from tests.memory.probing import RTT_MS, Source
from tests.memory.setting import Machine, Setting

Fate: TypeAlias = Literal["open", "silent", "stalled", "closed"]
Truth: TypeAlias = Callable[[str, str, int], Fate]
"""Source, destination and TCP port -> what becomes of a connection."""

_FIRST_LOCAL_PORT = 32_768
_LOCAL_PORTS = 28_000
_ENDS = {
    "stalled": (Failure.SILENT_AFTER_CONNECT, None, 1),
    "closed": (Failure.CLOSED_AFTER_CONNECT, "ECONNRESET", 3),
}
"""How a connection ends, and how many a port gets: thousands that stand still are not repeated."""


class ScriptedCluster(MemoryCluster):
    """As a `MemoryCluster`, with one truth instead of a network of faults."""

    def __init__(self, setting: Setting, truth: Truth) -> None:
        super().__init__(setting)
        self._truth = truth

    def make_source(self, machine: Machine, run_id: bytes) -> Source:
        """Where an agent's probes come from."""
        return ScriptedSource(machine, self.network, self.hosts, run_id, self._truth)


class ScriptedSource(Source):
    """Probes from one machine, in as little time as possible: it is not what is measured."""

    def __init__(
        self,
        machine: Machine,
        network: MemoryNetwork,
        hosts: Mapping[str, Host],
        run_id: bytes,
        truth: Truth,
    ) -> None:
        super().__init__(machine, network, hosts, run_id)
        self._name = machine.name
        self._address = machine.addresses[0]
        self._at = hosts
        self._run = run_id
        self._truth = truth
        self._connections = 0

    def carry_out(self, order: ProbeOrder) -> Iterator[PortResult]:
        """The results of one order, one for each of its ports and one of full size."""
        probe = order.probe
        host = self._at[probe.answerers[0]]
        for port in each_port(probe.ports):
            if not host.alive or order.connect_only:
                yield self._silent(port)
            elif probe.protocol == "udp":
                yield self._answer(host, port, datagrams=4)
            else:
                yield self._ask(host, probe.address, port)
        if probe.full_size_port is not None and host.alive:
            yield self._answer(host, probe.full_size_port, size=self._full_size)

    def _ask(self, host: Host, address: str, port: int) -> PortResult:
        fate = self._truth(self._name, host.machine.name, port)
        if fate == "open":
            return self._answer(host, port)
        if fate == "silent":
            return self._silent(port)
        failure, errno, connections = _ENDS[fate]
        result = PortResult(port=port, failure=failure, size=SMALL_SIZE, rtt_ms=RTT_MS)
        result.set_fault(Fault(failure, Operation.RECEIVE, errno))
        result.local_address = self._address
        result.attempts = connections
        result.unanswered = tuple(self._attempt(host, address, port) for _ in range(connections))
        return result

    def _attempt(self, host: Host, address: str, port: int) -> Attempt:
        """A connection whose challenge arrives: the destination has something to tell of it."""
        self._connections += 1
        local_port = _FIRST_LOCAL_PORT + self._connections % _LOCAL_PORTS
        challenge = new_challenge(self._run)
        way = Way(
            self._at[self._name].machine, self._address, host.machine.name, address, "tcp", 4,
            host.machine, address, port, self._address, neighbours=False,
        )  # fmt: skip
        host.note(way, local_port, challenge, answered=True)
        return Attempt(
            probe_id=challenge.probe_id.hex(),
            port=port,
            local_address=self._address,
            local_port=local_port,
            connected=True,
        )

    def _answer(
        self, host: Host, port: int, *, datagrams: int = 1, size: int = SMALL_SIZE
    ) -> PortResult:
        return PortResult(
            port=port,
            failure=None,
            operation=Operation.RECEIVE,
            attempts=datagrams,
            answered=datagrams,
            rtt_ms=RTT_MS,
            answered_by=host.machine.name,
            answered_instance=host.instance,
            observed_source=self._address,
            local_address=self._address,
            size=size,
        )

    def _silent(self, port: int) -> PortResult:
        result = PortResult(port=port, failure=None, size=SMALL_SIZE, attempts=1)
        result.set_fault(Fault(Failure.NO_ANSWER, Operation.CONNECT))
        result.local_address = self._address
        return result
