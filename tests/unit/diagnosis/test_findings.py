"""What a report tells people: codes, lines that stand for many records, and what to do."""

import pytest
from msgspec import structs

from preflight.diagnosis import diagnose, exit_code
from preflight.model.observation import Facts, Failure, Icmp, ListenerState
from preflight.model.report import Finding
from tests.scenarios.world import World, behind_vip, pair


def findings(world: World) -> list[Finding]:
    return list(diagnose(world.plan(), world.observations()).findings)


def only(world: World, code: str) -> Finding:
    (found,) = [finding for finding in findings(world) if finding.code == code]
    return found


def many_workers(count: int = 2) -> World:
    world = (
        World().node("db1", "10.0.3.11", role="mongodb").node("db2", "10.0.3.12", role="mongodb")
    )
    for number in range(1, count + 1):
        world.node(f"w{number}", f"10.0.2.{number}")
    return world


def test_clean_run_has_nothing_to_tell() -> None:
    assert findings(pair().proven("w1", "m1", "6443")) == []


def test_one_cause_is_one_line() -> None:
    world = many_workers()
    for source in ("w1", "w2"):
        world.flow(source, "db1", "25080", rule="mongodb")
        world.outcome(source, "db1", "25080", Failure.RESET)

    found = only(world, "blocked")

    assert found.title == "2 workers -> db1 25080/tcp blocked: reset"
    assert found.flows == (0, 1)
    assert "w1 (10.0.2.1), w2 (10.0.2.2)" in found.fix


def test_sources_and_destinations_that_make_a_whole_block_are_one_line() -> None:
    world = many_workers()
    for source in ("w1", "w2"):
        for destination in ("db1", "db2"):
            world.flow(source, destination, "25080").silent(source, destination, "25080")

    title = only(world, "blocked").title
    assert title == "2 workers -> 2 mongodb nodes 25080/tcp blocked: no-answer"


def test_full_mesh_is_one_line() -> None:
    world = many_workers(3)
    for source in ("w1", "w2", "w3"):
        for destination in ("w1", "w2", "w3"):
            if source != destination:
                world.flow(source, destination, "10250").silent(source, destination, "10250")

    title = only(world, "blocked").title
    assert title == "3 workers -> each other 10250/tcp blocked: no-answer"


def test_ragged_pairs_are_told_by_destination() -> None:
    world = many_workers()
    for source, destination in (("w1", "db1"), ("w2", "db1"), ("w1", "db2")):
        world.flow(source, destination, "25080").silent(source, destination, "25080")

    titles = [finding.title for finding in findings(world)]

    assert titles == [
        "2 workers -> db1 25080/tcp blocked: no-answer",
        "w1 -> db2 25080/tcp blocked: no-answer",
    ]


def test_mixed_roles_are_nodes_and_long_lists_are_cut() -> None:
    world = many_workers(9)
    for source in ("db1", *(f"w{number}" for number in range(1, 9))):
        world.flow(source, "w9", "10250").silent(source, "w9", "10250")

    found = only(world, "blocked")

    assert found.title.startswith("8 other workers and db1 -> w9")
    assert "and 3 more" in found.fix


def test_each_end_that_refuses_by_itself_shares_the_line() -> None:
    world = many_workers()
    for destination, address in (("db1", "10.0.3.11"), ("db2", "10.0.3.12")):
        world.flow("w1", destination, "25080")
        world.refused("w1", destination, "25080", Icmp(4, 3, 13, address))

    found = only(world, "blocked")

    assert found.title == "w1 -> 2 mongodb nodes 25080/tcp blocked: icmp-admin-prohibited"
    assert "the machine's own firewall" in found.fix


def test_refusing_router_is_named() -> None:
    world = pair().refused("w1", "m1", "6443", Icmp(4, 3, 13, "10.0.2.1"))

    found = only(world, "blocked")

    assert found.title.endswith("icmp-admin-prohibited, by 10.0.2.1")
    assert "network team" in found.fix


def test_long_port_lists_are_counted_in_titles() -> None:
    ports = ",".join(str(port) for port in range(30000, 30100, 2))
    world = pair(ports).silent("w1", "m1", ports)

    assert "50 ports within 30000-30098/tcp" in only(world, "blocked").title


def test_family_is_named_where_there_are_two() -> None:
    world = World().node("w1", "10.0.2.11", "fd00::1").node("m1", "10.0.1.11", "fd00::2")
    world.flow("w1", "m1", "6443").flow("w1", "m1", "6443", family=6)
    world.proven("w1", "m1", "6443").silent("w1", "m1", "6443", family=6)

    assert "over IPv6" in only(world, "blocked").title


def test_missing_agent_comes_with_the_command_that_starts_it() -> None:
    world = pair().agent("m1", "unreachable", detail="connection refused")
    world.silent("w1", "m1", "6443")

    found = only(world, "agent-unreachable")

    assert "preflight serve --key-file" in found.fix
    assert "10888/tcp" in found.fix
    assert found.flows == (0,)
    assert len(findings(world)) == 1


def test_ready_agent_that_did_not_confirm_is_told_of() -> None:
    world = pair().silent("w1", "m1", "6443").agent("m1", confirmation=None)

    assert "did not confirm" in only(world, "agent-lost").detail


def test_wrong_node_is_named() -> None:
    world = pair().node("m2", "10.0.1.12").proven("w1", "m1", "6443", answered_by="m2")

    assert only(world, "intercepted").title == "w1 -> m1 6443/tcp intercepted: wrong-node (m2)"


def test_held_port_names_its_owner_and_its_flows() -> None:
    world = pair().occupied("m1", "6443", owner="nginx (pid 7)", owner_listens=True)
    world.outcome("w1", "m1", "6443", Failure.CONNECTED_ONLY)

    found = only(world, "port-occupied")

    assert "nginx (pid 7)" in found.title
    assert found.flows == (0,)


def test_denied_port() -> None:
    world = pair("443").denied("m1", "443", detail="permission denied")

    assert "443/tcp" in only(world, "bind-denied").title


def test_clocks_that_differ() -> None:
    world = pair().proven("w1", "m1", "6443")
    world.agent("w1", clock_offset_ms=-501.0).agent("m1", clock_offset_ms=94_608_000_000.0)

    titles = [finding.title for finding in findings(world)]

    assert titles == [
        "w1's clock is 0.5 s behind the coordinator's",
        "m1's clock is 1,576,800 min ahead of the coordinator's",
    ]


def test_local_port_range_over_node_ports() -> None:
    world = pair("30000-32767").proven("w1", "m1", "30000-32767")
    world.agent("m1", facts=Facts(local_port_range=(32000, 60999)))
    world.agent("w1", facts=Facts(local_port_range=(1024, 60999)))

    found = only(world, "local-port-range")

    assert "ip_local_reserved_ports=32000-32767" in found.fix


def test_nat_node_and_notes_are_for_information() -> None:
    world = World().node("w1", "10.0.2.11").node("m1", "203.0.113.7", nat=True)
    world.flow("w1", "m1", "6443").proven("w1", "m1", "6443")
    world.notes = ("role elasticsearch has no node",)

    found = findings(world)

    assert [(one.code, one.severity) for one in found] == [
        ("nat-node", "info"),
        ("plan-note", "info"),
    ]
    assert found[1].title == "role elasticsearch has no node"


def test_nat_source_may_leave_from_its_private_address() -> None:
    world = World().node("w1", "203.0.113.7", nat=True).node("m1", "10.0.1.11")
    world.flow("w1", "m1", "6443")
    world.proven("w1", "m1", "6443", local_address="10.5.0.7", observed_source="203.0.113.7")

    assert [one.code for one in findings(world)] == ["nat-node"]


def test_not_tested_is_told_once() -> None:
    world = pair("2379,6443").outcome("w1", "m1", "2379,6443", Failure.SKIPPED)

    assert only(world, "not-tested").flows == (0,)
    world.interrupted = True
    assert [one.code for one in findings(world)] == ["interrupted"]


def test_errors_come_first() -> None:
    world = pair("6443").flow("w1", "m1", "8285", "udp", required=False)
    world.silent("w1", "m1", "8285", protocol="udp").silent("w1", "m1", "6443")

    assert [one.code for one in findings(world)] == ["blocked", "blocked-optional"]


def test_exit_codes() -> None:
    clean = pair().proven("w1", "m1", "6443")
    unknown = pair()
    broken = pair("2379,6443").silent("w1", "m1", "6443")

    codes = [
        exit_code(diagnose(world.plan(), world.observations()))
        for world in (clean, unknown, broken)
    ]

    assert codes == [0, 3, 1]


def test_listeners_of_an_agent_are_summed_up() -> None:
    world = pair("6443").proven("w1", "m1", "6443")
    more = ListenerState(
        protocol="tcp", address="192.168.1.1", ports=((6444, 6444),), state="listening"
    )
    world.holders.append(("m1", more))

    listeners = diagnose(world.plan(), world.observations()).agents[1].listeners

    assert [(one.ports, one.state) for one in listeners] == [("6443-6444", "listening")]


def test_interruption_comes_before_everything() -> None:
    world = pair("2379,6443").silent("w1", "m1", "6443")
    world.interrupted = True

    assert [one.code for one in findings(world)] == ["interrupted", "blocked"]


@pytest.mark.parametrize(
    ("local", "told"), [("127.0.0.1", []), ("192.168.7.4", ["other-source-address"])]
)
def test_leaving_for_a_loopback_address_is_no_choice_of_routes(local: str, told: list[str]) -> None:
    world = World().node("a", "127.0.0.2").node("b", "127.0.0.3").flow("a", "b", "6443")
    world.proven("a", "b", "6443", local_address=local, observed_source=local)

    assert [one.code for one in findings(world)] == told


def test_port_that_is_held_at_a_vips_address_names_it_and_has_the_vips_flows() -> None:
    world = behind_vip("m1", "m2").occupied("m1", "6443", owner="haproxy", owner_listens=True)
    (_, state) = world.holders.pop()
    world.holders.append(("m1", structs.replace(state, address="10.0.1.10")))
    world.outcome("w1", "api", "6443", Failure.CONNECTED_ONLY)

    found = only(world, "port-occupied")

    assert found.title == "m1 (10.0.1.10) 6443/tcp held by haproxy"
    assert found.flows == (0,)


def test_port_that_is_held_on_all_addresses_of_a_node_names_none() -> None:
    world = World().node("w1", "10.0.2.11").node("m1", "10.0.1.11", "fd00::11")
    world.flow("w1", "m1", "6443").occupied("m1", "6443", owner="nginx", owner_listens=True)
    (_, state) = world.holders[0]
    world.holders.append(("m1", structs.replace(state, address="fd00::11")))

    assert only(world, "port-occupied").title == "m1 6443/tcp held by nginx"


def test_vip_that_is_on_no_machine_is_one_finding() -> None:
    world = behind_vip("m1", "m2").flow("m1", "api", "6443")
    world.outcome("m1", "api", "6443", Failure.NO_NEIGHBOUR, icmp=Icmp(4, 3, 1, "10.0.1.11"))
    world.refused("w1", "api", "6443", Icmp(4, 3, 1, "10.0.2.1"))

    (found,) = findings(world)

    assert (found.code, found.flows) == ("vip-unheld", (0, 1))
    assert found.title == "w1 and m1 -> api 6443/tcp blocked: nobody has the address"
    assert "Is api (10.0.1.10) on any machine yet" in found.fix
    assert found.fix.endswith("check the routes to it on 10.0.2.1.")


def test_vip_that_somebody_reached_is_on_a_machine() -> None:
    world = behind_vip("m1", "m2").flow("m2", "api", "6443").proven("m2", "api", "6443")
    world.outcomes[-1] = structs.replace(world.outcomes[-1], answered_by="m1")
    world.refused("w1", "api", "6443", Icmp(4, 3, 1, "10.0.2.1"))

    assert "vip-unheld" not in [one.code for one in findings(world)]


def test_vip_that_nobody_has_in_the_sources_segment() -> None:
    world = behind_vip("m1", "m2")
    world.outcome("w1", "api", "6443", Failure.NO_NEIGHBOUR, icmp=Icmp(4, 3, 1, "10.0.2.11"))

    fix = only(world, "vip-unheld").fix

    assert fix.endswith("is it in the same network segment as w1 (10.0.2.11)?")


def test_addresses_of_a_step_are_those_of_the_flows_that_fail() -> None:
    world = World().node("w1", "10.0.2.11", "fd00::1").node("m1", "10.0.1.11", "fd00::2")
    world.flow("w1", "m1", "6443").flow("w1", "m1", "6443", family=6)
    world.proven("w1", "m1", "6443").silent("w1", "m1", "6443", family=6)

    assert "allow w1 (fd00::1) to m1 (fd00::2) on 6443/tcp" in only(world, "blocked").fix


def test_two_families_that_fail_alike_are_one_finding() -> None:
    world = World().node("w1", "10.0.2.11", "fd00::1").node("m1", "10.0.1.11", "fd00::2")
    for family in (4, 6):
        world.flow("w1", "m1", "6443", family=family).silent("w1", "m1", "6443", family=family)

    found = only(world, "blocked")

    assert found.title == "w1 -> m1 6443/tcp blocked: no-answer"
    assert found.flows == (0, 1)
    assert "w1 (10.0.2.11 and fd00::1) to m1 (10.0.1.11 and fd00::2)" in found.fix


@pytest.mark.parametrize(
    ("attempts", "met", "told"),
    [
        (27, "m1,m2", ["vip-unsteady"]),  # each attempt that m3 swallowed had another follow
        (18, "m1,m2", []),  # a balancer that keeps to some of its backends
        (19, "m1,m2", []),  # one SYN was lost
        (27, "m1,m2,m3", []),  # loss, but every backend is there
    ],
)
def test_vip_with_a_backend_that_swallows_is_unsteady(
    attempts: int, met: str, told: list[str]
) -> None:
    world = behind_vip("m1", "m2", "m3")
    nodes = met.split(",")
    for node in nodes:
        count = 18 // len(nodes)
        more = attempts - 18 if node == "m1" else 0
        world.proven("w1", "api", "6443", answered_by=node, attempts=count + more, answered=count)

    assert [one.code for one in findings(world)] == told


def test_vip_with_a_backend_that_another_program_holds_is_not_unsteady_for_it() -> None:
    world = behind_vip("m1", "m2").occupied("m2", "6443", owner="etcd", owner_listens=False)
    world.proven("w1", "api", "6443", answered_by="m1", attempts=18, answered=12)

    assert "vip-unsteady" not in [one.code for one in findings(world)]


def test_vip_with_a_backend_of_which_nothing_is_known_is_not_called_unsteady() -> None:
    world = behind_vip("m1", "m2").proven("w1", "api", "6443", answered_by="m1")
    world.silent("w1", "api", "6443")

    assert [one.code for one in findings(world)] == ["vip-unsteady"]
    world.agent("m2", "lost")
    assert "vip-unsteady" not in [one.code for one in findings(world)]
