"""Scenarios in which an answer came: from the right one, with loss, or from a stranger."""

from preflight.model.observation import Attempt, Failure, Operation
from preflight.model.report import Cause, Verdict, Where
from tests.scenarios.scenario import Row, Scenario
from tests.scenarios.world import World, behind_vip, pair

OPEN, DEGRADED, INTERCEPTED = Verdict.OPEN, Verdict.DEGRADED, Verdict.INTERCEPTED


def clean() -> World:
    world = pair("6443").flow("w1", "m1", "8472", "udp", rule="flannel-vxlan")
    return world.proven("w1", "m1", "6443").proven("w1", "m1", "8472", protocol="udp")


def dual_stack() -> World:
    world = World().node("w1", "10.0.2.11", "fd00:2::11").node("m1", "10.0.1.11", "fd00:1::11")
    world.flow("w1", "m1", "6443").flow("w1", "m1", "6443", family=6)
    world.proven("w1", "m1", "6443")
    return world.proven("w1", "m1", "6443", family=6, observed_source="fd00:2:0:0::11")


def one_port_two_rules() -> World:
    world = pair("32080", rule="apinizer-management")
    world.flow("w1", "m1", "30000-32767", rule="nodeports")
    world.proven("w1", "m1", "30000-30499,30501-32767")
    return world.silent("w1", "m1", "30500")


def held_by_service() -> World:
    world = pair("6443").occupied(
        "m1", "6443", owner="kube-apiserver (pid 812)", owner_listens=True
    )
    return world.outcome(
        "w1", "m1", "6443", Failure.CONNECTED_ONLY, operation=Operation.CONNECT, rtt_ms=0.3
    )


def vip() -> World:
    world = behind_vip("m1", "m2", "m3")
    world.proven("w1", "api", "6443", answered_by="m1", attempts=4, answered=4)
    return world.proven("w1", "api", "6443", answered_by="m2", attempts=3, answered=3)


def vip_with_dead_backend() -> World:
    world = behind_vip("m1", "m2")
    world.proven("w1", "api", "6443", answered_by="m1", attempts=4, answered=4)
    return world.silent("w1", "api", "6443", attempts=4)


def masqueraded() -> World:
    return pair().proven("w1", "m1", "6443", observed_source="10.0.2.1")


def other_source_address() -> World:
    return pair().proven(
        "w1", "m1", "6443", local_address="192.168.7.4", observed_source="192.168.7.4"
    )


def lost_after_proof() -> World:
    return pair().proven("w1", "m1", "6443").agent("m1", "lost", detail="connection reset")


def stopped_midway() -> World:
    world = pair("8472", "udp").agent("m1", "lost", detail="connection reset")
    return world.proven("w1", "m1", "8472", protocol="udp", attempts=24, answered=1)


def udp_loss() -> World:
    world = pair("8472", "udp")
    return world.proven("w1", "m1", "8472", protocol="udp", attempts=24, answered=15)


def tcp_loss() -> World:
    world = pair("30000-30099")
    return world.proven("w1", "m1", "30000-30099", attempts=104, retransmits=4)


def answered_on_second_look() -> World:
    world = pair().silent("w1", "m1", "6443")
    return world.proven("w1", "m1", "6443", second_look=True)


def small_only() -> World:
    world = pair().proven("w1", "m1", "6443")
    return world.outcome("w1", "m1", "6443", Failure.SILENT_AFTER_CONNECT, size=8192, attempts=3)


def other_agent() -> World:
    return pair().node("m2", "10.0.1.12").proven("w1", "m1", "6443", answered_by="m2")


def led_to_another_port() -> World:
    return pair("30080").proven("w1", "m1", "30080", answered_port=30081)


def foreign_server() -> World:
    return pair().connected("w1", "m1", 6443, Failure.FOREIGN_ANSWER, first_bytes="15030300020228")


def syn_proxy() -> World:
    return pair().connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT)


def challenge_seen_elsewhere() -> World:
    world = pair().node("m2", "10.0.1.12")
    world.sighting("m2", 6443, "aa", answered=True)
    attempt = Attempt(probe_id="aa", port=6443, connected=True)
    return world.connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT, unanswered=(attempt,))


def exposed() -> World:
    return pair("27017", expected="blocked").proven("w1", "m1", "27017")


SCENARIOS = (
    Scenario(
        "open-clean",
        "One TCP and one UDP flow, both answered by the right agent.",
        clean,
        (Row("6443", OPEN, ok=True), Row("8472", OPEN, ok=True)),
    ),
    Scenario(
        "open-dual-stack",
        "The same port over IPv4 and IPv6. The listener spells the source address otherwise "
        "than the plan does: that is no translation.",
        dual_stack,
        (Row("6443", OPEN, ok=True), Row("6443", OPEN, ok=True)),
    ),
    Scenario(
        "open-with-a-hole",
        "Two rules ask for the same port, and one of the 2,768 NodePorts is silent: the hole is "
        "reported to the port, under the rule that has it.",
        one_port_two_rules,
        (
            Row("32080", OPEN, ok=True),
            Row("30000-30499,30501-32767", OPEN, ok=True),
            Row("30500", Verdict.BLOCKED, Cause.NO_ANSWER, Where.UNKNOWN, ok=False),
        ),
    ),
    Scenario(
        "open-connection",
        "The port is held by kube-apiserver already: a connection is the proof, with its name.",
        held_by_service,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-vip",
        "A VIP whose backends answer in turn: each is counted.",
        vip,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-vip-unsteady",
        "A VIP that answers, but leads some connections to a backend that does not: open, with "
        "a warning.",
        vip_with_dead_backend,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-masqueraded",
        "The listener saw another source address than the one that the connection left from.",
        masqueraded,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-other-source-address",
        "The source's kernel chose another of its addresses than the plan's.",
        other_source_address,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-agent-lost-afterwards",
        "The destination's agent answered, and was lost before it could confirm: proof is proof.",
        lost_after_proof,
        (Row("6443", OPEN, ok=True),),
    ),
    Scenario(
        "open-agent-stopped-midway",
        "One datagram of 24 was answered, then the agent was stopped: open, and no word of loss.",
        stopped_midway,
        (Row("8472", OPEN, ok=True),),
    ),
    Scenario(
        "degraded-loss-udp",
        "Nine of 24 datagrams stayed unanswered.",
        udp_loss,
        (Row("8472", DEGRADED, Cause.LOSS, ok=True),),
    ),
    Scenario(
        "degraded-loss-tcp",
        "Four of a hundred connections needed a retransmission.",
        tcp_loss,
        (Row("30000-30099", DEGRADED, Cause.LOSS, ok=True),),
    ),
    Scenario(
        "degraded-second-look",
        "Twelve attempts stayed silent, the second look was answered: open, but with loss.",
        answered_on_second_look,
        (Row("6443", DEGRADED, Cause.LOSS, ok=True),),
    ),
    Scenario(
        "degraded-path-mtu",
        "The small challenge was answered, the one of 8 KB was not.",
        small_only,
        (Row("6443", DEGRADED, Cause.PATH_MTU, ok=True),),
    ),
    Scenario(
        "intercepted-wrong-node",
        "Another node's agent answered at m1's address.",
        other_agent,
        (Row("6443", INTERCEPTED, Cause.WRONG_NODE, ok=False),),
    ),
    Scenario(
        "intercepted-other-port",
        "The right agent answered, but on another of its ports: a redirect.",
        led_to_another_port,
        (Row("30080", INTERCEPTED, Cause.IMPOSTOR, ok=False),),
    ),
    Scenario(
        "intercepted-foreign-answer",
        "A TLS server answered instead of the agent.",
        foreign_server,
        (Row("6443", INTERCEPTED, Cause.IMPOSTOR, ok=False),),
    ),
    Scenario(
        "intercepted-syn-proxy",
        "The handshake was completed, but not by m1: its listener was up and saw nothing.",
        syn_proxy,
        (Row("6443", INTERCEPTED, Cause.IMPOSTOR, ok=False),),
    ),
    Scenario(
        "intercepted-seen-elsewhere",
        "No answer came, but another node's listener saw the challenge.",
        challenge_seen_elsewhere,
        (Row("6443", INTERCEPTED, Cause.WRONG_NODE, ok=False),),
    ),
    Scenario(
        "exposed",
        "A flow that must be blocked is open.",
        exposed,
        (Row("27017", OPEN, ok=False),),
    ),
)
