"""`diagnose` is total, reports each (flow, port) once, and does not care about order."""

from collections import Counter
from typing import TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight.diagnosis import diagnose
from preflight.model.observation import (
    AgentObservation,
    Attempts,
    Confirmation,
    Facts,
    Failure,
    Icmp,
    ListenerCount,
    ListenerState,
    Observations,
    Operation,
    Outcome,
    Sightings,
)
from preflight.model.report import Verdict
from preflight.ports import each_port, from_ports, parse_ports
from tests.scenarios.world import World, instance_of

Entry = TypeVar("Entry")

PORTS = (6443, 6444, 6445, 30000, 30001, 30002)
NODES = ("w1", "m1", "m2")
PROBE_IDS = ("a0", "a1", "a2", "a3")
ADDRESSES = ("10.0.2.11", "10.0.1.11", "10.0.1.12", "10.0.1.10", "10.9.9.9", "not an address")


def make_world() -> World:
    world = World().node("w1", "10.0.2.11")
    world.node("m1", "10.0.1.11", role="control-plane").node("m2", "10.0.1.12", nat=True)
    world.vip("api", "10.0.1.10", 6443, "m1", "m2")
    world.flow("w1", "m1", "6443-6445", rule="first").flow("w1", "m1", "6444,30000-30002")
    world.flow("w1", "m1", "6443-6445", "udp", required=False)
    world.flow("w1", "m2", "6443", expected="blocked")
    return world.flow("w1", "api", "6443").flow("m1", "w1", "30000-30001", "udp")


def columns(entries: st.SearchStrategy[Entry]) -> st.SearchStrategy[tuple[Entry, ...]]:
    """Of any length: nothing says that an agent's columns are equally long."""
    return st.lists(entries, max_size=3).map(tuple)


PLAN = make_world().plan()

nodes = st.sampled_from(NODES)
instances = st.sampled_from([*map(instance_of, NODES), "another-life", ""])
some_ports = st.lists(st.sampled_from(PORTS), min_size=1, max_size=6).map(from_ports)
protocols = st.sampled_from(["tcp", "udp"])
counts = st.integers(0, 100)
icmps = st.builds(
    Icmp,
    st.sampled_from([4, 6]),
    st.integers(0, 12),
    st.integers(0, 14),
    st.sampled_from(ADDRESSES),
)
attempts = st.builds(
    Attempts,
    probe_ids=columns(st.sampled_from(PROBE_IDS)),
    ports=columns(st.sampled_from(PORTS)),
    local_ports=columns(st.integers(1, 3)),
    local_address=st.sampled_from(["", *ADDRESSES]),
    connected=st.booleans(),
)
outcomes = st.builds(
    Outcome,
    probe=st.integers(0, len(PLAN.probes)),
    ports=some_ports,
    failure=st.sampled_from([None, *Failure]),
    operation=st.sampled_from(Operation),
    icmp=st.none() | icmps,
    icmp_seen=counts,
    attempts=counts,
    answered=counts,
    retransmits=counts,
    rtt_ms=st.none() | st.floats(0, 100),
    answered_by=st.none() | st.sampled_from([*NODES, "nobody"]),
    answered_instance=st.none() | instances,
    answered_port=st.none() | st.just(1),
    observed_source=st.none() | st.sampled_from(ADDRESSES),
    local_address=st.none() | st.sampled_from(ADDRESSES),
    size=st.sampled_from([256, 256, 8192]),
    unanswered=st.lists(attempts, max_size=2).map(tuple),
    second_look=st.booleans(),
)
states = st.builds(
    ListenerState,
    protocol=protocols,
    address=st.sampled_from(ADDRESSES),
    ports=some_ports,
    state=st.sampled_from(["listening", "occupied", "denied"]),
    owner=st.sampled_from(["", "nginx (pid 1)"]),
    owner_listens=st.booleans(),
)
listener_counts = st.builds(
    ListenerCount,
    protocol=protocols,
    address=st.sampled_from(ADDRESSES),
    ports=some_ports,
    accepted=counts,
    answered=counts,
    dropped=st.integers(0, 1),
)
confirmations = st.builds(
    Confirmation,
    instance=instances,
    held=st.lists(states, max_size=4).map(tuple),
    counts=st.lists(listener_counts, max_size=2).map(tuple),
)
wild_agents = st.builds(
    AgentObservation,
    node=nodes,
    state=st.sampled_from(["ready", "unreachable", "refused", "lost"]),
    instance=instances,
    clock_offset_ms=st.none() | st.floats(-1e9, 1e9),
    facts=st.just(Facts(local_port_range=(30000, 60000))),
    listeners=st.lists(states, max_size=4).map(tuple),
    confirmation=st.none() | confirmations,
)
tame_agents = st.sampled_from(make_world().observations().agents)
sightings = st.builds(
    Sightings,
    node=nodes,
    protocol=protocols,
    address=st.sampled_from(ADDRESSES),
    ports=columns(st.sampled_from(PORTS)),
    source_address=st.sampled_from(ADDRESSES),
    source_ports=columns(st.integers(1, 3)),
    probe_ids=st.just(()) | columns(st.sampled_from(PROBE_IDS)),
    answered=st.booleans(),
)
observations = st.builds(
    Observations,
    agents=st.lists(wild_agents | tame_agents, max_size=5).map(tuple),
    outcomes=st.lists(outcomes, max_size=10).map(tuple),
    sightings=st.lists(sightings, max_size=5).map(tuple),
    interrupted=st.booleans(),
)


@given(observations)
@settings(max_examples=300, deadline=None)
def test_each_port_of_each_flow_is_in_exactly_one_record(seen: Observations) -> None:
    report = diagnose(PLAN, seen)

    told = Counter(
        (one.rule, one.source, one.destination, one.protocol, one.family, port)
        for one in report.flows
        for port in each_port(parse_ports(one.ports))
    )
    planned = Counter(
        (one.rule, one.source, one.destination, one.protocol, one.family, port)
        for one in PLAN.flows
        for port in each_port(one.ports)
    )
    assert told == planned
    # Two rules may ask for one port: the summary counts it once.
    assert report.summary.flows.total == len({asked[1:] for asked in planned})


@given(observations, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_order_makes_no_difference(seen: Observations, random: object) -> None:
    shuffled = msgspec.structs.replace(
        seen,
        agents=_shuffle(seen.agents, random),
        outcomes=_shuffle(seen.outcomes, random),
        sightings=_shuffle(seen.sightings, random),
    )

    assert msgspec.json.encode(diagnose(PLAN, seen)) == msgspec.json.encode(
        diagnose(PLAN, shuffled)
    )


@given(observations)
@settings(max_examples=300, deadline=None)
def test_what_was_concluded_stands_on_the_destination(seen: Observations) -> None:
    """No failure without a confirming agent; no proof without an answer or a connection."""
    report = diagnose(PLAN, seen)

    confirming = {
        agent.node
        for agent in seen.agents
        if agent.state == "ready"
        and agent.confirmation is not None
        and agent.confirmation.instance == agent.instance
    }
    for record in report.flows:
        if record.verdict in {Verdict.BLOCKED, Verdict.INTERCEPTED}:
            backends = {"m1", "m2"} if record.destination == "api" else {record.destination}
            assert backends & confirming
        if record.verdict in {Verdict.OPEN, Verdict.DEGRADED}:
            assert record.proof is not None
        else:
            assert record.proof is None
        assert (record.where is not None) == (record.verdict is Verdict.BLOCKED)
        assert (record.cause is None) == (record.verdict is Verdict.OPEN)
        assert record.detail


def _shuffle(items: tuple[object, ...], random: object) -> tuple[object, ...]:
    mixed = list(items)
    random.shuffle(mixed)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    return tuple(mixed)
