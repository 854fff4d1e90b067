"""Flows and plans, from small clusters whose every flow can be written out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from preflight.errors import ConfigError
from preflight.model.cluster import Cluster, Node, PortSet, Profile, Rule, Vip
from preflight.model.plan import Flow, Limits, Listen, Plan, Probe
from preflight.net.tcp_patience import MOST_SYNS
from preflight.net.tcp_task import TRIES_AFTER_CONNECT
from preflight.net.udp_exchange import FIRST_DATAGRAMS, LOSSY_DATAGRAMS
from preflight.planning import count, expand_flows, make_plan, narrow, sample_ports
from preflight.planning.counting import FEWEST_DATAGRAMS, MOST_DATAGRAMS
from preflight.planning.sharing import MOST_ATTEMPTS
from preflight.ports import count_ports, each_port, intersect, normalise, parse_ports

RUN = "0" * 32


def node(name: str, roles: str, *addresses: str, external: str | None = None) -> Node:
    return Node(
        name=name,
        addresses=addresses,
        roles=tuple(roles.split()),
        control_host=addresses[0],
        external=external,
    )


def rule(name: str, sources: str, destinations: str, *ports: str, **more: object) -> Rule:
    sets = tuple(
        PortSet("udp" if suffix == "udp" else "tcp", parse_ports(numbers))
        for numbers, _, suffix in (text.partition("/") for text in ports)
    )
    plain = Rule(
        name=name,
        sources=tuple(sources.split()),
        destinations=tuple(destinations.split()),
        ports=sets,
        why="because",
        source_text="somewhere",
        profile="test",
    )
    return structs.replace(plain, **more)


def vip(name: str = "api", address: str = "10.0.0.100", port: int = 6443) -> Vip:
    return Vip(name=name, address=address, port=port, backends="a", sources=("a", "b"))


def cluster(*nodes: Node, vips: tuple[Vip, ...] = ()) -> Cluster:
    return Cluster(name="test", profiles=("test",), nodes=nodes, vips=vips)


def profile(*rules: Rule) -> Profile:
    return Profile(name="test", names=("test",), rules=rules, domains=())


def plan(it: Cluster, asked: Profile, limits: Limits | None = None) -> Plan:
    return make_plan(expand_flows(it, asked), it, asked, limits=limits, run_id=RUN)


def ends(flows: tuple[Flow, ...]) -> list[tuple[str, str, str]]:
    return [(flow.rule, flow.source, flow.destination) for flow in flows]


A1, A2 = node("a1", "a", "10.0.0.1"), node("a2", "a", "10.0.0.2")
B1 = node("b1", "b", "10.0.0.3")


def test_roles_to_roles_and_never_to_itself() -> None:
    flows = expand_flows(cluster(A1, A2, B1), profile(rule("r", "a b", "a", "1/tcp")))
    assert ends(flows) == [
        ("r", "a1", "a2"),
        ("r", "a2", "a1"),
        ("r", "b1", "a1"),
        ("r", "b1", "a2"),
    ]


def test_a_node_with_both_roles_has_each_flow_once() -> None:
    both = node("ab", "a b", "10.0.0.9")
    flows = expand_flows(cluster(both, B1), profile(rule("r", "a b", "a b", "1/tcp")))
    assert ends(flows) == [("r", "ab", "b1"), ("r", "b1", "ab")]


def test_a_flow_says_all_that_its_rule_says() -> None:
    asked = rule("r", "a", "b", "2/udp", "1/tcp", required=False, expected="blocked")
    udp, tcp = expand_flows(cluster(A1, B1), profile(asked))
    assert tcp == Flow(
        rule="r",
        source="a1",
        destination="b1",
        protocol="tcp",
        family=4,
        source_address="10.0.0.1",
        destination_address="10.0.0.3",
        ports=((1, 1),),
        required=False,
        expected="blocked",
    )
    assert udp == structs.replace(tcp, protocol="udp", ports=((2, 2),))


def test_one_flow_for_each_family_that_both_have_between_first_addresses() -> None:
    one = node("one", "a", "10.0.0.1", "fd00::1", "10.9.0.1", "fd09::1")
    two = node("two", "b", "fd00::2", "fd09::2", "10.0.0.2")
    six = node("six", "b", "fd00::6")
    flows = expand_flows(cluster(one, two, six), profile(rule("r", "a", "b", "1/tcp")))
    assert [(flow.family, flow.source_address, flow.destination_address) for flow in flows] == [
        (4, "10.0.0.1", "10.0.0.2"),
        (6, "fd00::1", "fd00::2"),
        (6, "fd00::1", "fd00::6"),
    ]


def test_external_addresses_are_asked_and_own_ones_listen() -> None:
    behind = node("behind", "b", "10.0.0.5", external="203.0.113.7")
    made = plan(cluster(A1, behind, B1), profile(rule("r", "a", "b", "1/tcp", via="external")))
    assert [flow.destination_address for flow in made.flows] == ["203.0.113.7", "10.0.0.3"]
    assert [(one.node, one.address) for one in made.listens] == [
        ("behind", "10.0.0.5"),
        ("b1", "10.0.0.3"),
    ]


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to check"):
        expand_flows(cluster(A1), profile(rule("r", "a", "a", "1/tcp")))


def test_a_vip_is_reached_on_its_own_port_by_its_own_sources_backends_too() -> None:
    asked = profile(rule("front", "b", "vip", "6443/tcp"))
    flows = expand_flows(cluster(A1, B1, vips=(vip(),)), asked)
    assert [(flow.rule, flow.source, flow.destination, flow.ports) for flow in flows] == [
        ("front", "a1", "api", ((6443, 6443),)),
        ("front", "b1", "api", ((6443, 6443),)),
    ]


def test_a_vip_that_no_rule_is_about_gets_a_rule() -> None:
    asked = profile(rule("front", "b", "vip", "6443/tcp"))
    made = plan(cluster(A1, B1, vips=(vip(port=443),)), asked)
    assert {flow.rule for flow in made.flows} == {"vip-api"}
    (added,) = made.rules
    assert added.name == "vip-api"
    assert "the role a" in added.why
    assert added.source_text == "the cluster file, vips.api"


def test_a_vips_backends_listen_on_their_own_addresses_and_on_the_vip_where_it_is() -> None:
    second = node("a2", "a", "fd00::2")  # behind a balancer that changes the family
    made = plan(cluster(A1, second, B1, vips=(vip(),)), profile(rule("f", "b", "vip", "6443/tcp")))
    on = {(one.node, one.address, one.ports, one.only_if_local) for one in made.listens}
    assert on == {
        ("a1", "10.0.0.1", ((6443, 6443),), False),
        ("a1", "10.0.0.100", ((6443, 6443),), True),
        ("a2", "fd00::2", ((6443, 6443),), False),
        ("a2", "10.0.0.100", ((6443, 6443),), True),
    }
    (front,) = made.vips
    assert front.backends == ("a1", "a2")


@pytest.mark.parametrize(("backends", "connections"), [(1, 6), (2, 10), (3, 18), (5, 31)])
def test_a_vip_is_connected_to_until_every_backend_was_seen(
    backends: int, connections: int
) -> None:
    nodes = [node(f"a{number}", "a", f"10.0.1.{number}") for number in range(1, backends + 1)]
    made = plan(cluster(*nodes, B1, vips=(vip(),)), profile(rule("f", "b", "vip", "6443/tcp")))
    probe = next(probe for probe in made.probes if probe.source == "b1")
    assert probe.connections == connections
    assert probe.answerers == tuple(one.name for one in nodes)
    assert probe.full_size_port is None


def test_a_port_of_two_rules_is_probed_once_and_reported_under_each() -> None:
    asked = profile(rule("wide", "a", "b", "30000-32767/tcp"), rule("one", "a", "b", "30080/tcp"))
    made = plan(cluster(A1, B1), asked)
    assert [flow.rule for flow in made.flows] == ["wide", "one"]
    assert made.probes == (
        Probe(
            id=0,
            source="a1",
            destination="b1",
            protocol="tcp",
            address="10.0.0.3",
            ports=((30000, 32767),),
            answerers=("b1",),
            full_size_port=30080,
        ),
    )
    assert made.listens == (
        Listen(node="b1", protocol="tcp", address="10.0.0.3", ports=((30000, 32767),)),
    )


def test_the_full_size_is_sent_once_for_a_pair_and_family_to_a_port_that_should_be_open() -> None:
    behind = node("b2", "b", "10.0.0.4", "fd00::4", external="203.0.113.7")
    asked = profile(
        rule("not", "a", "b", "7/tcp", expected="blocked"),
        rule("range", "a", "b", "8-9/tcp", "8/udp"),
        rule("out", "a", "b", "10/tcp", via="external"),
    )
    made = plan(cluster(node("a9", "a", "10.0.0.9", "fd00::9"), behind), asked)
    sent = {(one.protocol, one.address): one.full_size_port for one in made.probes}
    assert sent == {
        ("tcp", "10.0.0.4"): 8,
        ("tcp", "fd00::4"): 8,
        ("udp", "10.0.0.4"): None,
        ("udp", "fd00::4"): None,
        ("tcp", "203.0.113.7"): None,
    }


def test_the_deadline_fits_what_there_is_to_do() -> None:
    two = cluster(A1, B1)
    small = profile(rule("r", "a", "b", "1/tcp"))
    large = profile(rule("r", "a", "b", "1-30000/tcp"))
    assert plan(two, small).limits == Limits()
    # A slow source needs longer than the rate of the run does; many sources share the rate.
    assert plan(two, large).limits.deadline == 39.0
    assert plan(two, large, Limits(rate=None)).limits.deadline == 39.0
    many = cluster(*(node(f"a{n}", "a", f"10.0.1.{n}") for n in range(1, 9)), B1)
    assert plan(many, large).limits.deadline == 57.0
    assert plan(two, large, Limits(rate=500.0)).limits.deadline == 69.0
    assert plan(two, small, Limits(deadline=20.0)).limits.deadline == 20.0


def test_eight_nodes_end_in_time() -> None:
    nodes = [node(f"a{number}", "a b", f"10.0.1.{number}") for number in range(1, 8)]
    asked = profile(rule("mesh", "a", "b", "1-20/tcp", "1-2/udp"))
    client = node("c", "c", "10.0.2.1")
    ports = rule("nodeports", "c", "a", "30000-30400/tcp")
    made = plan(cluster(*nodes, client), profile(*asked.rules, ports))
    # Where everything is dropped there is no second look: it is for ports that were refused.
    assert made.limits.deadline < 12.0


def test_what_is_left_out_is_said() -> None:
    six = node("six", "b", "fd00::6")
    idle = node("idle", "none", "10.0.0.8")
    it = structs.replace(cluster(A1, A2, B1, six, idle), warnings=("first of all",))
    asked = profile(rule("r", "a", "a b", "1/tcp"), rule("front", "a", "vip", "6443/tcp"))
    made = plan(it, asked)
    assert made.notes == (
        "first of all",
        "flows of a node to itself are left out: they never cross the network",
        "left out, because the two have no address of one family: a1 → six, a2 → six (2)",
        "the cluster file names no virtual address: front is not checked",
        "no flow of this run begins or ends at six, idle",
    )
    assert [one.name for one in made.nodes] == ["a1", "a2", "b1"]


def test_a_source_that_cannot_reach_a_vip_is_said() -> None:
    six = node("six", "b", "fd00::6")
    made = plan(cluster(A1, six, vips=(vip(),)), profile(rule("f", "b", "vip", "6443/tcp")))
    assert any("six → api" in note for note in made.notes)


NARROW = cluster(A1, A2, B1, vips=(vip(),))
RULES = profile(rule("mesh", "a b", "a b", "10-20/tcp"), rule("front", "a b", "vip", "6443/tcp"))


@pytest.mark.parametrize(
    ("only", "sources", "destinations", "expected"),
    [
        (["b:a"], [], [], {("b1", "a1"), ("b1", "a2")}),
        (["b1:a2", "a1:vip"], [], [], {("b1", "a2"), ("a1", "api")}),
        ([":b"], [], [], {("a1", "b1"), ("a2", "b1")}),
        (["a1:"], [], [], {("a1", "a2"), ("a1", "b1"), ("a1", "api")}),
        ([], ["b"], ["api"], {("b1", "api")}),
        ([], ["b1", "a2"], ["a1"], {("b1", "a1"), ("a2", "a1")}),
        (["a:a"], ["a1"], [], {("a1", "a2")}),
    ],
)
def test_narrowing(
    only: list[str], sources: list[str], destinations: list[str], expected: set[tuple[str, str]]
) -> None:
    flows = expand_flows(NARROW, RULES)
    kept = narrow(flows, NARROW, only=only, sources=sources, destinations=destinations)
    assert {(flow.source, flow.destination) for flow in kept} == expected


def test_narrowing_to_ports_cuts_the_flows() -> None:
    flows = expand_flows(NARROW, RULES)
    assert narrow(flows, NARROW) == flows
    kept = narrow(flows, NARROW, sources=["b1"], ports=((1, 12), (15, 15)))
    assert {flow.ports for flow in kept} == {((10, 12), (15, 15))}
    made = make_plan(kept, NARROW, RULES, run_id=RUN)
    assert made.notes[0] == "narrowed: 8 of the cluster's 69 flows are checked"
    assert made.narrowed_from == 69
    assert [one.name for one in made.rules] == ["mesh"]
    assert made.vips == ()


@pytest.mark.parametrize(
    ("only", "sources", "message"),
    [
        (["b"], [], '--only: "b" is not FROM:TO'),
        (["b:a3"], [], '--only: no node, role or VIP is named "a3"; did you mean "a'),
        ([], ["zzz"], '--from: no node, role or VIP is named "zzz"'),
        (["a1:a1"], [], "no flow of the cluster fits"),
    ],
)
def test_narrowing_to_nothing_is_an_error(
    only: list[str], sources: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        narrow(expand_flows(NARROW, RULES), NARROW, only=only, sources=sources)
    assert str(caught.value).startswith(message)


def test_counting() -> None:
    embedded = structs.replace(node("c1", "c", "10.0.0.7"), embedded=True)
    asked = profile(
        rule("r", "a", "b", "1-100/tcp", "5/udp"),
        rule("again", "a", "b", "50/tcp"),
        rule("c", "c", "b", "1/tcp"),
    )
    made = plan(cluster(A1, B1, embedded), asked, Limits(second_look=4.0))
    counted = count(made)
    assert counted.flows == 102
    assert counted.connections == 103  # 101 ports, and the full size once for each pair
    assert (counted.datagrams, counted.most_datagrams) == (4, 24)
    assert [(one.node, one.address, one.port) for one in counted.control] == [
        ("a1", "10.0.0.1", 10888),
        ("b1", "10.0.0.3", 10888),
    ]
    # every TCP attempt, a UDP port, second looks of 4 flows (3 + 1 + 1 + 1) that may each be
    # tried twice, 5 s of two dials
    assert counted.state_entries == 14 * 103 + 1 + 12 + 10
    # greet 5, listen 5, first pass 10, second look 4 (1.5 more for each), collect 5, release 2
    assert counted.seconds == 34.0


def test_unanswered_connections_are_bounded_in_the_count() -> None:
    asked = profile(rule("r", "a", "b", "1-65535/tcp"))
    counted = count(plan(cluster(A1, B1), asked, Limits(second_look=4.0)))
    assert counted.state_entries == 65_536 + 18_000 + 2 * 3 + 10


def test_the_count_knows_what_the_probers_do() -> None:
    assert (MOST_ATTEMPTS, FEWEST_DATAGRAMS, MOST_DATAGRAMS) == (
        MOST_SYNS + TRIES_AFTER_CONNECT - 1,
        FIRST_DATAGRAMS,
        LOSSY_DATAGRAMS,
    )


MANY = profile(rule("r", "a", "b", "443,2379-2380,30000-32767/tcp", "1-5/udp"))
SAMPLED = Limits(sample=3)


def test_a_sample_is_some_ports_of_each_range_its_ends_among_them() -> None:
    made = plan(cluster(A1, B1), MANY, SAMPLED)
    some = parse_ports("443,2379-2380,30000,31384,32767")
    assert {one.protocol: one.ports for one in made.probes} == {
        "tcp": some,
        "udp": parse_ports("1,3,5"),
    }
    # What nobody asks, nobody needs to hold; what was left out, the report still tells of.
    assert {one.protocol: one.ports for one in made.listens} == {
        one.protocol: one.ports for one in made.probes
    }
    whole = expand_flows(cluster(A1, B1), MANY)
    assert made.flows == whole
    assert count(made).flows == 6 + 3
    assert made.notes[-1] == (
        "--sample 3: of each range of more ports, 3 are tried; "
        "2,767 flows are left out, and will be untested"
    )
    assert (
        plan(cluster(A1, B1), MANY, Limits(sample=2_768)).notes == plan(cluster(A1, B1), MANY).notes
    )


def test_a_port_left_out_of_one_rule_is_tried_for_another() -> None:
    both = profile(*MANY.rules, rule("one", "a", "b", "30080/tcp"))
    (asked, _) = plan(cluster(A1, B1), both, SAMPLED).probes
    assert asked.ports == parse_ports("443,2379-2380,30000,30080,31384,32767")


@given(
    ranges=st.lists(st.tuples(st.integers(1, 500), st.integers(0, 99)), min_size=1, max_size=4),
    wanted=st.integers(1, 40),
)
def test_a_sample_has_so_many_ports_of_each_range(
    ranges: list[tuple[int, int]], wanted: int
) -> None:
    whole = normalise((first, first + more) for first, more in ranges)
    some = sample_ports(whole, wanted)
    for first, last in whole:
        ours = intersect(some, ((first, last),))
        assert count_ports(ours) == min(wanted, last - first + 1)
        assert ours[0][0] == first
        assert wanted == 1 or ours[-1][1] == last
    assert intersect(some, whole) == some


def test_the_bound_on_unanswered_syns_must_suffice_for_the_sources() -> None:
    sources = [node(f"a{n}", "a", f"10.0.1.{n}") for n in range(1, 11)]
    asked = profile(rule("r", "a", "b", "1/tcp"))
    with pytest.raises(ConfigError, match="it must be at least 20") as caught:
        plan(cluster(*sources, B1), asked, Limits(max_half_open=19))
    assert caught.value.path == "--max-half-open"
    assert plan(cluster(*sources, B1), asked, Limits(max_half_open=20)).probes


ROLES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)
PORTS = st.sampled_from(["1/tcp", "1-5/tcp", "3/udp", "4-9/tcp"])


@given(
    roles=st.lists(ROLES, min_size=1, max_size=5),
    asked=st.lists(st.tuples(ROLES, ROLES, PORTS), min_size=1, max_size=4),
    dual=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_every_flow_is_probed_and_listened_for_exactly_once(
    roles: list[list[str]], asked: list[tuple[list[str], list[str], str]], dual: list[bool]
) -> None:
    nodes = [
        node(f"n{place}", " ".join(own), f"10.0.0.{place + 1}", *[f"fd00::{place}"] * dual[place])
        for place, own in enumerate(roles)
    ]
    rules = [
        rule(f"r{place}", " ".join(sources), " ".join(destinations), ports)
        for place, (sources, destinations, ports) in enumerate(asked)
    ]
    try:
        made = plan(cluster(*nodes), profile(*rules))
    except ConfigError:
        return
    keys = [
        (one.source, one.address, one.protocol, port)
        for one in made.probes
        for port in each_port(one.ports)
    ]
    assert len(keys) == len(set(keys))
    assert set(keys) == {
        (flow.source, flow.destination_address, flow.protocol, port)
        for flow in made.flows
        for port in each_port(flow.ports)
    }
    held = {
        (one.address, one.protocol, port) for one in made.listens for port in each_port(one.ports)
    }
    assert held == {key[1:] for key in keys}
    assert [one.id for one in made.probes] == list(range(len(made.probes)))
    assert len(set(made.flows)) == len(made.flows)
    assert count(made).flows == sum(count_ports(one.ports) for one in made.probes)
    assert all(flow.source != flow.destination for flow in made.flows)
