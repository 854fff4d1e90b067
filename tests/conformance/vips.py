"""Virtual addresses: with backends behind them, and with what should not be behind them."""

from preflight.lab.cluster import ClusterVip
from preflight.model.report import Cause, Where
from tests.conformance.expectation import blocked, intercepted, proven
from tests.conformance.group import Case, Group
from tests.memory.faults import Balance, Drop, Program, Refuse, Traffic
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "vips"
[rules.web]
from = ["worker"]
to = ["other"]
ports = ["6443/tcp"]
why = "another node that listens on the port of the VIPs"
source = "tests"
"""
PORT = 6443
OPEN = {"6443/tcp": proven()}
CLOSING, MUTE, GREETING = 7101, 7102, 7103
NAMES = ("api", "half", "hollow", "mute", "foreign", "astray", "dropped", "refused", "nowhere")
VIPS = tuple(
    ClusterVip(name, f"10.77.100.{i}", PORT, "control-plane", ("worker",))
    for i, name in enumerate(NAMES, 11)
)
MACHINES = (
    Machine("m1", ("10.77.1.11",), ("control-plane",)),
    Machine("m2", ("10.77.2.11",), ("control-plane",)),
    Machine("w1", ("10.77.3.11",), ("worker",)),
    Machine("o1", ("10.77.4.11",), ("other",)),
    Machine("balancer", ("10.77.5.11",)),
)
FAULTS = (
    Program("balancer", "tcp", CLOSING, "closes"),
    Program("balancer", "tcp", MUTE, "silent"),
    Program("balancer", "tcp", GREETING, "greets"),
    Balance("api", ("m1", "m2")),
    Balance("half", ("m1", "balancer")),
    Balance("hollow", ("balancer",), CLOSING),
    Balance("mute", ("balancer",), MUTE),
    Balance("foreign", ("balancer",), GREETING),
    Balance("astray", ("o1",)),
    Drop(Traffic("w1", "dropped")),
    Refuse(Traffic("w1", "refused"), "admin-prohibited"),
)


VIRTUAL = Group(
    Setting("vips", MACHINES, FAULTS, PROFILE, VIPS),
    (
        Case("balanced", "w1", "api", OPEN),
        Case("one-backend-is-no-backend", "w1", "half", OPEN),
        Case("nothing-behind-it", "w1", "hollow", {"6443/tcp": blocked(Cause.NO_BACKEND)}),
        Case("mute-behind-it", "w1", "mute", {"6443/tcp": blocked(Cause.STALLED)}),
        Case("a-stranger-behind-it", "w1", "foreign", {"6443/tcp": intercepted(Cause.IMPOSTOR)}),
        Case(
            "another-node-behind-it",
            "w1",
            "astray",
            {"6443/tcp": intercepted(Cause.WRONG_NODE, "o1")},
        ),
        Case("dropped-before-it", "w1", "dropped", {"6443/tcp": blocked(Cause.NO_ANSWER)}),
        Case(
            "refused-before-it",
            "w1",
            "refused",
            {"6443/tcp": blocked(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, "router")},
        ),
        Case(
            "nobody-has-it",
            "w1",
            "nowhere",
            {"6443/tcp": blocked(Cause.ICMP_NET_UNREACHABLE, Where.FORWARD_PATH, "router")},
        ),
    ),
    exit_code=1,
    otherwise=OPEN,
)
