"""What stands at the ends of a memory network: listeners, foreign programs, or nobody."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable

from preflight.model.cluster import Protocol
from preflight.model.observation import (
    Confirmation,
    ListenerCount,
    ListenerState,
    ListenerStatus,
    Sighting,
)
from preflight.model.plan import Listen
from preflight.ports import Ranges, each_port, from_ports
from preflight.wire.challenge import Challenge
from tests.memory.faults import Program, Unprivileged
from tests.memory.network import MemoryNetwork, Way
from tests.memory.setting import Machine

FIRST_FREE_PORT = 1024


class Host:
    """One machine: the programs that have its ports, and an agent's listeners on the others."""

    def __init__(self, machine: Machine, network: MemoryNetwork) -> None:
        self.machine = machine
        self.instance = os.urandom(16).hex()
        self.alive = True
        """Its agent runs."""
        self.called = False
        """A coordinator came as far as to its agent."""
        self._programs = {
            (program.protocol, program.port): program
            for program in network.planted(Program)
            if program.on == machine.name
        }
        self._unprivileged = network.has(Unprivileged(machine.name))
        self._held: dict[tuple[Protocol, str], set[int]] = defaultdict(set)
        self._challenged: dict[str, Sighting] = {}
        self._unchallenged: list[Sighting] = []

    def hold(self, listens: Iterable[Listen]) -> tuple[ListenerState, ...]:
        """Take every port that is free."""
        states = []
        for listen in listens:
            if listen.only_if_local and listen.address not in self.machine.addresses:
                continue
            fates: dict[tuple[ListenerStatus, bool], list[int]] = defaultdict(list)
            for port in each_port(listen.ports):
                fates[self._try_to_hold(listen.protocol, port)].append(port)
            for (state, listens_there), ports in fates.items():
                if state == "listening":
                    self._held[listen.protocol, listen.address].update(ports)
                states.append(_state(listen, from_ports(ports), state, listens=listens_there))
        return tuple(states)

    def program(self, way: Way) -> Program | None:
        """The foreign program that a connection or datagram reaches."""
        found = self._programs.get((way.protocol, way.port))
        idle = found is not None and found.behaviour == "idle" and way.protocol == "tcp"
        return None if idle else found

    def listens(self, way: Way) -> bool:
        """Whether an agent's listener gets it."""
        return self.alive and way.port in self._held.get((way.protocol, way.address), ())

    def note(
        self, way: Way, source_port: int, challenge: Challenge | None, *, answered: bool
    ) -> None:
        """A listener saw it; without a challenge only a connection."""
        sighting = Sighting(
            node=self.machine.name,
            protocol=way.protocol,
            address=way.address,
            port=way.port,
            source_address=way.observed_source,
            source_port=source_port,
            probe_id=challenge.probe_id.hex() if challenge else None,
            answered=answered,
        )
        if sighting.probe_id is None:
            self._unchallenged.append(sighting)
        else:
            self._challenged[sighting.probe_id] = sighting

    def seen(self, probe_ids: Collection[str]) -> tuple[Sighting, ...]:
        """What was seen of these, and the connections without a challenge."""
        claimed = [self._challenged[one] for one in probe_ids if one in self._challenged]
        return (*claimed, *self._unchallenged)

    def confirm(self) -> Confirmation:
        """All listeners were held without a break."""
        held = tuple(
            ListenerState(
                protocol=protocol, address=address, ports=from_ports(ports), state="listening"
            )
            for (protocol, address), ports in self._held.items()
        )
        counts = tuple(
            ListenerCount(
                protocol=state.protocol, address=state.address, ports=state.ports,
                accepted=0, answered=0, dropped=0,
            )
            for state in held
        )  # fmt: skip
        return Confirmation(instance=self.instance, held=held, counts=counts)

    def _try_to_hold(self, protocol: Protocol, port: int) -> tuple[ListenerStatus, bool]:
        program = self._programs.get((protocol, port))
        if program is not None:
            return "occupied", program.behaviour != "idle"
        if self._unprivileged and port < FIRST_FREE_PORT:
            return "denied", False
        return "listening", False


def _state(listen: Listen, ports: Ranges, state: ListenerStatus, *, listens: bool) -> ListenerState:
    occupied = state == "occupied"
    return ListenerState(
        protocol=listen.protocol,
        address=listen.address,
        ports=ports,
        state=state,
        owner="another program (pid 4711)" if occupied else "",
        owner_listens=occupied and listens,
        detail="EACCES: permission denied" if state == "denied" else "",
    )
