"""What a plan costs the network: for people who must agree to it beforehand."""

from msgspec import Struct

from preflight.model.plan import (
    COLLECT_PATIENCE,
    GRACE,
    HOLD_PATIENCE,
    RELEASE_PATIENCE,
    SECOND_LOOK_INTERVAL,
    Limits,
    Plan,
)
from preflight.planning.sharing import (
    MOST_ATTEMPTS,
    TRIES_OF_A_LOOK,
    first_pass_half_open,
    most_looks,
)
from preflight.ports import count_ports

FEWEST_DATAGRAMS = 4
"""Challenges that an answering UDP port gets."""
MOST_DATAGRAMS = 24
"""Challenges that a UDP port gets at most, when answers are missing."""


class ControlConnection(Struct, frozen=True, kw_only=True):
    """Coordinator -> this address and TCP port, for the time of the run."""

    node: str
    address: str
    port: int


class PlanCount(Struct, frozen=True, kw_only=True):
    """Numbers about a plan."""

    flows: int
    """(source, destination, protocol, family, port), each once."""
    connections: int
    """TCP connections that are begun if everything works (full-size checks are among them)."""
    datagrams: int
    """UDP datagrams that are sent if everything works."""
    most_datagrams: int
    """UDP datagrams that are sent at most."""
    state_entries: int
    """The largest number of entries that the run can leave in the state table of a firewall
    that sees all of it. Entries of unanswered connections live for up to two minutes."""
    seconds: float
    """How long the whole run takes at most."""
    control: tuple[ControlConnection, ...]


def most_seconds(limits: Limits) -> float:
    """All phases of a run, each as long as it may take, in seconds."""
    looking = limits.deadline + GRACE + limits.second_look + GRACE
    return limits.greet + HOLD_PATIENCE + looking + COLLECT_PATIENCE + RELEASE_PATIENCE


def count(plan: Plan) -> PlanCount:
    """Count what a plan will do, and what it can leave behind."""
    limits = plan.limits
    ports = {"tcp": 0, "udp": 0}
    connections = 0
    for probe in plan.probes:
        ports[probe.protocol] += count_ports(probe.ports)
        if probe.protocol == "tcp":
            padded = probe.full_size_port is not None
            connections += count_ports(probe.ports) * probe.connections + padded
    control = tuple(
        ControlConnection(node=node.name, address=node.control_host, port=node.control_port)
        for node in plan.nodes
        if not node.embedded
    )
    # What is connected more often than that had no answer to an earlier SYN, and those are
    # bounded.
    most_connections = min(MOST_ATTEMPTS * connections, connections + first_pass_half_open(limits))
    # In the second look a few ports of each flow are tried again. A UDP port is asked from one
    # socket, so it is one entry. The control port is dialled once a second while an agent is
    # waited for.
    in_time = int(limits.second_look / SECOND_LOOK_INTERVAL)
    looks = min(
        most_looks(limits), sum(min(in_time, count_ports(flow.ports)) for flow in plan.flows)
    )
    dials = len(control) * max(1, int(limits.greet))
    return PlanCount(
        flows=ports["tcp"] + ports["udp"],
        connections=connections,
        datagrams=FEWEST_DATAGRAMS * ports["udp"],
        most_datagrams=MOST_DATAGRAMS * ports["udp"],
        state_entries=most_connections + ports["udp"] + TRIES_OF_A_LOOK * looks + dials,
        seconds=most_seconds(limits),
        control=control,
    )
