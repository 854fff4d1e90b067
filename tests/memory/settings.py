"""Settings that several tests of the pipeline share."""

from tests.memory.faults import TCP_RESET, Drop, Redirect, Refuse, Traffic
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "small"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000-7029/tcp", "7000/udp"]
why = "the test asks for it"
source = "tests"
"""
SMALL = (
    *(Machine(f"s{i}", (f"10.77.{i}.11",), ("source",)) for i in (1, 2)),
    *(Machine(f"d{i}", (f"10.77.10{i}.11",), ("destination",)) for i in (1, 2, 3)),
)
WELL = Setting("well", SMALL, (), PROFILE)
TROUBLED = Setting(
    "troubled",
    SMALL,
    (
        Refuse(Traffic("s1", "d1"), "admin-prohibited"),
        Drop(Traffic("s1", "d2")),
        Redirect(Traffic("s1", "d3"), "d2"),
        Refuse(Traffic("s2", "d1", "tcp"), TCP_RESET),
        Drop(Traffic("s2", "d3", "tcp"), longer_than=120),
    ),
    PROFILE,
    icmp_limited=True,
)
"""Every phase has something to do, the second look included."""
