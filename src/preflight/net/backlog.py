"""How many connections the kernel lets wait for a listener, and whether it ever dropped some.

A connection waits twice: as an unfinished handshake, then until it is accepted. Linux bounds
both queues of a listener by net.core.somaxconn. With SYN cookies a full first queue drops
nothing; without, a SYN is dropped, and already when only a quarter of tcp_max_syn_backlog is
left. The settings are those of this network namespace.

Source: listen(2), tcp(7), tcp_conn_request in Linux's net/ipv4/tcp_input.c.
"""

from pathlib import Path

from preflight.model.observation import Backlog

_SETTINGS = Path("/proc/sys/net")


def read_backlog() -> Backlog | None:
    """The kernel's limits; None where they can't be read."""
    try:
        return Backlog(
            somaxconn=_read("core/somaxconn"),
            max_syn_backlog=_read("ipv4/tcp_max_syn_backlog"),
            syn_cookies=_read("ipv4/tcp_syncookies") != 0,
        )
    except OSError:  # a kernel without SYN cookies, or /proc is not to be had
        return None


def backlog_overflows() -> int:
    """How often a full backlog dropped something here, since this network namespace was made.

    A TCP socket's own counter of drops also counts ICMP errors against its SYN-ACKs, which
    are the network's doing and not ours. Only together do the two mean "our backlog was full".
    Without SYN cookies there is no such counter for every case: then any drop is counted.
    """
    counters = _tcp_counters()
    limits = read_backlog()
    if limits is None or not limits.syn_cookies:
        return counters.get("ListenDrops", 0)
    return counters.get("ListenOverflows", 0) + counters.get("TCPReqQFullDrop", 0)


def _read(setting: str) -> int:
    return int((_SETTINGS / setting).read_text())


def _tcp_counters() -> dict[str, int]:
    lines = Path("/proc/self/net/netstat").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("TcpExt:"):
            numbers = map(int, values.split()[1:])
            return dict(zip(names.split()[1:], numbers, strict=True))
    return {}
