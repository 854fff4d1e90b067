"""Bind one literal address and port for listening, or say in our words why that can't be.

Also what the kernel alone knows of such a socket: how much it dropped before we could read it.
"""

import array
import errno
import functools
import os
import socket
import struct
from typing import Any

from preflight.errors import LimitError
from preflight.model.cluster import Protocol

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes that may wait in a UDP socket: bursts of 500 sources, while the loop is busy."""
BACKLOG = 65_535
"""Connections that may wait for us: as many as the kernel grants (`net.backlog`)."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close(2) sends a RST, and the kernel forgets the connection."""
FIN_ON_CLOSE = struct.pack("ii", 0, 0)

_SO_RCVBUFFORCE = 33  # socket(7); not in Python's socket module
_SO_MEMINFO = 55  # nine counters (linux/sock_diag.h); the last is SK_MEMINFO_DROPS
_MEMINFO_COUNTERS = 9


class PortOccupied(Exception):
    """The address and port are in use by somebody else (EADDRINUSE)."""


class BindDenied(Exception):
    """We may not, or can not, bind there. The message is for the user."""


def bind_listener(protocol: Protocol, address: str, port: int) -> socket.socket:
    """A non-blocking socket on exactly this address: TCP listens already, UDP receives.

    Raises `PortOccupied`, `BindDenied`, and `LimitError` where no descriptor is left.
    """
    try:
        return _bind(protocol, address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortOccupied from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise LimitError(
                f"no file descriptor is left to listen on {port}/{protocol}"
            ) from error
        raise BindDenied(_describe(error, address, port)) from error


def kernel_drops(listening: socket.socket) -> int:
    """How many packets the kernel dropped at this socket since it was made (SO_MEMINFO).

    For UDP: datagrams that found the receive buffer full. For TCP: SYNs and handshakes that
    found the backlog full, but also refused ones, so see `net.backlog`.
    """
    counters = array.array("I")
    counters.frombytes(
        listening.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_COUNTERS * counters.itemsize)
    )
    return counters[-1]


def _bind(protocol: Protocol, address: str, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family, host, *scope = _read_address(address)
    name = (host, port, *scope)
    listening = socket.socket(family, kind)
    try:
        listening.settimeout(0)  # non-blocking
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # Connections of an earlier listener in TIME_WAIT are no reason to fail. Never for
            # UDP, where this option would let two programs share one port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted connections inherit both. An 8 KB answer's last segment would wait else;
            # and whatever closes them first, even SIGKILL, leaves no TIME_WAIT here.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            listening.bind(name)
            listening.listen(BACKLOG)
        else:
            _widen_receive_buffer(listening)
            listening.bind(name)
    except BaseException:
        listening.close()
        raise
    return listening


@functools.lru_cache(maxsize=16)
def _read_address(address: str) -> tuple[Any, ...]:
    """The family, and a socket's name of this address without the port.

    getaddrinfo knows the scope of a link-local address (fe80::1%eth0), and takes longer than
    the rest of a listener's making: hence once an address. It gets bytes, because text would go
    through the codec of international names.
    """
    family, _, _, _, (host, _, *scope) = socket.getaddrinfo(
        address.encode(), None, flags=socket.AI_NUMERICHOST
    )[0]
    return family, host, *scope


def _widen_receive_buffer(receiving: socket.socket) -> None:
    try:
        receiving.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:  # without CAP_NET_ADMIN: as much as rmem_max allows
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _describe(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"address {address} is not on this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be bound without root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EAFNOSUPPORT:
        return f"this machine has no {'IPv6' if ':' in address else 'IPv4'}"
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"{address} port {port} could not be bound: {reason}"
