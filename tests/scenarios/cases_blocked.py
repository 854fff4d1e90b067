"""Scenarios in which a flow does not work, one for each cause and place."""

from functools import partial

from preflight.model.cluster import Protocol
from preflight.model.observation import Attempt, Failure, Icmp
from preflight.model.report import Cause, Verdict, Where
from tests.scenarios.scenario import Row, Scenario
from tests.scenarios.world import World, behind_vip, pair

BLOCKED = Verdict.BLOCKED
ROUTER = "10.0.2.1"
DESTINATION = "10.0.1.11"

_ICMP_KINDS = {
    "icmp-net-unreachable": (0, Cause.ICMP_NET_UNREACHABLE),
    "icmp-host-unreachable": (1, Cause.ICMP_HOST_UNREACHABLE),
    "icmp-protocol-unreachable": (2, Cause.ICMP_PROTOCOL_UNREACHABLE),
    "icmp-port-unreachable": (3, Cause.ICMP_PORT_UNREACHABLE),
    "icmp-net-prohibited": (9, Cause.ICMP_NET_PROHIBITED),
    "icmp-host-prohibited": (10, Cause.ICMP_HOST_PROHIBITED),
    "icmp-admin-prohibited": (13, Cause.ICMP_ADMIN_PROHIBITED),
}


def dropped_tcp() -> World:
    return pair().silent("w1", "m1", "6443")


def udp_silence(*, seen: bool, answered: bool = False) -> World:
    attempts = tuple(Attempt(probe_id=f"ab{number}", port=8472) for number in range(12))
    world = pair("8472", "udp")
    world.silent("w1", "m1", "8472", protocol="udp", attempts=12, unanswered=attempts)
    for attempt in attempts if seen else ():
        world.sighting("m1", 8472, attempt.probe_id, protocol="udp", answered=answered)
    return world


def reset() -> World:
    return pair().outcome("w1", "m1", "6443", Failure.RESET, errno="ECONNREFUSED")


def refused(icmp: Icmp, protocol: Protocol = "tcp") -> World:
    return pair(protocol=protocol).refused("w1", "m1", "6443", icmp, protocol=protocol)


def rate_limited(*, second: Icmp) -> World:
    """Seven of 2,768 refusals were seen; three of the silent ports were looked at again."""
    error = Icmp(4, 3, 13, ROUTER)
    world = pair("30000-32767").refused("w1", "m1", "30000-30006", error)
    world.silent("w1", "m1", "30007-32767", attempts=2761)
    for port in ("30100", "31000", "32000"):
        world.refused("w1", "m1", port, second, second_look=True)
    return world


def own_kernel(failure: Failure, errno: str, icmp: Icmp | None = None) -> World:
    return pair().outcome("w1", "m1", "6443", failure, errno=errno, icmp=icmp)


def stalled(*, answered: bool | None) -> World:
    """`answered` None: the connection was accepted, no challenge came."""
    world = pair().connected("w1", "m1", 6443, Failure.SILENT_AFTER_CONNECT)
    if answered is None:
        return world.sighting("m1", 6443, None)
    return world.sighting("m1", 6443, "192b0", answered=answered)


def closed() -> World:
    world = pair().connected("w1", "m1", 6443, Failure.CLOSED_AFTER_CONNECT, errno="ECONNRESET")
    return world.sighting("m1", 6443, "192b0", answered=True)


def closed_behind_nat() -> World:
    """Another port's answer tells which address the source appears under."""
    world = pair("2379,6443").proven("w1", "m1", "2379", observed_source=ROUTER)
    world.connected("w1", "m1", 6443, Failure.CLOSED_AFTER_CONNECT)
    return world.sighting("m1", 6443, None, source_address=ROUTER, source_port=1024)


def empty_vip(failure: Failure) -> World:
    return behind_vip("m1", "m2").connected("w1", "api", 6443, failure)


def silent_although_occupied() -> World:
    world = pair().occupied("m1", "6443", owner="kube-apiserver (pid 812)", owner_listens=True)
    return world.silent("w1", "m1", "6443")


def must_be_blocked() -> World:
    return pair("27017", expected="blocked").silent("w1", "m1", "27017")


def blocked_by_no_route() -> World:
    world = pair("27017", expected="blocked")
    return world.outcome("w1", "m1", "27017", Failure.NO_ROUTE, errno="ENETUNREACH")


def optional() -> World:
    world = pair("8285", "udp", required=False)
    return world.silent("w1", "m1", "8285", protocol="udp")


def unheld_vip(*, reached: bool = False) -> World:
    """m1 stands in the VIP's own segment, w1 behind a router."""
    world = behind_vip("m1", "m2").flow("m1", "api", "6443")
    world.refused("w1", "api", "6443", Icmp(4, 3, 1, ROUTER))
    if reached:
        return world.proven("m1", "api", "6443", answered_by="m2")
    return world.outcome("m1", "api", "6443", Failure.NO_NEIGHBOUR, icmp=Icmp(4, 3, 1, DESTINATION))


def _one(cause: Cause, where: Where, ports: str = "6443", *, ok: bool | None = False) -> Row:
    return Row(ports, BLOCKED, cause, where, ok)


_BY_CAUSE = (
    Scenario(
        "blocked-no-answer-tcp",
        "Silence. The listener was up; without capture any place is possible.",
        dropped_tcp,
        (_one(Cause.NO_ANSWER, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-udp-not-arrived",
        "The destination was asked about the datagrams, and saw none of them.",
        lambda: udp_silence(seen=False),
        (_one(Cause.NO_ANSWER, Where.UNKNOWN, "8472"),),
    ),
    Scenario(
        "blocked-udp-answer-lost",
        "The destination saw the datagrams and answered; no answer arrived.",
        lambda: udp_silence(seen=True, answered=True),
        (_one(Cause.NO_ANSWER, Where.UNKNOWN, "8472"),),
    ),
    Scenario(
        "blocked-udp-answer-not-let-out",
        "The destination saw the datagrams, and its own kernel refused to send the answer.",
        lambda: udp_silence(seen=True, answered=False),
        (_one(Cause.NO_ANSWER, Where.DESTINATION_HOST, "8472"),),
    ),
    Scenario(
        "blocked-reset",
        "A TCP reset, although the listener was up.",
        reset,
        (_one(Cause.RESET, Where.UNKNOWN),),
    ),
    *(
        Scenario(
            f"blocked-{name}",
            f"ICMP 3/{code} from a router: it breaks on the way.",
            partial(refused, Icmp(4, 3, code, ROUTER)),
            (_one(cause, Where.FORWARD_PATH),),
        )
        for name, (code, cause) in _ICMP_KINDS.items()
    ),
    Scenario(
        "blocked-icmp-time-exceeded",
        "ICMP 11/0: packets go in a circle.",
        lambda: refused(Icmp(4, 11, 0, ROUTER)),
        (_one(Cause.ICMP_TIME_EXCEEDED, Where.FORWARD_PATH),),
    ),
    Scenario(
        "blocked-icmp-other",
        "ICMP 12/0, a parameter problem: nothing that we have a name for.",
        lambda: refused(Icmp(4, 12, 0, ROUTER)),
        (_one(Cause.ICMP_OTHER, Where.FORWARD_PATH),),
    ),
    Scenario(
        "blocked-icmp-by-destination",
        "ICMP from the destination's own address: its own firewall. UDP.",
        lambda: refused(Icmp(4, 3, 3, DESTINATION), "udp"),
        (_one(Cause.ICMP_PORT_UNREACHABLE, Where.DESTINATION_HOST),),
    ),
    Scenario(
        "blocked-icmp-rate-limited",
        "Of 2,768 refused ports seven showed the error. Three of the silent ones, looked at "
        "again, gave the same error from the same sender: all share the cause.",
        lambda: rate_limited(second=Icmp(4, 3, 13, ROUTER)),
        (_one(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, "30000-32767"),),
    ),
    Scenario(
        "blocked-no-route",
        "The source's own kernel has no route.",
        lambda: own_kernel(Failure.NO_ROUTE, "ENETUNREACH"),
        (_one(Cause.NO_ROUTE, Where.SOURCE_EGRESS),),
    ),
    Scenario(
        "blocked-no-neighbour",
        "Nobody answers ARP for the address, although the agent is reached another way.",
        lambda: own_kernel(Failure.NO_NEIGHBOUR, "EHOSTUNREACH", Icmp(4, 3, 1, "10.0.2.11")),
        (_one(Cause.NO_NEIGHBOUR, Where.SOURCE_EGRESS),),
    ),
    Scenario(
        "blocked-send-denied",
        "The source's own firewall forbids it.",
        lambda: own_kernel(Failure.SEND_DENIED, "EPERM"),
        (_one(Cause.SEND_DENIED, Where.SOURCE_EGRESS),),
    ),
)

SCENARIOS = (
    *_BY_CAUSE,
    Scenario(
        "blocked-stalled-challenge-lost",
        "The listener accepted the connection; the challenge never came.",
        lambda: stalled(answered=None),
        (_one(Cause.STALLED, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-stalled-answer-lost",
        "The challenge arrived and was answered; the answer was lost.",
        lambda: stalled(answered=True),
        (_one(Cause.STALLED, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-closed",
        "The listener saw the connection and answered; then it was cut.",
        closed,
        (_one(Cause.CLOSED, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-closed-behind-nat",
        "The same behind NAT: the translated address on that port counts as this source's.",
        closed_behind_nat,
        (Row("2379", Verdict.OPEN, ok=True), _one(Cause.CLOSED, Where.UNKNOWN)),
    ),
    Scenario(
        "blocked-no-backend",
        "A VIP that accepts and closes; none of the backends saw anything.",
        lambda: empty_vip(Failure.CLOSED_AFTER_CONNECT),
        (_one(Cause.NO_BACKEND, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-vip-stalled",
        "A VIP that accepts and says nothing; none of the backends saw anything.",
        lambda: empty_vip(Failure.SILENT_AFTER_CONNECT),
        (_one(Cause.STALLED, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-vip-unheld",
        "A VIP on no machine: the router says so, and nobody answers ARP. One finding for both.",
        unheld_vip,
        (
            _one(Cause.ICMP_HOST_UNREACHABLE, Where.FORWARD_PATH),
            _one(Cause.NO_NEIGHBOUR, Where.SOURCE_EGRESS),
        ),
    ),
    Scenario(
        "blocked-vip-unrouted",
        "Looks alike, and is not: the router finds nobody at a VIP that another source reaches.",
        lambda: unheld_vip(reached=True),
        (
            _one(Cause.ICMP_HOST_UNREACHABLE, Where.FORWARD_PATH),
            Row("6443", Verdict.OPEN, ok=True),
        ),
    ),
    Scenario(
        "blocked-although-occupied",
        "Another program holds the port and listens; the connections stay silent all the same.",
        silent_although_occupied,
        (_one(Cause.NO_ANSWER, Where.UNKNOWN),),
    ),
    Scenario(
        "blocked-as-expected",
        "A flow that must be blocked, and is.",
        must_be_blocked,
        (_one(Cause.NO_ANSWER, Where.UNKNOWN, "27017", ok=True),),
    ),
    Scenario(
        "blocked-without-meaning",
        "A flow that must be blocked; but the source has no route, so no firewall was asked.",
        blocked_by_no_route,
        (_one(Cause.NO_ROUTE, Where.SOURCE_EGRESS, "27017", ok=None),),
    ),
    Scenario(
        "blocked-optional",
        "A flow that is not required: blocked, with a warning, and ok.",
        optional,
        (_one(Cause.NO_ANSWER, Where.UNKNOWN, "8285", ok=True),),
    ),
    Scenario(
        "blocked-two-icmp",
        "The second look gave another error than the first pass: two records, as the silence of "
        "the others is not explained by either.",
        lambda: rate_limited(second=Icmp(4, 3, 1, "10.9.9.9")).refused(
            "w1", "m1", "32500", Icmp(4, 3, 13, ROUTER), second_look=True
        ),
        (
            _one(Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, "30000-30006,32500"),
            _one(
                Cause.NO_ANSWER,
                Where.UNKNOWN,
                "30007-30099,30101-30999,31001-31999,32001-32499,32501-32767",
            ),
            _one(Cause.ICMP_HOST_UNREACHABLE, Where.FORWARD_PATH, "30100,31000,32000"),
        ),
    ),
)
