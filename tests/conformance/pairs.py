"""Faults between two nodes that are both well: every pair of one cluster has another."""

from collections.abc import Iterable
from itertools import product

from preflight.model.report import Cause, Where
from tests.conformance.expectation import Expected, blocked, degraded, intercepted, proven
from tests.conformance.group import Draft, Group, Plant, hand_out
from tests.memory.faults import (
    TCP_RESET,
    DeadRoute,
    Drop,
    Expire,
    Fault,
    Masquerade,
    Program,
    Redirect,
    Refuse,
    Traffic,
)
from tests.memory.setting import Machine, Setting

PROFILE = """
name = "pairs"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000/tcp", "7000/udp"]
why = "what the cases are about"
source = "tests"
[rules.side]
from = ["source"]
to = ["destination"]
ports = ["7001/tcp"]
why = "another port of the same agent"
source = "tests"
"""
WEB, SIDE, WEB_UDP = "7000/tcp", "7001/tcp", "7000/udp"
OPEN = {WEB: proven(), SIDE: proven(), WEB_UDP: proven()}

SOURCES = tuple(f"s{number}" for number in range(1, 9))
DESTINATIONS = tuple(f"d{number}" for number in range(1, 6))
ANOTHER = "d6"
"""No case is about it: what is redirected to it arrives."""
STRANGER = "stranger"
GREETING, CLOSING, MUTE = 7100, 7101, 7102
HANDSHAKE_BYTES, SEGMENT_BYTES = 120, 1_400

MACHINES = (
    *(Machine(name, (f"10.77.{i}.11",), ("source",)) for i, name in enumerate(SOURCES, 1)),
    *(
        Machine(name, (f"10.77.{i}.11",), ("destination",))
        for i, name in enumerate((*DESTINATIONS, ANOTHER), 101)
    ),
    Machine(STRANGER, ("10.77.200.11",)),
)
STRANGERS = (
    Program(STRANGER, "tcp", GREETING, "greets"),
    Program(STRANGER, "udp", GREETING, "greets"),
    Program(STRANGER, "tcp", CLOSING, "closes"),
    Program(STRANGER, "tcp", MUTE, "silent"),
    Program(STRANGER, "udp", MUTE, "silent"),
)

_ICMP = {
    "net-unreachable": Cause.ICMP_NET_UNREACHABLE,
    "host-unreachable": Cause.ICMP_HOST_UNREACHABLE,
    "prot-unreachable": Cause.ICMP_PROTOCOL_UNREACHABLE,
    "port-unreachable": Cause.ICMP_PORT_UNREACHABLE,
    "net-prohibited": Cause.ICMP_NET_PROHIBITED,
    "host-prohibited": Cause.ICMP_HOST_PROHIBITED,
    "admin-prohibited": Cause.ICMP_ADMIN_PROHIBITED,
}
_SILENCE = blocked(Cause.NO_ANSWER)


def every(expected: Expected) -> dict[str, Expected]:
    """The same of all ports."""
    return dict.fromkeys(OPEN, expected)


def tcp(expected: Expected) -> dict[str, Expected]:
    """The same of both TCP ports; UDP is well."""
    return {WEB: expected, SIDE: expected}


def _refused(reason: str, cause: Cause, *, by_destination: bool = False) -> Draft:
    def plant(source: str, destination: str) -> Iterable[Fault]:
        traffic = Traffic(source, destination)
        yield Refuse(traffic, reason, at=destination) if by_destination else Refuse(traffic, reason)

    if by_destination:
        expected = blocked(cause, Where.DESTINATION_HOST, "destination")
        return Draft(f"{reason}-by-the-destination", plant, every(expected))
    return Draft(
        f"{reason}-by-the-router", plant, every(blocked(cause, Where.FORWARD_PATH, "router"))
    )


def _led_to(port: int) -> Plant:
    return lambda s, d: (
        Redirect(Traffic(s, d, "tcp", "7000"), STRANGER, port),
        Redirect(Traffic(s, d, "udp", "7000"), STRANGER, port),
    )


_SILENT = (
    Draft("nothing-is-wrong", lambda _s, _d: (), {}),
    Draft("dropped-on-the-way", lambda s, d: [Drop(Traffic(s, d))], every(_SILENCE)),
    Draft(
        "answers-dropped-on-the-way",
        lambda s, d: [Drop(Traffic(s, d), way="back")],
        every(_SILENCE),
    ),
    Draft("dropped-at-the-destination", lambda s, d: [Drop(Traffic(s, d), d)], every(_SILENCE)),
    Draft(
        "answers-not-let-out",
        lambda s, d: [Drop(Traffic(s, d), d, "back")],
        tcp(_SILENCE) | {WEB_UDP: blocked(Cause.NO_ANSWER, Where.DESTINATION_HOST)},
    ),
    Draft(
        "answers-dropped-at-the-source",
        lambda s, d: [Drop(Traffic(s, d), s, "back")],
        every(_SILENCE),
    ),
)
_AT_HOME = (
    Draft(
        "own-firewall-drops",
        lambda s, d: [Drop(Traffic(s, d), s)],
        tcp(_SILENCE) | {WEB_UDP: blocked(Cause.SEND_DENIED, Where.SOURCE_EGRESS)},
    ),
    Draft(
        "own-firewall-rejects",
        lambda s, d: [Refuse(Traffic(s, d), "admin-prohibited", s)],
        every(blocked(Cause.SEND_DENIED, Where.SOURCE_EGRESS, "source")),
    ),
    Draft(
        "route-unreachable",
        lambda s, d: [DeadRoute(s, d, "unreachable")],
        every(blocked(Cause.NO_ROUTE, Where.SOURCE_EGRESS)),
    ),
    Draft(
        "route-blackhole",
        lambda s, d: [DeadRoute(s, d, "blackhole")],
        every(blocked(Cause.NO_ROUTE, Where.SOURCE_EGRESS)),
    ),
    Draft(
        "route-prohibit",
        lambda s, d: [DeadRoute(s, d, "prohibit")],
        every(blocked(Cause.SEND_DENIED, Where.SOURCE_EGRESS)),
    ),
)
_REFUSED = (
    Draft(
        "reset-on-the-way",
        lambda s, d: [Refuse(Traffic(s, d, "tcp"), TCP_RESET)],
        tcp(blocked(Cause.RESET)),
    ),
    Draft(
        "reset-by-the-destination",
        lambda s, d: [Refuse(Traffic(s, d, "tcp"), TCP_RESET, d)],
        tcp(blocked(Cause.RESET)),
    ),
    *(_refused(reason, cause) for reason, cause in _ICMP.items()),
    _refused("admin-prohibited", Cause.ICMP_ADMIN_PROHIBITED, by_destination=True),
    _refused("port-unreachable", Cause.ICMP_PORT_UNREACHABLE, by_destination=True),
    Draft(
        "hops-run-out",
        lambda s, d: [Expire(Traffic(s, d))],
        every(blocked(Cause.ICMP_TIME_EXCEEDED, Where.FORWARD_PATH, "router")),
    ),
)
_INTERCEPTED = (
    Draft(
        "led-to-another-node",
        lambda s, d: [Redirect(Traffic(s, d), ANOTHER)],
        every(intercepted(Cause.WRONG_NODE, ANOTHER)),
    ),
    Draft(
        "led-to-another-port",
        lambda s, d: [Redirect(Traffic(s, d, "tcp", "7000"), d, 7001)],
        {WEB: intercepted(Cause.IMPOSTOR, "destination")},
    ),
    Draft(
        "led-to-a-program-that-greets",
        _led_to(GREETING),
        {WEB: intercepted(Cause.IMPOSTOR), WEB_UDP: intercepted(Cause.IMPOSTOR)},
    ),
    Draft(
        "led-to-a-program-that-closes",
        lambda s, d: [Redirect(Traffic(s, d, "tcp", "7000"), STRANGER, CLOSING)],
        {WEB: intercepted(Cause.IMPOSTOR)},
    ),
    Draft(
        "led-to-a-program-that-is-mute",
        _led_to(MUTE),
        {WEB: intercepted(Cause.IMPOSTOR), WEB_UDP: _SILENCE},
    ),
)
_AFTER_THE_HANDSHAKE = (
    Draft("masqueraded", lambda s, d: [Masquerade(Traffic(s, d))], {}),
    Draft(
        "challenges-swallowed",
        lambda s, d: [Drop(Traffic(s, d), longer_than=HANDSHAKE_BYTES)],
        tcp(blocked(Cause.STALLED)) | {WEB_UDP: _SILENCE},
    ),
    Draft(
        "answers-swallowed",
        lambda s, d: [Drop(Traffic(s, d), way="back", longer_than=HANDSHAKE_BYTES)],
        tcp(blocked(Cause.STALLED)) | {WEB_UDP: _SILENCE},
    ),
    Draft(
        "connections-cut",
        lambda s, d: [Refuse(Traffic(s, d, "tcp"), TCP_RESET, longer_than=HANDSHAKE_BYTES)],
        tcp(blocked(Cause.CLOSED)),
    ),
    Draft(
        "full-segments-swallowed",
        lambda s, d: [Drop(Traffic(s, d), longer_than=SEGMENT_BYTES)],
        tcp(degraded(Cause.PATH_MTU)),
    ),
    Draft(
        "every-third-datagram-lost",
        lambda s, d: [Drop(Traffic(s, d, "udp"), share=(1, 3))],
        {WEB_UDP: degraded(Cause.LOSS)},
    ),
)

DRAFTS = (*_SILENT, *_AT_HOME, *_REFUSED, *_INTERCEPTED, *_AFTER_THE_HANDSHAKE)

PAIRS = Group(
    Setting("pairs", MACHINES, STRANGERS, PROFILE),
    tuple(hand_out(DRAFTS, product(SOURCES, DESTINATIONS), OPEN)),
    exit_code=1,
    otherwise=OPEN,
)
