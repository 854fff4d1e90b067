"""A small world to observe: nodes, flows, and what both ends would tell of them.

Everything is well until something is added: all agents are ready, hold what they were asked to
hold, and confirm it. Outcomes are added by hand, since they are what a test is about.
"""

# ruff: noqa: ANN401 -- `**fields` are fields of the structs that are made, checked there

from collections import defaultdict
from typing import Any

from preflight.columns import pack_attempts, pack_sightings
from preflight.model.cluster import Protocol
from preflight.model.observation import (
    AgentObservation,
    AgentState,
    Attempt,
    Confirmation,
    Facts,
    Failure,
    Icmp,
    ListenerCount,
    ListenerState,
    Observations,
    Operation,
    Outcome,
    Phase,
    Sighting,
)
from preflight.model.plan import (
    Flow,
    Limits,
    Listen,
    Plan,
    PlannedNode,
    PlannedRule,
    PlannedVip,
    Probe,
)
from preflight.planning import sample_ports
from preflight.ports import Ranges, count_ports, parse_ports, subtract, union

RUN_ID = "0f" * 16


def instance_of(node: str) -> str:
    """The instance id of a node's agent, readable on purpose."""
    return f"instance-of-{node}"


class World:
    """Collects a plan and its observations."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.nodes: dict[str, PlannedNode] = {}
        self.vips: dict[str, PlannedVip] = {}
        self.flows: list[Flow] = []
        self.agents: dict[str, dict[str, Any]] = defaultdict(dict)
        self.unheard: set[str] = set()
        self.holders: list[tuple[str, ListenerState]] = []
        self.drops: list[tuple[str, ListenerCount]] = []
        self.outcomes: list[Outcome] = []
        self.sightings: list[Sighting] = []
        self.notes: tuple[str, ...] = ()
        self.interrupted = False

    # What is planned.

    def node(self, name: str, *addresses: str, role: str = "worker", nat: bool = False) -> "World":
        self.nodes[name] = PlannedNode(
            name=name,
            roles=(role,),
            addresses=addresses,
            control_host=addresses[0],
            control_port=10888,
            nat=nat,
        )
        return self

    def vip(self, name: str, address: str, port: int, *backends: str) -> "World":
        self.vips[name] = PlannedVip(name=name, address=address, port=port, backends=backends)
        return self

    def flow(
        self,
        source: str,
        destination: str,
        ports: str,
        protocol: Protocol = "tcp",
        *,
        rule: str = "rule",
        family: int = 4,
        **fields: Any,
    ) -> "World":
        where = (
            self.vips[destination].address
            if destination in self.vips
            else self._address(destination, family)
        )
        self.flows.append(
            Flow(
                rule=rule,
                source=source,
                destination=destination,
                protocol=protocol,
                family=4 if family == 4 else 6,
                source_address=self._address(source, family),
                destination_address=where,
                ports=parse_ports(ports),
                **fields,
            )
        )
        return self

    # What is observed.

    def agent(self, node: str, state: AgentState = "ready", **fields: Any) -> "World":
        """Change what is heard of an agent; one that is not ready confirms nothing."""
        self.agents[node] |= {"state": state, **fields}
        return self

    def occupied(self, node: str, ports: str, protocol: Protocol = "tcp", **fields: Any) -> "World":
        return self._hold(node, ports, protocol, "occupied", **fields)

    def denied(
        self, node: str, ports: str, protocol: Protocol = "tcp", detail: str = ""
    ) -> "World":
        return self._hold(node, ports, protocol, "denied", detail=detail)

    def dropped(self, node: str, ports: str, protocol: Protocol = "tcp") -> "World":
        """The node's listener had to drop attempts by its own limits."""
        count = ListenerCount(
            protocol=protocol,
            address=self.nodes[node].addresses[0],
            ports=parse_ports(ports),
            accepted=5_000,
            answered=4_990,
            dropped=10,
        )
        self.drops.append((node, count))
        return self

    def proven(self, source: str, destination: str, ports: str, **fields: Any) -> "World":
        """The right agent answered: once on each port, unless told otherwise."""
        protocol = fields.get("protocol", "tcp")
        count = count_ports(parse_ports(ports)) * (1 if protocol == "tcp" else 4)
        by = fields.pop("answered_by", destination)
        defaults = {
            "operation": Operation.RECEIVE,
            "attempts": count,
            "answered": count,
            "rtt_ms": 0.4,
            "answered_by": by,
            "answered_instance": instance_of(by),
            "observed_source": self._address(source, fields.get("family", 4)),
            "local_address": self._address(source, fields.get("family", 4)),
        }
        return self.outcome(source, destination, ports, None, **{**defaults, **fields})

    def silent(self, source: str, destination: str, ports: str, **fields: Any) -> "World":
        """No answer: twelve attempts on each port, unless told otherwise."""
        attempts = 12 * count_ports(parse_ports(ports))
        operation = Operation.CONNECT if fields.get("protocol", "tcp") == "tcp" else Operation.SEND
        defaults = {"operation": operation, "attempts": attempts}
        return self.outcome(source, destination, ports, Failure.NO_ANSWER, **{**defaults, **fields})

    def refused(
        self, source: str, destination: str, ports: str, icmp: Icmp, **fields: Any
    ) -> "World":
        """An ICMP error on each of the ports."""
        count = count_ports(parse_ports(ports))
        defaults = {
            "operation": Operation.CONNECT,
            "errno": "EHOSTUNREACH",
            "icmp": icmp,
            "icmp_seen": count,
            "attempts": count,
        }
        return self.outcome(source, destination, ports, Failure.ICMP, **{**defaults, **fields})

    def connected(
        self, source: str, destination: str, port: int, failure: Failure, **fields: Any
    ) -> "World":
        """Three handshakes were completed, and no valid answer came."""
        attempts = tuple(
            Attempt(
                probe_id=f"{port:04x}{number}",
                port=port,
                local_address=self._address(source, 4),
                local_port=50_000 + number,
                connected=True,
            )
            for number in range(3)
        )
        defaults = {"operation": Operation.RECEIVE, "attempts": 3, "unanswered": attempts}
        return self.outcome(source, destination, str(port), failure, **{**defaults, **fields})

    def outcome(
        self,
        source: str,
        destination: str,
        ports: str,
        failure: Failure | None,
        *,
        protocol: Protocol = "tcp",
        family: int = 4,
        **fields: Any,
    ) -> "World":
        probe = self.probe(source, destination, protocol, family)
        fields["unanswered"] = pack_attempts(fields.get("unanswered", ()))
        self.outcomes.append(
            Outcome(
                probe=probe.id,
                ports=parse_ports(ports),
                failure=failure,
                **{"size": 256, "attempts": count_ports(parse_ports(ports)), **fields},
            )
        )
        return self

    def sighting(self, node: str, port: int, probe_id: str | None, **fields: Any) -> "World":
        defaults = {
            "protocol": "tcp",
            "address": self.nodes[node].addresses[0],
            "source_address": "10.0.2.11",
            "source_port": 50_000,
            "answered": False,
        }
        self.sightings.append(
            Sighting(node=node, port=port, probe_id=probe_id, **{**defaults, **fields})
        )
        return self

    # Both, whole.

    def probe(
        self, source: str, destination: str, protocol: Protocol = "tcp", family: int = 4
    ) -> Probe:
        return next(
            probe
            for probe in self._probes()
            if (probe.source, probe.destination, probe.protocol) == (source, destination, protocol)
            and (":" in probe.address) == (family != 4)
        )

    def plan(self) -> Plan:
        rules = dict.fromkeys(flow.rule for flow in self.flows)
        return Plan(
            run_id=RUN_ID,
            cluster="test",
            profiles=("test",),
            nodes=tuple(self.nodes.values()),
            vips=tuple(self.vips.values()),
            rules=tuple(
                PlannedRule(name=name, why="A test.", source_text="this test", profile="test")
                for name in rules
            ),
            flows=tuple(self.flows),
            listens=self._listens(),
            probes=self._probes(),
            limits=self.limits,
            notes=self.notes,
        )

    def observations(self) -> Observations:
        return Observations(
            agents=tuple(self._agent(name) for name in self.nodes if name not in self.unheard),
            outcomes=tuple(self.outcomes),
            sightings=pack_sightings(self.sightings),
            phases=(Phase(name="probe", elapsed_ms=812.0),),
            started="2026-01-05T08:00:00Z",
            finished="2026-01-05T08:00:06Z",
            interrupted=self.interrupted,
        )

    def _agent(self, name: str) -> AgentObservation:
        taken = [state for node, state in self.holders if node == name]
        listening = [
            ListenerState(
                protocol=listen.protocol, address=listen.address, ports=left, state="listening"
            )
            for listen in self._listens()
            if listen.node == name and not listen.only_if_local
            if (left := _without(listen, taken))
        ]
        instance = instance_of(name)
        counts = tuple(count for node, count in self.drops if node == name)
        fields = {
            "version": "0.1.0",
            "instance": instance,
            "clock_offset_ms": 0.4,
            "facts": Facts(hostname=name, addresses=self.nodes[name].addresses),
            "listeners": (*listening, *taken),
            "confirmation": Confirmation(instance=instance, held=tuple(listening), counts=counts),
        }
        changes = self.agents.get(name, {})
        state = changes.get("state", "ready")
        if state in {"unreachable", "refused"}:
            fields = {}
        elif state == "lost":
            del fields["confirmation"]
        return AgentObservation(node=name, **{"state": state, **fields, **changes})

    def _hold(
        self, node: str, ports: str, protocol: Protocol, state: Any, **fields: Any
    ) -> "World":
        address = self.nodes[node].addresses[0]
        self.holders.append(
            (
                node,
                ListenerState(
                    protocol=protocol,
                    address=address,
                    ports=parse_ports(ports),
                    state=state,
                    **fields,
                ),
            )
        )
        return self

    def _listens(self) -> tuple[Listen, ...]:
        wanted: dict[tuple[str, Protocol, str, bool], Ranges] = defaultdict(tuple)
        for flow in self.flows:
            vip = self.vips.get(flow.destination)
            for node in vip.backends if vip else (flow.destination,):
                own = self._address(node, flow.family) if vip else flow.destination_address
                key = (node, flow.protocol, own, False)
                wanted[key] = union(wanted[key], self._tried(flow))
                if vip:
                    key = (node, flow.protocol, vip.address, True)
                    wanted[key] = union(wanted[key], self._tried(flow))
        return tuple(
            Listen(node=node, protocol=protocol, address=address, ports=ports, only_if_local=local)
            for (node, protocol, address, local), ports in wanted.items()
        )

    def _probes(self) -> tuple[Probe, ...]:
        wanted: dict[tuple[str, str, Protocol, str], Ranges] = defaultdict(tuple)
        for flow in self.flows:
            key = (flow.source, flow.destination, flow.protocol, flow.destination_address)
            wanted[key] = union(wanted[key], self._tried(flow))
        return tuple(
            Probe(
                id=number,
                source=source,
                destination=destination,
                protocol=protocol,
                address=address,
                ports=ports,
                answerers=self.vips[destination].backends
                if destination in self.vips
                else (destination,),
                connections=6 if destination in self.vips else 1,
                full_size_port=ports[0][0] if protocol == "tcp" else None,
            )
            for number, ((source, destination, protocol, address), ports) in enumerate(
                wanted.items()
            )
        )

    def _tried(self, flow: Flow) -> Ranges:
        return sample_ports(flow.ports, self.limits.sample)

    def _address(self, node: str, family: int) -> str:
        return next(a for a in self.nodes[node].addresses if (":" in a) == (family != 4))


def pair(ports: str = "6443", protocol: Protocol = "tcp", **fields: Any) -> World:
    """The smallest world: w1 (10.0.2.11) has one flow to m1 (10.0.1.11)."""
    world = World().node("w1", "10.0.2.11").node("m1", "10.0.1.11", role="control-plane")
    return world.flow("w1", "m1", ports, protocol, **fields)


def behind_vip(*backends: str) -> World:
    """w1 has a flow to the VIP `api` (10.0.1.10:6443) with these backends."""
    world = World().node("w1", "10.0.2.11")
    for number, name in enumerate(backends, 11):
        world.node(name, f"10.0.1.{number}", role="control-plane")
    return world.vip("api", "10.0.1.10", 6443, *backends).flow("w1", "api", "6443")


def _without(listen: Listen, taken: list[ListenerState]) -> Ranges:
    ports = listen.ports
    for state in taken:
        if (state.protocol, state.address) == (listen.protocol, listen.address):
            ports = subtract(ports, state.ports)
    return ports
