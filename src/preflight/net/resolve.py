"""Names in cluster.toml -> literal addresses, once, by the coordinator."""

import socket


def resolve_name(name: str) -> tuple[str, ...]:
    """Every address of a host name, IPv4 before IPv6, in the system resolver's order.

    Raises `OSError` where it has none (`getaddrinfo`, RFC 3493).
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    ordered = sorted(found, key=lambda one: one[0] is not socket.AF_INET)
    return tuple(dict.fromkeys(str(one[4][0]) for one in ordered))
