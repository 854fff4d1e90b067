"""Scenarios in which we could not look: never passed, never failed."""

from preflight.model.observation import Confirmation, Failure, Icmp, Reason
from preflight.model.plan import Limits
from preflight.model.report import Cause, Verdict, Where
from tests.scenarios.scenario import Row, Scenario
from tests.scenarios.world import World, pair


def source_missing() -> World:
    return pair().agent("w1", "unreachable", detail="connection refused")


def destination_missing() -> World:
    world = pair().agent("m1", "unreachable", detail="timed out")
    return world.outcome("w1", "m1", "6443", Failure.RESET, errno="ECONNREFUSED")


def dead_address() -> World:
    """One port is tried where no agent is reached; its answer holds for the whole address."""
    world = pair("2379-2380,6443").agent(
        "m1", "unreachable", reason=Reason.NO_HOST, detail="no route to host"
    )
    return world.outcome(
        "w1",
        "m1",
        "2379",
        Failure.NO_NEIGHBOUR,
        errno="EHOSTUNREACH",
        icmp=Icmp(4, 3, 1, "10.0.2.11"),
    )


def refused() -> World:
    world = pair().agent("m1", "refused", reason=Reason.HELD, detail="held by root@jump (pid 4711)")
    return world.silent("w1", "m1", "6443")


def lost() -> World:
    return pair().agent("m1", "lost", detail="connection reset").silent("w1", "m1", "6443")


def restarted() -> World:
    world = pair().silent("w1", "m1", "6443")
    return world.agent("m1", confirmation=Confirmation(instance="another-life", held=()))


def port_in_use() -> World:
    world = pair().occupied("m1", "6443", owner="an outgoing connection of curl (pid 5)")
    return world.outcome("w1", "m1", "6443", Failure.RESET, errno="ECONNREFUSED")


def udp_port_in_use() -> World:
    world = pair("8472", "udp").occupied("m1", "8472", "udp", owner="VXLAN device flannel.1")
    return world.silent("w1", "m1", "8472", protocol="udp")


def bind_denied() -> World:
    world = pair("443").denied("m1", "443", detail="permission denied")
    return world.outcome("w1", "m1", "443", Failure.RESET, errno="ECONNREFUSED")


def skipped() -> World:
    return pair().outcome("w1", "m1", "6443", Failure.SKIPPED, attempts=0)


def left_out() -> World:
    """Three ports of the range were tried; one of them is blocked, and says nothing of others."""
    world = World(limits=Limits(sample=3)).node("w1", "10.0.2.11").node("m1", "10.0.1.11")
    world.flow("w1", "m1", "30000-32767", rule="nodeports")
    return world.proven("w1", "m1", "30000,32767").silent("w1", "m1", "31384")


def out_of_descriptors() -> World:
    return pair().outcome("w1", "m1", "6443", Failure.LOCAL_LIMIT, errno="EMFILE", attempts=0)


def interrupted() -> World:
    world = pair("2379,6443").proven("w1", "m1", "2379")
    world.interrupted = True
    return world


def too_lossy() -> World:
    world = pair("6443").flow("w1", "m1", "8472", "udp", rule="flannel-vxlan")
    world.proven("w1", "m1", "8472", protocol="udp", attempts=24, answered=12)
    return world.silent("w1", "m1", "6443")


def too_fast() -> World:
    world = pair("30000-30099").proven("w1", "m1", "30000-30009")
    world.outcome("w1", "m1", "30010-30099", Failure.RESET, errno="ECONNREFUSED")
    world.proven("w1", "m1", "30010,30099", second_look=True)
    return world.outcome("w1", "m1", "30055", Failure.RESET, second_look=True)


def dropped_by_our_limits() -> World:
    return pair().silent("w1", "m1", "6443").dropped("m1", "6443")


def _one(cause: Cause, ports: str = "6443") -> tuple[Row, ...]:
    return (Row(ports, Verdict.UNTESTED, cause),)


SCENARIOS = (
    Scenario(
        "untested-source-missing",
        "The source's agent was not reached, so nothing was tried.",
        source_missing,
        _one(Cause.AGENT_UNREACHABLE),
    ),
    Scenario(
        "untested-agent-unreachable",
        "The destination's agent was not reached: what came back means nothing.",
        destination_missing,
        _one(Cause.AGENT_UNREACHABLE),
    ),
    Scenario(
        "untested-no-neighbour",
        "No agent, and nobody answers ARP for the address: the machine is off, or is elsewhere.",
        dead_address,
        _one(Cause.NO_NEIGHBOUR, "2379-2380,6443"),
    ),
    Scenario(
        "untested-agent-refused",
        "The destination's agent is held by another coordinator.",
        refused,
        _one(Cause.AGENT_REFUSED),
    ),
    Scenario(
        "untested-agent-lost",
        "The destination's agent was lost, so that nobody confirms its listener.",
        lost,
        _one(Cause.AGENT_LOST),
    ),
    Scenario(
        "untested-agent-restarted",
        "The agent that confirms is not the one that greeted.",
        restarted,
        _one(Cause.AGENT_LOST),
    ),
    Scenario(
        "untested-port-in-use",
        "An outgoing connection has the port; nobody listens there.",
        port_in_use,
        _one(Cause.PORT_IN_USE),
    ),
    Scenario(
        "untested-udp-port-in-use",
        "A tunnel device has the UDP port: a datagram to it proves nothing.",
        udp_port_in_use,
        _one(Cause.PORT_IN_USE, "8472"),
    ),
    Scenario(
        "untested-bind-denied",
        "The agent may not bind a port below 1024.",
        bind_denied,
        _one(Cause.BIND_DENIED, "443"),
    ),
    Scenario("untested-skipped", "The deadline left no room.", skipped, _one(Cause.SKIPPED)),
    Scenario(
        "untested-left-out",
        "Only a sample of the range was tried.",
        left_out,
        (
            Row("30000,32767", Verdict.OPEN, ok=True),
            Row("30001-31383,31385-32766", Verdict.UNTESTED, Cause.SKIPPED),
            Row("31384", Verdict.BLOCKED, Cause.NO_ANSWER, Where.UNKNOWN, ok=False),
        ),
    ),
    Scenario(
        "untested-local-limit",
        "The source ran out of file descriptors.",
        out_of_descriptors,
        _one(Cause.SKIPPED),
    ),
    Scenario(
        "untested-interrupted",
        "Ctrl-C: what was proven counts, the rest is untested.",
        interrupted,
        (Row("2379", Verdict.OPEN, ok=True), Row("6443", Verdict.UNTESTED, Cause.SKIPPED)),
    ),
    Scenario(
        "untested-loss",
        "Half of the datagrams on the path are lost, so twelve silent attempts prove nothing.",
        too_lossy,
        (
            Row("6443", Verdict.UNTESTED, Cause.LOSS),
            Row("8472", Verdict.DEGRADED, Cause.LOSS, ok=True),
        ),
    ),
    Scenario(
        "untested-too-fast",
        "A firewall resets what is beyond so many new connections a second. Of three reset ports "
        "that were tried again slowly, two work: of the others nothing is known.",
        too_fast,
        (
            Row("30000-30010,30099", Verdict.DEGRADED, Cause.LOSS, ok=True),
            Row("30011-30054,30056-30098", Verdict.UNTESTED, Cause.LOSS),
            Row("30055", Verdict.BLOCKED, Cause.RESET, Where.UNKNOWN, ok=False),
        ),
    ),
    Scenario(
        "untested-dropped-by-own-limits",
        "The listener dropped attempts by its own limits: silence proves nothing.",
        dropped_by_our_limits,
        _one(Cause.SKIPPED),
    ),
)
