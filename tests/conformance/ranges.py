"""Ranges of ports: holes, halves, loss, and errors that a router is too polite to repeat."""

from preflight.model.plan import Limits
from preflight.model.report import Cause, Where
from tests.conformance.expectation import blocked, degraded, intercepted, proven, untested
from tests.conformance.group import Case, Group
from tests.memory.faults import TCP_RESET, Drop, Redirect, Refuse, Traffic
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "ranges"
[rules.nodeports]
from = ["source"]
to = ["destination"]
ports = ["30000-30119/tcp"]
why = "what the cases are about"
source = "tests"
[rules.overlay]
from = ["source"]
to = ["destination"]
ports = ["8472/udp"]
why = "a datagram's way beside it"
source = "tests"
[rules.other-overlay]
from = ["source"]
to = ["destination"]
ports = ["8473/udp"]
why = "another datagram's way beside it"
source = "tests"
"""
RANGE, FIRST_UDP, OTHER_UDP = "30000-30119/tcp", "8472/udp", "8473/udp"
OPEN = {RANGE: proven(), FIRST_UDP: proven(), OTHER_UDP: proven()}
_UDP = {FIRST_UDP: proven(), OTHER_UDP: proven()}
_REFUSED = blocked(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, "router")

MACHINES = (
    *(Machine(f"s{i}", (f"10.77.{i}.11",), ("source",)) for i in range(1, 8)),
    Machine("d1", ("10.77.101.11",), ("destination",)),
    Machine("d2", ("10.77.102.11",), ("destination",)),
)

RANGES = Group(
    Setting("ranges", MACHINES, (), PROFILE, icmp_limited=True),
    (
        Case("whole-range-open", "s1", "d1", OPEN),
        Case(
            "one-silent-hole",
            "s2",
            "d1",
            {"30000-30079,30081-30119/tcp": proven(), "30080/tcp": blocked(Cause.NO_ANSWER)} | _UDP,
            (Drop(Traffic("s2", "d1", "tcp", "30080")),),
        ),
        Case(
            "half-of-it-reset",
            "s3",
            "d1",
            {"30000-30059/tcp": proven(), "30060-30119/tcp": blocked(Cause.RESET)} | _UDP,
            (Refuse(Traffic("s3", "d1", "tcp", "30060-30119"), TCP_RESET),),
        ),
        Case(
            "refused-by-few-errors",
            "s4",
            "d1",
            {RANGE: _REFUSED} | _UDP,
            (Refuse(Traffic("s4", "d1", "tcp"), "admin-prohibited"),),
        ),
        Case(
            "every-fifth-packet-lost",
            "s5",
            "d1",
            {RANGE: degraded(Cause.LOSS)} | _UDP,
            (Drop(Traffic("s5", "d1", "tcp"), share=(1, 5)),),
        ),
        Case(
            "too-lossy-to-say",
            "s6",
            "d1",
            {RANGE: proven(), FIRST_UDP: degraded(Cause.LOSS), OTHER_UDP: untested(Cause.LOSS)},
            (
                Drop(Traffic("s6", "d1", "udp", "8472"), share=(3, 4)),
                Drop(Traffic("s6", "d1", "udp", "8473")),
            ),
        ),
        Case(
            "led-away-in-the-middle",
            "s7",
            "d1",
            {
                "30000-30009,30020-30119/tcp": proven(),
                "30010-30019/tcp": intercepted(Cause.WRONG_NODE, "d2"),
            }
            | _UDP,
            (Redirect(Traffic("s7", "d1", "tcp", "30010-30019"), "d2"),),
        ),
    ),
    exit_code=1,
    otherwise=OPEN,
)

HURRIED = Group(
    Setting(
        "hurried",
        (
            Machine("s1", ("10.77.1.11",), ("source",)),
            Machine("d1", ("10.77.101.11",), ("destination",)),
        ),
        (),
        PROFILE,
        limits=Limits(rate=20.0),
        deadline=2.0,
    ),
    (),
    exit_code=3,
    otherwise={},
)
