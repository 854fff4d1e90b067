"""From errno and the error queue to a `Failure`: the only place that knows what they mean.

The kernel uses one errno for very different things: ECONNREFUSED is a RST or an ICMP
port-unreachable, EHOSTUNREACH is a missing route, an unanswered ARP request or a firewall's
"prohibited". Only the error queue tells them apart.
"""

import errno
from collections.abc import Callable, Sequence
from typing import NamedTuple

from preflight.model.observation import Failure, Icmp, Operation
from preflight.net.errqueue import QueuedError
from preflight.net.neighbours import seeks_in_vain


class Fault(NamedTuple):
    """Why one attempt failed, and at which step."""

    failure: Failure
    operation: Operation
    errno: str | None = None
    icmp: Icmp | None = None


OWN_KERNEL: dict[int, Failure] = {
    errno.EHOSTUNREACH: Failure.NO_ROUTE,
    errno.ENETUNREACH: Failure.NO_ROUTE,
    errno.ENETDOWN: Failure.NO_ROUTE,
    errno.EHOSTDOWN: Failure.NO_ROUTE,
    errno.EAFNOSUPPORT: Failure.NO_ROUTE,
    # A blackhole route says EINVAL, a prohibit route EACCES.
    errno.EINVAL: Failure.NO_ROUTE,
    errno.EACCES: Failure.SEND_DENIED,
    errno.EPERM: Failure.SEND_DENIED,
    errno.ECONNREFUSED: Failure.RESET,
    errno.ETIMEDOUT: Failure.NO_ANSWER,
    errno.EMFILE: Failure.LOCAL_LIMIT,
    errno.ENFILE: Failure.LOCAL_LIMIT,
    errno.ENOMEM: Failure.LOCAL_LIMIT,
    errno.ENOBUFS: Failure.LOCAL_LIMIT,
    errno.EADDRNOTAVAIL: Failure.LOCAL_LIMIT,
    errno.EAGAIN: Failure.LOCAL_LIMIT,
}
"""What an errno means while the error queue is empty."""

_CLOSED = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})

# "Host unreachable" and ICMPv6's "address unreachable" (RFC 792, RFC 4443 3.1).
_HOST_UNREACHABLE = frozenset({(4, 3, 1), (6, 1, 3)})


def classify(
    code: int,
    queued: Sequence[QueuedError] = (),
    *,
    operation: Operation,
    own: str = "",
    asked: str = "",
    in_vain: Callable[[str], bool] = seeks_in_vain,
) -> Fault:
    """Judge an errno together with the error queue's entries.

    `own` is the address that the kernel chose for the socket, `asked` the one probed. An
    ICMP error from `own` was made by this host itself, unless host and destination are one:
    by its firewall, or because nobody answered for the next hop, as `in_vain` says.
    An unknown errno proves nothing about the network, so it counts as a limit of ours.
    """
    for entry in queued:
        family = entry.family
        if family is None:
            code = code or entry.errno
            continue
        icmp = Icmp(family, entry.type, entry.code, entry.sender)
        name = errno_name(code or entry.errno)
        return Fault(_judge_icmp(icmp, own, asked, in_vain), operation, name, icmp)
    return Fault(OWN_KERNEL.get(code, Failure.LOCAL_LIMIT), operation, errno_name(code))


def classify_stream(code: int | None) -> Fault:
    """Judge what ended an established connection; None: an orderly end (EOF).

    With IP_RECVERR set an ICMP error on an established connection comes as a plain errno
    and without an entry. The other end has closed nothing then: it can't be heard.
    """
    if code is None or code in _CLOSED:
        return Fault(Failure.CLOSED_AFTER_CONNECT, Operation.RECEIVE, errno_name(code))
    return Fault(Failure.SILENT_AFTER_CONNECT, Operation.RECEIVE, errno_name(code))


def is_closed(code: int) -> bool:
    """Whether this errno says that the other end let go of an established connection."""
    return code in _CLOSED


def errno_name(code: int | None) -> str | None:
    """`ECONNREFUSED` for 111."""
    return None if not code else errno.errorcode.get(code, str(code))


def _judge_icmp(icmp: Icmp, own: str, asked: str, in_vain: Callable[[str], bool]) -> Failure:
    if not own or icmp.sender != own or icmp.sender == asked:
        return Failure.ICMP
    if (icmp.family, icmp.type, icmp.code) in _HOST_UNREACHABLE and in_vain(asked):
        return Failure.NO_NEIGHBOUR
    return Failure.SEND_DENIED
