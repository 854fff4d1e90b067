"""Whether this host looks in vain for the neighbour behind which an address is.

"Host unreachable" from an own address has two makers: the neighbour table, when nobody
answered ARP or neighbour discovery for three seconds, and the own firewall, at once. Time
does not tell them apart: a packet that comes late to a search that is already under way is
given up with it. The kernel's tables do (rtnetlink(7)).
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator

_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_ATTRIBUTE = struct.Struct("=HH")
"""struct rtattr: length (its own four bytes included), type."""
_ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, bits of the destination, and what a question leaves at 0."""
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, interface, state, flags, type."""

_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_ROUTE_FOUND, _GET_ROUTE = 24, 26
_NEIGHBOUR_FOUND, _GET_NEIGHBOUR = 28, 30
_DESTINATION, _GATEWAY, _VIA = 1, 5, 18
_INCOMPLETE, _FAILED = 0x01, 0x20
"""Neighbour states (linux/neighbour.h): still looked for, and given up."""
_PATIENCE = 1.0
_BUFFER_BYTES = 65_536


def seeks_in_vain(address: str) -> bool:
    """Whether nobody has answered for the next hop on the way to this literal address.

    True as well where the kernel's tables can't be read: dead neighbours are more frequent than
    firewalls that speak like one.
    """
    asked = ipaddress.ip_address(address.partition("%")[0]).packed
    try:
        hop = _next_hop(asked)
        return any(found == hop and state & (_INCOMPLETE | _FAILED) for found, state in _table(hop))
    except OSError:
        return True


def _next_hop(asked: bytes) -> bytes:
    """The gateway on the way to an address; the address itself where it is on a link."""
    question = _ROUTE.pack(_family(asked), 8 * len(asked), *[0] * 7)
    question += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(asked), _DESTINATION) + asked
    for body in _ask(_GET_ROUTE, _REQUEST, question, _ROUTE_FOUND):
        attributes = _attributes(body[_ROUTE.size :])
        # RTA_VIA has the gateway's family before it: an IPv6 one for an IPv4 route.
        return attributes.get(_GATEWAY) or attributes.get(_VIA, b"")[2:] or asked
    return asked


def _table(hop: bytes) -> Iterator[tuple[bytes, int]]:
    """Every neighbour of the hop's family, and its state."""
    question = _NEIGHBOUR.pack(_family(hop), 0, 0, 0, 0)
    for body in _ask(_GET_NEIGHBOUR, _REQUEST | _DUMP, question, _NEIGHBOUR_FOUND):
        state = _NEIGHBOUR.unpack_from(body)[2]
        yield _attributes(body[_NEIGHBOUR.size :]).get(_DESTINATION, b""), state


def _ask(kind: int, flags: int, question: bytes, wanted: int) -> Iterator[bytes]:
    """The bodies of the answers of one kind. Raises `OSError`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_PATIENCE)
        length = _HEADER.size + len(question)
        kernel.send(_HEADER.pack(length, kind, flags, 1, 0) + question)
        while True:
            data = kernel.recv(_BUFFER_BYTES)
            while len(data) >= _HEADER.size:
                length, found = _HEADER.unpack_from(data)[:2]
                if found in (_ERROR, _DONE):
                    return
                if found == wanted:
                    yield data[_HEADER.size : length]
                data = data[_aligned(max(length, _HEADER.size)) :]
            if not flags & _DUMP:
                return


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(max(length, _ATTRIBUTE.size)) :]
    return found


def _aligned(length: int) -> int:
    """Everything in netlink begins at a multiple of four."""
    return -(-length // 4) * 4


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6
