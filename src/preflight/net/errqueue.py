"""The kernel's error queue of a socket: who sent which ICMP error (ip(7), IP_RECVERR)."""

import socket
import struct
from typing import Literal, NamedTuple

# Python names these from 3.14 on; the values are Linux's (linux/in.h, linux/in6.h).
IP_RECVERR = 11
IPV6_RECVERR = 25

ORIGIN_LOCAL = 1
ORIGIN_ICMP = 2
ORIGIN_ICMP6 = 3

_EXTENDED_ERROR = struct.Struct("=IBBBxII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data."""
_IPV6 = int(socket.AF_INET6)
_FAMILY = struct.Struct("=H")
_ANCILLARY_BYTES = 256
_MOST_AT_ONCE = 64


class QueuedError(NamedTuple):
    """One entry of the queue. `sender` is empty where the kernel names none."""

    errno: int
    origin: int
    type: int
    code: int
    sender: str

    @property
    def family(self) -> Literal[4, 6] | None:
        """The family of the ICMP error; None: it is none, the kernel made it itself."""
        if self.origin == ORIGIN_ICMP:
            return 4
        return 6 if self.origin == ORIGIN_ICMP6 else None


def enable_error_queue(sock: socket.socket, family: int) -> None:
    """Ask for ICMP errors with their senders; without it UDP never hears of most of them.

    The family is the caller's to know: `sock.family` makes an enum's member anew each time.
    """
    if family == _IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def read_error_queue(sock: socket.socket) -> list[QueuedError]:
    """Take what the queue holds, oldest first.

    SO_ERROR must have been read before: emptying the queue may clear it, and a failed
    connect would then look like one that succeeded.
    """
    found: list[QueuedError] = []
    for _ in range(_MOST_AT_ONCE):
        try:
            ancillary = sock.recvmsg(1, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)[1]
        except OSError:
            break
        for level, kind, data in ancillary:
            if (level, kind) in (
                (socket.IPPROTO_IP, IP_RECVERR),
                (socket.IPPROTO_IPV6, IPV6_RECVERR),
            ):
                found.append(parse_extended_error(data))
    return found


def parse_extended_error(data: bytes) -> QueuedError:
    """Read a `sock_extended_err` and the offender's address behind it.

    Raises `ValueError` where the bytes are too few to be one.
    """
    if len(data) < _EXTENDED_ERROR.size:
        raise ValueError(f"an extended error has at least {_EXTENDED_ERROR.size} bytes")
    errno, origin, kind, code, _, _ = _EXTENDED_ERROR.unpack_from(data)
    return QueuedError(errno, origin, kind, code, _read_offender(data[_EXTENDED_ERROR.size :]))


def _read_offender(data: bytes) -> str:
    if len(data) < _FAMILY.size:
        return ""
    (family,) = _FAMILY.unpack_from(data)
    if family == socket.AF_INET and len(data) >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24])
    return ""
