"""What is wrong with whole nodes: agents that are missing, held ports, dead addresses."""

from preflight.model.report import Cause, Verdict, Where
from tests.conformance.expectation import Expected, blocked, proven, untested
from tests.conformance.group import Case, Group
from tests.memory.faults import (
    Absent,
    Dies,
    Drop,
    ForeignAgent,
    NoAgent,
    Program,
    Traffic,
    Unprivileged,
)
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "nodes"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["700/tcp", "700/udp"]
why = "what the cases are about; below 1024, so that a privilege is needed"
source = "tests"
[rules.closed]
from = ["source"]
to = ["vault"]
ports = ["27017/tcp"]
why = "nobody may get there"
source = "tests"
expect = "blocked"
[rules.extra]
from = ["source"]
to = ["shop"]
ports = ["8285/udp"]
why = "nice to have"
source = "tests"
required = false
[rules.last-words]
from = ["doomed"]
to = ["shop"]
ports = ["702/tcp"]
why = "what the dying agent was probing"
source = "tests"
"""
TCP, UDP = "700/tcp", "700/udp"
OPEN = {TCP: proven(), UDP: proven()}
LINK = "lan"

MACHINES = (
    Machine("s1", ("10.77.1.11",), ("source",), link=LINK),
    Machine("well", ("10.77.2.11",), ("destination",)),
    Machine("absent", ("10.77.3.11",), ("destination",)),
    Machine("dead", ("10.77.1.99",), ("destination",), link=LINK),
    Machine("moved", ("10.77.4.11",), ("destination",), nat_of=("10.77.1.98",)),
    Machine("empty", ("10.77.5.11",), ("destination",)),
    Machine("foreign", ("10.77.6.11",), ("destination",)),
    Machine("busy", ("10.77.7.11",), ("destination",)),
    Machine("idle", ("10.77.8.11",), ("destination",)),
    Machine("humble", ("10.77.9.11",), ("destination",)),
    Machine("dying", ("10.77.10.11",), ("destination", "doomed")),
    Machine("s2", ("10.77.11.11",), ("source",)),
    Machine("vault", ("10.77.12.11",), ("vault",)),
    Machine("shop", ("10.77.13.11",), ("shop",)),
)
FAULTS = (
    Absent("absent"),
    Absent("dead"),
    NoAgent("empty"),
    ForeignAgent("foreign"),
    Program("busy", "tcp", 700, "silent"),
    Program("busy", "udp", 700, "silent"),
    Program("idle", "tcp", 700, "idle"),
    Unprivileged("humble"),
    Drop(Traffic("s2", "dying")),
    Dies("dying"),
)


def _same(expected: Expected) -> dict[str, Expected]:
    return {TCP: expected, UDP: expected}


_NO_NEIGHBOUR = blocked(Cause.NO_NEIGHBOUR, Where.SOURCE_EGRESS, "source")

NODES = Group(
    Setting("nodes", MACHINES, FAULTS, PROFILE),
    (
        Case("all-is-well", "s1", "well", OPEN),
        Case("no-machine", "s1", "absent", _same(untested(Cause.AGENT_UNREACHABLE))),
        Case(
            "no-machine-on-the-own-link",
            "s1",
            "dead",
            _same(untested(Cause.NO_NEIGHBOUR, "source")),
        ),
        Case("no-machine-on-another-link", "s2", "dead", _same(untested(Cause.AGENT_UNREACHABLE))),
        Case("nobody-has-the-address-on-the-own-link", "s1", "moved", _same(_NO_NEIGHBOUR)),
        Case(
            "nobody-has-the-address-on-another-link",
            "s2",
            "moved",
            _same(blocked(Cause.ICMP_HOST_UNREACHABLE, Where.FORWARD_PATH, "router")),
        ),
        Case("no-agent", "s1", "empty", _same(untested(Cause.AGENT_UNREACHABLE))),
        Case("another-key", "s1", "foreign", _same(untested(Cause.AGENT_REFUSED))),
        Case(
            "port-held-by-a-listening-program",
            "s1",
            "busy",
            {TCP: proven(), UDP: untested(Cause.PORT_IN_USE)},
        ),
        Case(
            "port-held-by-an-idle-program",
            "s1",
            "idle",
            {TCP: untested(Cause.PORT_IN_USE), UDP: proven()},
        ),
        Case("port-not-allowed", "s1", "humble", _same(untested(Cause.BIND_DENIED))),
        # Dropped, so that the run is still probing when the agent dies.
        Case(
            "destination-dies-meanwhile",
            "s1",
            "dying",
            _same(untested(Cause.AGENT_LOST)),
            (Drop(Traffic("s1", "dying")),),
        ),
        Case(
            "source-dies-meanwhile",
            "dying",
            "shop",
            {"702/tcp": untested(Cause.AGENT_LOST)},
            (Drop(Traffic("dying", "shop")),),
        ),
        Case(
            "blocked-as-it-must-be",
            "s1",
            "vault",
            {"27017/tcp": Expected(Verdict.BLOCKED, Cause.NO_ANSWER, Where.UNKNOWN, ok=True)},
            (Drop(Traffic("s1", "vault")),),
        ),
        Case(
            "open-and-must-not-be",
            "s2",
            "vault",
            {"27017/tcp": Expected(Verdict.OPEN, ok=False)},
        ),
        Case(
            "blocked-but-not-required",
            "s1",
            "shop",
            {"8285/udp": blocked(Cause.NO_ANSWER).when_optional()},
            (Drop(Traffic("s1", "shop")),),
        ),
        Case("not-required-and-open", "s2", "shop", {"8285/udp": proven()}),
    ),
    exit_code=1,
    otherwise=OPEN,
    restless=frozenset(
        ("absent", "dead", "moved", "empty", "foreign", "busy", "idle", "humble", "dying")
    ),
)
