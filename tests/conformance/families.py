"""IPv6 and dual stack: faults that one family has and the other has not."""

from collections.abc import Iterable
from itertools import product

from preflight.model.report import Cause, Where
from tests.conformance.expectation import blocked, degraded, intercepted, proven
from tests.conformance.group import Case, Draft, Group, hand_out
from tests.memory.faults import (
    TCP_RESET,
    Drop,
    Fault,
    Masquerade,
    Redirect,
    Refuse,
    Traffic,
)
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "families"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000/tcp", "7000/udp"]
why = "what the cases are about"
source = "tests"
"""
TCP, UDP = "7000/tcp", "7000/udp"
OPEN = {TCP: proven(), UDP: proven()}
SOURCES = tuple(f"s{number}" for number in range(1, 4))
DESTINATIONS = tuple(f"d{number}" for number in range(1, 6))
ANOTHER = "d6"

MACHINES = (
    *(
        Machine(name, (f"10.77.{i}.11", f"fd77:{i}::11"), ("source",))
        for i, name in enumerate(SOURCES, 1)
    ),
    *(
        Machine(name, (f"10.77.{i}.11", f"fd77:{i}::11"), ("destination",))
        for i, name in enumerate((*DESTINATIONS, ANOTHER), 101)
    ),
)
_ICMP = {
    "no-route": Cause.ICMP_NET_UNREACHABLE,
    "addr-unreachable": Cause.ICMP_HOST_UNREACHABLE,
    "admin-prohibited": Cause.ICMP_ADMIN_PROHIBITED,
    "port-unreachable": Cause.ICMP_PORT_UNREACHABLE,
    "policy-fail": Cause.ICMP_ADMIN_PROHIBITED,
    "reject-route": Cause.ICMP_ADMIN_PROHIBITED,
}


def _refused(reason: str, cause: Cause) -> Draft:
    def plant(source: str, destination: str) -> Iterable[Fault]:
        yield Refuse(Traffic(source, destination, family=6), reason)

    expected = blocked(cause, Where.FORWARD_PATH, "router")
    return Draft(f"v6-{reason}", plant, {TCP: expected, UDP: expected})


DRAFTS = (
    Draft("v6-nothing-is-wrong", lambda _s, _d: (), {}),
    Draft(
        "v6-dropped",
        lambda s, d: [Drop(Traffic(s, d, family=6))],
        {TCP: blocked(Cause.NO_ANSWER), UDP: blocked(Cause.NO_ANSWER)},
    ),
    Draft(
        "v6-reset",
        lambda s, d: [Refuse(Traffic(s, d, "tcp", family=6), TCP_RESET)],
        {TCP: blocked(Cause.RESET)},
    ),
    *(_refused(reason, cause) for reason, cause in _ICMP.items()),
    Draft(
        "v6-refused-by-the-destination",
        lambda s, d: [Refuse(Traffic(s, d, family=6), "admin-prohibited", d)],
        dict.fromkeys(
            OPEN, blocked(Cause.ICMP_ADMIN_PROHIBITED, Where.DESTINATION_HOST, "destination")
        ),
    ),
    Draft(
        "v6-led-to-another-node",
        lambda s, d: [Redirect(Traffic(s, d, family=6), ANOTHER)],
        dict.fromkeys(OPEN, intercepted(Cause.WRONG_NODE, ANOTHER)),
    ),
    Draft("v6-masqueraded", lambda s, d: [Masquerade(Traffic(s, d, family=6))], {}),
    Draft(
        "v6-full-segments-swallowed",
        lambda s, d: [Drop(Traffic(s, d, family=6), longer_than=1_400)],
        {TCP: degraded(Cause.PATH_MTU)},
    ),
    Draft(
        "v6-stalled",
        lambda s, d: [Drop(Traffic(s, d, "tcp", family=6), longer_than=120)],
        {TCP: blocked(Cause.STALLED)},
    ),
)


def _cases() -> Iterable[Case]:
    """Each case over IPv6, and beside it that the same pair is well over IPv4."""
    for case in hand_out(DRAFTS, product(SOURCES, DESTINATIONS), OPEN):
        yield Case(case.name, case.source, case.destination, case.table, case.faults, family=6)
        yield Case(case.name.replace("v6", "v4-beside", 1), case.source, case.destination, OPEN)


FAMILIES = Group(
    Setting("families", MACHINES, (), PROFILE), tuple(_cases()), exit_code=1, otherwise=OPEN
)
