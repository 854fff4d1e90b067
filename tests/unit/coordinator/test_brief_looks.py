"""Which ports are tried again slowly, and how many."""

import pytest
from msgspec import structs

from preflight.coordinator.orders import second_orders, share_out_looks
from preflight.model.observation import Failure, Icmp, Outcome
from preflight.model.plan import BRIEF_INTERVAL, BRIEF_PATIENCE, Limits, ProbeOrder
from preflight.ports import Ranges, count_ports, intersect
from tests.unit.coordinator.test_orders import RANGE, TO_W2, flow, icmp, plan, probe, silent

OPEN: Ranges = ((30000, 30499),)
REST: Ranges = ((30500, 32767),)
BOUND = 12.5


def proven(number: int, ports: Ranges) -> Outcome:
    return Outcome(probe=number, ports=ports, failure=None)


def reset(number: int, ports: Ranges) -> Outcome:
    return Outcome(probe=number, ports=ports, failure=Failure.RESET)


def orders_of(*outcomes: Outcome, bound: float = BOUND) -> tuple[ProbeOrder, ...]:
    return second_orders(plan(TO_W2), outcomes, bound).get("w1", ())


@pytest.mark.parametrize("failed", [reset, silent])
def test_three_failed_ports_beside_working_ones_are_tried_slowly(failed: object) -> None:
    assert callable(failed)
    (order,) = orders_of(proven(0, OPEN), failed(0, REST))
    assert order.brief
    assert order.second_look
    assert not order.slow
    assert order.probe.ports == ((30500, 30500), (31634, 31634), (32767, 32767))


def test_reset_ports_and_silent_ones_have_lanes_of_their_own() -> None:
    orders = orders_of(proven(0, OPEN), reset(0, ((30500, 30999),)), silent(0, ((31000, 32767),)))
    assert len({order.lane for order in orders}) == 2
    assert [count_ports(order.probe.ports) for order in orders] == [3, 3]


@pytest.mark.parametrize("ports", [((6443, 6443),), ((7000, 7002),)])
def test_a_flow_of_few_ports_is_no_sweep(ports: Ranges) -> None:
    few = probe(0, "w1", "w2", "10.0.0.2", ports)
    first = ((ports[0][0], ports[0][0]),)
    outcomes = [proven(0, first), reset(0, ports)]
    assert second_orders(plan(few), outcomes, BOUND) == {}


def test_where_nothing_works_the_pace_is_not_why() -> None:
    assert orders_of(reset(0, RANGE)) == ()
    other = probe(1, "w1", "w3", "10.0.0.3", RANGE)
    assert second_orders(plan(TO_W2, other), [proven(1, RANGE), reset(0, RANGE)], BOUND) == {}


def test_each_flow_goes_by_itself_and_no_port_is_tried_twice() -> None:
    whole = probe(0, "w1", "w2", "10.0.0.2", RANGE)
    narrow, wide = flow(whole, ((30490, 30503),)), flow(whole, RANGE)
    run = structs.replace(plan(whole), flows=(narrow, wide))
    first, second = second_orders(run, [proven(0, OPEN), reset(0, REST)], BOUND)["w1"]
    assert count_ports(first.probe.ports) == count_ports(second.probe.ports) == 3
    assert intersect(first.probe.ports, second.probe.ports) == ()


def test_silence_beside_icmp_is_left_to_the_looks_that_hope_for_errors() -> None:
    orders = orders_of(proven(0, OPEN), icmp(0, ((30500, 30505),)), silent(0, ((30506, 32767),)))
    assert {order.brief for order in orders} == {False}


def test_ports_that_were_all_refused_aloud_are_tried_where_that_costs_nobody_an_error() -> None:
    (order,) = orders_of(proven(0, OPEN), icmp(0, REST))
    assert (order.brief, count_ports(order.probe.ports)) == (True, 3)
    other = probe(1, "w1", "w3", "10.0.0.3", ((6443, 6443),))
    outcomes = [proven(0, OPEN), icmp(0, REST), silent(1, other.ports)]
    (only,) = second_orders(plan(TO_W2, other), outcomes, BOUND)["w1"]
    assert (only.brief, only.probe.id) == (False, 1)


def test_what_the_sources_own_kernel_refused_is_not_the_paces_making() -> None:
    own = Icmp(4, 3, 13, "10.0.0.1")
    denied = Outcome(probe=0, ports=REST, failure=Failure.SEND_DENIED, icmp=own)
    assert orders_of(proven(0, OPEN), denied) == ()


def test_brief_looks_keep_to_their_bounds() -> None:
    bound = 2 * BRIEF_INTERVAL + BRIEF_PATIENCE
    (order,) = orders_of(proven(0, OPEN), reset(0, REST), bound=bound)
    assert count_ports(order.probe.ports) == 2
    many = [probe(n, "w1", f"x{n}", f"10.0.1.{n}", RANGE) for n in range(1, 31)]
    outcomes = [one for p in many for one in (proven(p.id, OPEN), reset(p.id, REST))]
    run = structs.replace(plan(*many), limits=Limits(max_half_open=1_000))
    orders = second_orders(run, outcomes, BOUND)
    tried = sum(count_ports(order.probe.ports) for order in orders["w1"])
    assert tried == 50  # a tenth of the bound, two for each port
    assert share_out_looks(run.limits, orders)["w1"].max_half_open == 100


def test_a_lane_has_room_for_two_flows() -> None:
    whole = probe(0, "w1", "w2", "10.0.0.2", RANGE)
    parts: list[Ranges] = [((first, first + 99),) for first in range(30000, 30500, 100)]
    flows = tuple(flow(whole, part) for part in parts)
    fails = tuple((part[0][0] + 50, part[0][1]) for part in parts)
    works = tuple((part[0][0], part[0][0] + 49) for part in parts)
    run = structs.replace(plan(whole), flows=flows)
    orders = second_orders(run, [proven(0, works), reset(0, fails)], BOUND)["w1"]
    assert [count_ports(order.probe.ports) for order in orders] == [3, 3]
