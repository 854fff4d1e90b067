"""The report's values as sentences for people. Every member of the three lists has its own."""

from preflight.model.report import Cause, Where
from preflight.ports import count_ports, parse_ports

CAUSES: dict[Cause, str] = {
    Cause.NO_ANSWER: "nothing came back: what drops silently is most often a firewall",
    Cause.RESET: "a TCP reset came back although our listener was up",
    Cause.ICMP_PORT_UNREACHABLE: "rejected with ICMP port unreachable although our listener was up",
    Cause.ICMP_HOST_UNREACHABLE: "ICMP host unreachable: the last router does not find the host",
    Cause.ICMP_NET_UNREACHABLE: "ICMP network unreachable: a router has no route to it",
    Cause.ICMP_PROTOCOL_UNREACHABLE: "rejected with ICMP protocol unreachable",
    Cause.ICMP_ADMIN_PROHIBITED: "a firewall forbids it (ICMP admin prohibited)",
    Cause.ICMP_HOST_PROHIBITED: "a firewall forbids the host (ICMP host prohibited)",
    Cause.ICMP_NET_PROHIBITED: "a firewall forbids the network (ICMP net prohibited)",
    Cause.ICMP_TIME_EXCEEDED: "ICMP time exceeded: most often a routing loop",
    Cause.ICMP_OTHER: "rejected with another ICMP error",
    Cause.NO_ROUTE: "the source itself has no route to it",
    Cause.NO_NEIGHBOUR: "nobody has this address: no answer to ARP or neighbour discovery",
    Cause.SEND_DENIED: "its own kernel refused to send: a firewall there, or a prohibit route",
    Cause.STALLED: "the connection was made, then nothing passed through it",
    Cause.CLOSED: "the connection was made, then somebody closed it before our data passed",
    Cause.WRONG_NODE: "another node answered: a redirect, NAT, or an address used twice",
    Cause.IMPOSTOR: "something that is not our agent answered: a proxy, balancer or old service",
    Cause.NO_BACKEND: "the virtual address accepts, but none of the nodes behind it is reached",
    Cause.PATH_MTU: "small data passes and full-size packets do not: an MTU on the way is smaller",
    Cause.LOSS: "packets are lost on the way",
    Cause.AGENT_UNREACHABLE: "its agent was not reached",
    Cause.AGENT_REFUSED: "its agent refused to take part",
    Cause.AGENT_LOST: "its agent was lost or restarted during the run",
    Cause.PORT_IN_USE: "another program holds the port, so that our listener could not",
    Cause.BIND_DENIED: "the agent was not allowed to listen on the port",
    Cause.SKIPPED: "not tried: the run ended or a limit was reached before its turn",
}
"""What a cause means, without a capital and without an end."""

WHERES: dict[Where, str] = {
    Where.SOURCE_EGRESS: "on the source's own host",
    Where.FORWARD_PATH: "on the way there (between the hosts)",
    Where.DESTINATION_HOST: "on the destination's own host",
    Where.RETURN_PATH: "on the way back (between the hosts)",
    Where.SOURCE_INGRESS: "on the source's own host (where the answer arrives)",
    Where.UNKNOWN: "not known",
}
"""Where a flow breaks."""

PHASES: dict[str, str] = {
    "greet": "greeting the agents",
    "listen": "opening the listeners",
    "probe": "probing",
    "second-look": "second look at silent ports",
    "collect": "asking what the listeners saw",
    "release": "releasing",
}
"""What a phase of the run does; a name that is not here is shown as it is."""

_MOST_RANGES = 6


def count(number: int, noun: str) -> str:
    """`"1 flow"`, `"2,768 flows"`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def ports_text(ports: str, protocol: str) -> str:
    """`"25080/tcp"`: a blank after each comma, and not more ranges than a person reads."""
    ranges = ports.split(",")
    if len(ranges) <= _MOST_RANGES:
        return f"{', '.join(ranges)}/{protocol}"
    shown, hidden = ranges[: _MOST_RANGES - 1], len(ranges) - _MOST_RANGES + 1
    total = count(count_ports(parse_ports(ports)), "port")
    return f"{', '.join(shown)} and {hidden} more ranges/{protocol} ({total})"


def seconds(milliseconds: float) -> str:
    """`"0.8 s"`, from milliseconds."""
    return f"{milliseconds / 1000:.1f} s"
