"""Missing agents: the step fits the reason, and one step is told once."""

import pytest
from msgspec import structs

from preflight.diagnosis import diagnose
from preflight.model.observation import Confirmation, Failure, Icmp, Reason
from preflight.model.report import Cause, Finding, Verdict
from tests.scenarios.world import World, instance_of, pair

HELD = "run 0f0f0f0f of root@jump (pid 4711) holds this agent since 08:00:0{} UTC"


def findings(world: World) -> list[Finding]:
    return list(diagnose(world.plan(), world.observations()).findings)


def only(world: World) -> Finding:
    (found,) = findings(world)
    return found


def embed(world: World, node: str) -> World:
    world.nodes[node] = structs.replace(world.nodes[node], embedded=True)
    return world


def test_nodes_that_one_run_holds_share_a_finding() -> None:
    world = World().node("w1", "10.0.2.11")
    for number in (1, 2, 3):
        world.node(f"m{number}", f"10.0.1.{number}", role="control-plane")
        world.flow("w1", f"m{number}", "6443").silent("w1", f"m{number}", "6443")
        world.agent(f"m{number}", "refused", reason=Reason.HELD, detail=HELD.format(number))

    found = only(world)

    assert found.title == "the agents of m1, m2 and m3 refused to take part"
    assert found.fix == "Wait until that run has ended, and run again."
    assert "root@jump" in found.detail
    assert "2 more like it" in found.detail
    assert found.flows == (0, 1, 2)


@pytest.mark.parametrize(
    ("reason", "step", "serve"),
    [
        (Reason.HELD, "Wait until that run has ended", False),
        (Reason.NOT_ITS_ADDRESS, "Correct nodes.m1.address in the cluster file", False),
        (Reason.VERSION, "the same version of preflight on m1", False),
        (Reason.KEY, "with this cluster's key", True),
        (Reason.NOT_AN_AGENT, "nodes.m1.control", False),
        (Reason.DESCRIPTORS, "On m1: raise the hard limit of open files", False),
        (Reason.OTHER, "Cure what it says", True),
    ],
)
def test_each_reason_to_refuse_has_its_step(reason: Reason, step: str, *, serve: bool) -> None:
    world = pair().silent("w1", "m1", "6443").agent("m1", "refused", reason=reason)

    found = only(world)

    assert (found.code, found.title) == ("agent-refused", "m1's agent refused to take part")
    assert step in found.fix
    assert ("preflight serve --key-file" in found.fix) is serve


@pytest.mark.parametrize(
    ("state", "reason", "step"),
    [
        ("refused", Reason.NOT_ITS_ADDRESS, "or run this command on w1"),
        ("refused", Reason.DESCRIPTORS, "where this command runs"),
        ("lost", Reason.OTHER, "Run again"),
    ],
)
def test_nothing_is_to_be_served_on_an_embedded_node(state: str, reason: Reason, step: str) -> None:
    world = embed(pair(), "w1").agent("w1", state, reason=reason)  # type: ignore[arg-type]  # parametrized

    found = only(world)

    assert step in found.fix
    assert "serve" not in found.fix


def test_nodes_without_an_agent_share_a_finding_unless_their_ports_differ() -> None:
    world = pair().node("m2", "10.0.1.12").node("m3", "10.0.1.13")
    world.nodes["m3"] = structs.replace(world.nodes["m3"], control_port=11000)
    for name in ("m1", "m2", "m3"):
        world.agent(name, "unreachable", detail="connection refused")

    first, second = findings(world)

    assert (first.title, second.title) == ("no agent on m1 and m2", "no agent on m3")
    assert "10888/tcp to m1 (10.0.1.11) and m2 (10.0.1.12)" in first.fix
    assert "11000/tcp" in second.fix


def test_where_no_agent_has_the_key_the_coordinators_is_doubted_first() -> None:
    world = embed(pair().node("m2", "10.0.1.12"), "w1")
    for name in ("m1", "m2"):
        world.agent(name, "refused", reason=Reason.KEY)

    fix = only(world).fix

    assert fix.startswith("No agent has this coordinator's key")
    assert "Start them with this cluster's key" in fix

    world.agent("m2", "ready", reason=Reason.OTHER)
    fix = only(world).fix
    assert fix.startswith("Start it with this cluster's key")


def test_address_that_nothing_leads_to_is_asked_about_first() -> None:
    world = pair().silent("w1", "m1", "6443")
    world.agent("m1", "unreachable", reason=Reason.NO_HOST, detail="No route to host")

    fix = only(world).fix

    assert fix.startswith("Is the address right, and is the machine on: m1 (10.0.1.11)?")
    assert "a firewall rejects 10888/tcp" in fix
    assert "preflight serve" not in fix


def test_nobody_at_the_address_is_one_step() -> None:
    world = pair().agent("m1", "unreachable", reason=Reason.NO_HOST)
    own = Icmp(4, 3, 1, "10.0.2.11")
    world.outcome("w1", "m1", "6443", Failure.NO_NEIGHBOUR, errno="EHOSTUNREACH", icmp=own)

    steps = {(one.code, one.fix) for one in findings(world)}

    said = "No host answers at m1 (10.0.1.11): is the address right, is the machine on?"
    assert steps == {("agent-unreachable", said), ("no-neighbour", said)}


def test_a_router_that_finds_no_host_says_the_same() -> None:
    world = pair().agent("m1", "unreachable", detail="no answer")
    world.refused("w1", "m1", "6443", Icmp(4, 3, 1, "10.0.1.1"))

    assert only(world).fix.startswith("No host answers at m1 (10.0.1.11)")


def test_an_address_that_spoke_to_somebody_has_a_host() -> None:
    world = pair().node("w2", "10.0.2.12").flow("w2", "m1", "6443")
    world.agent("m1", "unreachable", detail="no answer")
    world.refused("w1", "m1", "6443", Icmp(4, 3, 1, "10.0.1.1"))
    world.outcome("w2", "m1", "6443", Failure.RESET, errno="ECONNREFUSED")

    assert "preflight serve" in only(world).fix


def test_own_firewalls_error_is_no_missing_host() -> None:
    world = pair().agent("m1", "unreachable", detail="no answer")
    own = Icmp(4, 3, 1, "10.0.2.11")
    world.outcome("w1", "m1", "6443", Failure.SEND_DENIED, errno="EHOSTUNREACH", icmp=own)

    assert "preflight serve" in only(world).fix


@pytest.mark.parametrize("node", ["w1", "m1"])
def test_agent_that_an_interrupted_run_never_called_is_no_trouble(node: str) -> None:
    world = pair().agent(node, "unreachable", reason=Reason.NOT_CALLED)
    world.interrupted = True

    report = diagnose(world.plan(), world.observations())

    (record,) = report.flows
    assert (record.verdict, record.cause) == (Verdict.UNTESTED, Cause.SKIPPED)
    assert record.detail == f"interrupted: {node} was not reached yet"
    assert [one.code for one in report.findings] == ["interrupted"]


def stood_still(node: str) -> World:
    world = pair().flow("m1", "w1", "10250").silent("w1", "m1", "6443").silent("m1", "w1", "10250")
    return world.agent(node, confirmation=Confirmation(instance=instance_of(node), held=()))


def test_an_agent_that_stood_still_is_told_of() -> None:
    found = next(one for one in findings(stood_still("m1")) if one.code == "agent-unsteady")

    assert found.title == "m1's agent did not listen all the time"
    assert "stood still" in found.detail
    assert "Run again" in found.fix
    assert found.flows == (0,)


def test_the_agent_at_the_other_end_of_an_untested_flow_is_not_blamed() -> None:
    told = [one.title for one in findings(stood_still("m1")) if one.code == "agent-unsteady"]

    assert told == ["m1's agent did not listen all the time"]


def test_one_listener_that_went_is_enough() -> None:
    world = pair("6443,9200").silent("w1", "m1", "6443,9200")
    (listening,) = [one for one in world.observations().agents if one.node == "m1"]
    (state,) = listening.listeners
    left = structs.replace(state, ports=((6443, 6443),))
    world.agent("m1", confirmation=Confirmation(instance=instance_of("m1"), held=(left,)))

    codes = {one.code: one.flows for one in findings(world)}

    assert codes == {"blocked": (0,), "agent-unsteady": (1,)}


def test_an_agent_that_stood_still_and_was_not_missed_is_not_told_of() -> None:
    world = pair().proven("w1", "m1", "6443")
    world.agent("m1", confirmation=Confirmation(instance=instance_of("m1"), held=()))

    assert findings(world) == []
