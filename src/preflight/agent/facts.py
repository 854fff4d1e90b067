"""What an agent can say of its own host: addresses, limits, and who holds a port."""

import ipaddress
import json
import os
import platform
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import psutil

from preflight.model.cluster import Protocol
from preflight.model.observation import Facts
from preflight.net.backlog import read_backlog
from preflight.net.limits import descriptor_limit

_CAP_NET_RAW = 13  # capabilities(7), linux/capability.h
_TUNNELS = ("vxlan", "geneve")
_IP_PATIENCE = 5.0
_NO_PID = 1 << 31  # above every pid: who can be named goes first


class Owner(NamedTuple):
    """Who holds a port that we could not bind."""

    text: str
    """For people: "kube-apiserver (pid 812)", "VXLAN device flannel.1"."""
    listens: bool
    """TCP: the holder accepts connections there."""


class _Socket(NamedTuple):
    """One socket that is bound on this host."""

    address: str
    pid: int | None
    status: str

    @property
    def listens(self) -> bool:
        return self.status == psutil.CONN_LISTEN


UNKNOWN = Owner("a program that the kernel does not list (bound, not listening)", listens=False)


def gather_facts() -> Facts:
    """Everything that a greeting is answered with."""
    return Facts(
        hostname=platform.node(),
        kernel=platform.release(),
        python=platform.python_version(),
        addresses=own_addresses(),
        mtus={name: stats.mtu for name, stats in psutil.net_if_stats().items()},
        local_port_range=_local_port_range(),
        capture=_has_capability(_CAP_NET_RAW),
        descriptors=descriptor_limit(),
        backlog=read_backlog(),
    )


def own_addresses() -> tuple[str, ...]:
    """Every IPv4 and IPv6 address of this network namespace, sorted, without scope suffix."""
    found = {
        ipaddress.ip_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family != psutil.AF_LINK
    }
    return tuple(str(address) for address in sorted(found, key=lambda one: (one.version, one)))


def is_own_address(address: str) -> bool:
    """Whether packets to this literal address stay on this host."""
    one = ipaddress.ip_address(address.partition("%")[0])
    return one.is_loopback or str(one) in own_addresses()


def port_owner(protocol: Protocol, address: str, port: int) -> Owner:
    """Who holds one port. For many ports ask one `PortOwners`."""
    return PortOwners().find(protocol, address, port)


class PortOwners:
    """One look at all sockets of this network namespace: who holds which port.

    Without root, sockets are seen, but not whose they are (proc(5), /proc/PID/fd).
    """

    def __init__(self) -> None:
        self._by_port: dict[tuple[Protocol, int], list[_Socket]] = defaultdict(list)
        protocols: tuple[Protocol, ...] = ("tcp", "udp")
        for protocol in protocols:
            for one in psutil.net_connections(kind=protocol):
                if one.laddr:
                    bound = _Socket(one.laddr.ip, one.pid, one.status)
                    self._by_port[protocol, one.laddr.port].append(bound)
        self._tunnels: dict[int, str] | None = None

    def find(self, protocol: Protocol, address: str, port: int) -> Owner:
        """The holder of this port on this address; whoever listens goes before the others."""
        holders = [
            bound
            for bound in self._by_port.get((protocol, port), ())
            if _covers(bound.address, address)
        ]
        holder = min(holders, key=lambda one: (not one.listens, one.pid or _NO_PID), default=None)
        if protocol == "udp" and (holder is None or holder.pid is None):
            device = self._tunnel(port)
            if device is not None:
                return Owner(device, listens=False)
        return UNKNOWN if holder is None else _describe(protocol, holder)

    def _tunnel(self, port: int) -> str | None:
        """A tunnel's socket belongs to the kernel, so that no process holds it."""
        if self._tunnels is None:
            self._tunnels = _tunnel_ports()
        return self._tunnels.get(port)


def _covers(held: str, address: str) -> bool:
    """Whether a socket bound to `held` is in the way of one bound to `address`."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    bound = ipaddress.ip_address(held.partition("%")[0])
    if isinstance(bound, ipaddress.IPv6Address) and bound.ipv4_mapped is not None:
        bound = bound.ipv4_mapped
    if bound.is_unspecified:
        # :: also takes IPv4, unless its owner chose otherwise, which is not to be seen here
        return bound.version == 6 or wanted.version == 4
    return bound == wanted


def _describe(protocol: Protocol, holder: _Socket) -> Owner:
    if holder.status == psutil.CONN_TIME_WAIT:
        return Owner("an outgoing connection that just ended (TIME_WAIT)", listens=False)
    program = _program(holder.pid)
    if protocol == "tcp" and not holder.listens:
        return Owner(f"an outgoing connection of {program}", listens=False)
    return Owner(program, listens=holder.listens)


def _program(pid: int | None) -> str:
    if pid is None:
        if os.geteuid() != 0:
            return "another program (pid not visible without root)"
        return "another program (of the kernel, or outside of this container)"
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:  # it has just ended, or is not ours to look at
        return f"another program (pid {pid})"


def _tunnel_ports() -> dict[int, str]:
    """UDP port -> the tunnel device that holds it, as iproute2 tells; empty without iproute2."""
    ip = shutil.which("ip", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if ip is None:
        return {}
    found: dict[int, str] = {}
    for kind in _TUNNELS:
        try:
            listing = subprocess.run(
                [ip, "-d", "-j", "link", "show", "type", kind],
                capture_output=True,
                check=True,
                timeout=_IP_PATIENCE,
            )
            devices = json.loads(listing.stdout or b"[]")
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        for device in devices:
            port = device.get("linkinfo", {}).get("info_data", {}).get("port")
            if port is not None:
                found[int(port)] = f"{kind.upper()} device {device.get('ifname', '')}"
    return found


def _local_port_range() -> tuple[int, int] | None:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return None
    return int(first), int(last)


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
