import pytest
from msgspec import structs

from preflight.coordinator.orders import (
    SAMPLE,
    first_orders,
    second_orders,
    share_out,
    share_out_looks,
)
from preflight.model.observation import (
    AgentObservation,
    AgentState,
    Failure,
    Icmp,
    ListenerState,
    ListenerStatus,
    Outcome,
)
from preflight.model.plan import (
    SECOND_LOOK_INTERVAL,
    Flow,
    Limits,
    Plan,
    PlannedNode,
    Probe,
    ProbeOrder,
)
from preflight.ports import Ranges, count_ports, intersect

RANGE: Ranges = ((30000, 32767),)


def node(name: str, address: str) -> PlannedNode:
    return PlannedNode(
        name=name, roles=("worker",), addresses=(address,), control_host=address, control_port=1
    )


def probe(
    number: int, source: str, destination: str, address: str, ports: Ranges, *answerers: str
) -> Probe:
    return Probe(
        id=number,
        source=source,
        destination=destination,
        protocol="tcp",
        address=address,
        ports=ports,
        answerers=answerers or (destination,),
        full_size_port=ports[0][0],
    )


def flow(asked: Probe, ports: Ranges | None = None) -> Flow:
    return Flow(
        rule="nodeports",
        source=asked.source,
        destination=asked.destination,
        protocol=asked.protocol,
        family=6 if ":" in asked.address else 4,
        source_address="10.0.0.1",
        destination_address=asked.address,
        ports=ports or asked.ports,
    )


def plan(*probes: Probe) -> Plan:
    return Plan(
        run_id="0" * 32,
        cluster="c",
        profiles=(),
        nodes=(node("w1", "10.0.0.1"), node("w2", "10.0.0.2"), node("w3", "10.0.0.3")),
        vips=(),
        rules=(),
        flows=tuple(flow(one) for one in probes),
        listens=(),
        probes=probes,
        limits=Limits(),
    )


def agents(*listeners: ListenerState, w2: AgentState = "ready") -> dict[str, AgentObservation]:
    return {
        "w1": AgentObservation(node="w1", state="ready"),
        "w2": AgentObservation(node="w2", state=w2, listeners=listeners),
        "w3": AgentObservation(node="w3", state="ready"),
    }


def held(address: str, ports: Ranges, state: ListenerStatus) -> ListenerState:
    return ListenerState(protocol="tcp", address=address, ports=ports, state=state)


TO_W2 = probe(0, "w1", "w2", "10.0.0.2", RANGE)


def test_every_ready_source_gets_its_probes() -> None:
    back = probe(1, "w2", "w1", "10.0.0.1", RANGE)
    orders = first_orders(plan(TO_W2, back), agents())
    assert {source: [one.probe for one in ours] for source, ours in orders.items()} == {
        "w1": [TO_W2],
        "w2": [back],
    }


def test_a_source_that_is_not_ready_gets_nothing() -> None:
    back = probe(1, "w2", "w1", "10.0.0.1", RANGE)
    assert first_orders(plan(TO_W2, back), agents(w2="lost")) == {}


def test_an_unreachable_node_is_tried_on_one_port_only_and_sent_nothing() -> None:
    ((order,),) = first_orders(plan(TO_W2), agents(w2="unreachable")).values()
    assert order.probe.ports == ((30000, 30000),)
    assert order.connect_only == order.probe.ports
    assert order.probe.full_size_port is None


def test_a_node_that_refused_is_not_tried() -> None:
    assert first_orders(plan(TO_W2), agents(w2="refused")) == {}


def test_ports_of_other_programs_are_only_connected_to() -> None:
    ((order,),) = first_orders(
        plan(TO_W2),
        agents(
            held("10.0.0.2", ((30000, 30099), (30101, 32767)), "listening"),
            held("10.0.0.2", ((30100, 30100),), "occupied"),
        ),
    ).values()
    assert order.connect_only == ((30100, 30100),)


def test_a_vip_is_challenged_as_long_as_one_backend_can_answer() -> None:
    vip = probe(0, "w1", "api", "10.0.0.9", ((6443, 6443),), "w2", "w3")
    occupied = held("10.0.0.2", ((6443, 6443),), "occupied")
    found = agents(occupied)
    ((alone,),) = first_orders(plan(vip), found).values()
    assert alone.connect_only == ((6443, 6443),)
    found["w3"] = AgentObservation(
        node="w3", state="ready", listeners=(held("10.0.0.3", ((6443, 6443),), "listening"),)
    )
    ((order,),) = first_orders(plan(vip), found).values()
    assert order.connect_only == ()


def test_a_vip_of_one_backend_is_challenged_through_who_holds_it() -> None:
    vip = probe(0, "w1", "api", "10.0.0.9", ((6443, 6443),), "w2")
    found = agents(
        held("10.0.0.9", ((6443, 6443),), "occupied"),
        held("10.0.0.2", ((6443, 6443),), "listening"),
    )
    ((order,),) = first_orders(plan(vip), found).values()
    assert order.connect_only == ()


def test_bounds_are_shared_by_work_and_nobody_gets_nothing() -> None:
    small = probe(1, "w3", "w2", "10.0.0.2", ((6443, 6443),))
    orders = first_orders(plan(TO_W2, small), agents())
    shares = share_out(Limits(rate=1000, close="fin"), orders)
    assert {source: share.rate for source, share in shares.items()} == {"w1": 950, "w3": 50}
    # One port's twelve SYNs and two more connections, and all the rest of the first pass.
    assert shares["w3"].max_half_open == 14
    assert shares["w1"].max_half_open == 18_000 - 14
    assert {share.close for share in shares.values()} == {"fin"}
    assert share_out(Limits(rate=None), orders)["w1"].rate is None


def many_sources(small: int, flows: int) -> dict[str, tuple[ProbeOrder, ...]]:
    """One source of all NodePorts of ten nodes, and others with so many flows."""
    ranges = [probe(n, "big", "w2", f"10.0.1.{n}", RANGE) for n in range(10)]
    few = probe(10, "w3", "w2", "10.0.0.2", ((1, flows),))
    orders = {"big": tuple(ProbeOrder(probe=one) for one in ranges)}
    return orders | {f"s{n}": (ProbeOrder(probe=few),) for n in range(small)}


@pytest.mark.parametrize("limits", [Limits(), Limits(rate=10, max_half_open=1_000)])
@pytest.mark.parametrize("small", [1, 7, 49, 499])
def test_shares_are_together_what_the_run_may_use(small: int, limits: Limits) -> None:
    shares = share_out(limits, many_sources(small, 20)).values()
    assert limits.rate is not None
    assert sum(share.rate or 0.0 for share in shares) <= limits.rate * (1 + 1e-9)
    assert all(share.rate and share.max_half_open for share in shares)
    assert sum(share.max_half_open for share in shares) <= limits.max_half_open


def test_flows_of_a_small_source_are_not_bounded_away_by_anothers_range() -> None:
    shares = share_out(Limits(), many_sources(7, 300))
    assert shares["s0"].max_half_open >= 300
    assert (shares["s0"].rate or 0.0) * 4.0 >= 200


def icmp(number: int, ports: Ranges) -> Outcome:
    return Outcome(
        probe=number, ports=ports, failure=Failure.ICMP, icmp=Icmp(4, 3, 13, "10.0.0.254")
    )


def silent(number: int, ports: Ranges) -> Outcome:
    return Outcome(probe=number, ports=ports, failure=Failure.NO_ANSWER)


def test_silence_beside_icmp_is_looked_at_again_in_a_sample() -> None:
    other = probe(1, "w1", "w3", "10.0.0.3", ((6443, 6443),))
    outcomes = [icmp(0, ((30000, 30005),)), silent(0, ((30006, 32767),)), silent(1, other.ports)]
    orders = second_orders(plan(TO_W2, other), outcomes, 6.0)
    assert list(orders) == ["w1"]
    first, second = orders["w1"]
    assert first.probe.id == 0
    assert count_ports(first.probe.ports) == 3
    assert first.probe.ports[0] == (30006, 30006)
    assert first.probe.ports[-1] == (32767, 32767)
    assert second.probe.ports == other.ports
    assert first.second_look
    assert second.second_look
    assert first.lane == second.lane == "10.0.0.254"


def test_silent_ports_that_fit_into_their_lane_are_all_looked_at() -> None:
    other = probe(1, "w1", "w3", "10.0.0.3", ((7000, 7004),))
    outcomes = [icmp(0, ((30000, 30005),)), silent(0, ((30006, 30011),)), silent(1, other.ports)]
    first, second = second_orders(plan(TO_W2, other), outcomes, 12.5)["w1"]
    assert {first.probe.ports, second.probe.ports} == {((30006, 30011),), other.ports}
    first, second = second_orders(plan(TO_W2, other), outcomes, 11.5)["w1"]
    assert count_ports(first.probe.ports) == count_ports(second.probe.ports) == 3


@pytest.mark.parametrize(
    ("address", "error", "slow"),
    [
        ("10.0.0.2", Icmp(4, 3, 1, "10.0.0.254"), True),
        ("fd00::2", Icmp(6, 1, 3, "fd00::fe"), True),
        ("10.0.0.2", Icmp(4, 3, 13, "10.0.0.254"), False),
        ("fd00::2", Icmp(6, 1, 1, "fd00::fe"), False),
    ],
)
def test_a_router_that_first_looks_for_the_host_is_waited_for(
    address: str,
    error: Icmp,
    slow: bool,  # noqa: FBT001 - a column of the table
) -> None:
    asked = probe(0, "w1", "w2", address, RANGE)
    refused = Outcome(probe=0, ports=((30000, 30000),), failure=Failure.ICMP, icmp=error)
    outcomes = [refused, silent(0, ((30001, 30008),))]
    ((order,),) = second_orders(plan(asked), outcomes, 12.5).values()
    assert order.slow is slow
    assert count_ports(order.probe.ports) == (SAMPLE if slow else 8)


def test_behind_a_slow_router_addresses_of_which_nothing_was_heard_go_first() -> None:
    other = probe(1, "w1", "w3", "10.0.0.3", ((6443, 6443),))
    gone = Outcome(
        probe=0, ports=((30000, 30000),), failure=Failure.ICMP, icmp=Icmp(4, 3, 1, "10.0.0.254")
    )
    outcomes = [gone, silent(0, ((30001, 32767),)), silent(1, other.ports)]
    orders = second_orders(plan(TO_W2, other), outcomes, 12.5)["w1"]
    assert [order.probe.id for order in orders] == [1, 0]


def test_the_second_look_keeps_to_its_bound() -> None:
    probes = [probe(number, "w1", "w2", f"10.0.1.{number}", RANGE) for number in range(5)]
    outcomes = [icmp(0, ((30000, 30000),)), *(silent(number, RANGE) for number in range(5))]
    orders = second_orders(plan(*probes), outcomes, 4 * SECOND_LOOK_INTERVAL)
    assert sum(count_ports(order.probe.ports) for order in orders["w1"]) == 4


def test_each_sender_of_errors_has_its_own_lane_and_room() -> None:
    other = probe(1, "w1", "w3", "10.0.0.3", RANGE)
    by_host = Outcome(
        probe=1, ports=((30000, 30000),), failure=Failure.ICMP, icmp=Icmp(4, 3, 10, "10.0.0.3")
    )
    outcomes = [icmp(0, ((30000, 30000),)), silent(0, RANGE), by_host, silent(1, RANGE)]
    orders = second_orders(plan(TO_W2, other), outcomes, 3 * SECOND_LOOK_INTERVAL)
    assert {order.probe.id: order.lane for order in orders["w1"]} == {
        0: "10.0.0.254",
        1: "10.0.0.3",
    }
    assert [count_ports(order.probe.ports) for order in orders["w1"]] == [3, 3]


def test_each_flow_of_a_probe_has_a_sample_of_its_own() -> None:
    # A dropped port under another rule must not stand for those that were refused.
    whole = probe(0, "w1", "w2", "10.0.0.2", ((6443, 6443), *RANGE))
    two = structs.replace(
        plan(whole), flows=(flow(whole, ((6443, 6443),)), flow(whole, RANGE), flow(whole, RANGE))
    )
    outcomes = [icmp(0, ((30000, 30000),)), silent(0, ((6443, 6443), (30001, 32767)))]
    orders = second_orders(two, outcomes, 12.5)["w1"]
    assert {order.probe.ports for order in orders} == {
        ((6443, 6443),),
        ((30001, 30001), (31384, 31384), (32767, 32767)),
    }


def refused_by_their_own_hosts(nodes: int) -> tuple[Plan, list[Outcome]]:
    """Each node refuses the range of each other one by ICMP, and most of it in silence."""
    pairs = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
    probes = [
        probe(number, f"n{a}", f"n{b}", f"10.0.1.{b}", RANGE) for number, (a, b) in enumerate(pairs)
    ]
    outcomes = [
        Outcome(
            probe=one.id,
            ports=((30000, 30005),),
            failure=Failure.ICMP,
            icmp=Icmp(4, 3, 13, one.address),
        )
        for one in probes
    ]
    return plan(*probes), [*outcomes, *(silent(one.id, ((30006, 32767),)) for one in probes)]


@pytest.mark.parametrize(
    ("limits", "looks"),
    [
        (Limits(), 1_000),  # a tenth of 20,000 SYNs, two for each port
        (Limits(max_half_open=500), 25),
        (Limits(rate=40), 250),  # 12.5 s of it, twice for each port
        (Limits(rate=None), 1_000),
    ],
)
def test_all_second_looks_together_stay_within_the_runs_bounds(limits: Limits, looks: int) -> None:
    run, outcomes = refused_by_their_own_hosts(30)
    orders = second_orders(structs.replace(run, limits=limits), outcomes, 12.5)
    ports = [count_ports(one.probe.ports) for ours in orders.values() for one in ours]
    # Half a sample proves nothing.
    assert set(ports[:-1]) == {SAMPLE}
    assert looks - SAMPLE < sum(ports) <= looks
    shares = share_out_looks(limits, orders).values()
    assert sum(share.max_half_open for share in shares) == 2 * sum(ports)
    assert 2 * sum(ports) <= limits.max_half_open // 10
    if limits.rate is not None:
        assert sum(share.rate or 0.0 for share in shares) == pytest.approx(limits.rate)


def test_what_room_is_left_goes_to_runs_of_silent_ports() -> None:
    outcomes = [
        icmp(0, ((30000, 30000),)),
        silent(0, ((30001, 30499), (30700, 30720), (31500, 32767))),
    ]
    (order,) = second_orders(plan(TO_W2), outcomes, 12.5)["w1"]
    for run in ((30000, 30499), (30700, 30720), (31500, 32767)):
        assert count_ports(intersect(order.probe.ports, (run,))) == SAMPLE


def test_an_errno_alone_is_looked_at_beside_the_own_firewalls_errors() -> None:
    by_own = Outcome(
        probe=0,
        ports=((30000, 30000),),
        failure=Failure.SEND_DENIED,
        icmp=Icmp(4, 3, 13, "10.0.0.1"),
    )
    mute = Outcome(probe=0, ports=((30001, 32767),), failure=Failure.SEND_DENIED, errno="EPERM")
    (order,) = second_orders(plan(TO_W2), [by_own, mute], 12.5)["w1"]
    assert (order.lane, count_ports(order.probe.ports)) == ("10.0.0.1", SAMPLE)
    assert second_orders(plan(TO_W2), [mute], 12.5) == {}


def test_another_nodes_own_firewall_explains_no_silence() -> None:
    other = probe(1, "w1", "w3", "10.0.0.3", RANGE)
    by_host = Outcome(
        probe=0, ports=((30000, 30000),), failure=Failure.ICMP, icmp=Icmp(4, 3, 10, "10.0.0.2")
    )
    assert second_orders(plan(TO_W2, other), [by_host, silent(1, RANGE)], 6.0) == {}


def test_an_error_of_the_other_family_explains_no_silence() -> None:
    other = probe(1, "w1", "w3", "fd00::3", RANGE)
    outcomes = [icmp(0, ((30000, 30000),)), silent(1, RANGE)]
    assert second_orders(plan(TO_W2, other), outcomes, 6.0) == {}


def test_silence_alone_needs_no_second_look() -> None:
    assert second_orders(plan(TO_W2), [silent(0, RANGE)], 6.0) == {}
