"""The lab itself: a context manager that builds the network and leaves nothing behind."""

import itertools
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal, Self, Unpack

from preflight.lab import topology
from preflight.lab.isolation import Holder, LabError
from preflight.lab.owner import sweep_leftovers
from preflight.lab.processes import Popen, Processes, ProcessOptions
from preflight.lab.topology import NODE_DEVICE, ROUTER, LabNode

COMMAND_PATIENCE = 30.0
"""Seconds that a command of `Lab.run` may take, unless it is told otherwise."""

DeadRoute = Literal["blackhole", "prohibit", "unreachable"]
"""Routes that refuse: in silence, with EACCES (ICMP 3/13), with EHOSTUNREACH (ICMP 3/1)."""

_WRITE_SYSCTLS = """
cd /proc/sys
while read -r path value; do
    # Only there where the module is loaded, and where it isn't, there is nothing to switch off.
    case $path in net/bridge/*) [ -e "$path" ] || continue ;; esac
    echo "$value" >"$path" || exit 1
done
"""


class Lab:
    """Nodes behind a router, up between `with` and its end.

    Everywhere, `where` is a node's name or "router". A command that fails raises `LabError`.
    """

    def __init__(
        self, nodes: Sequence[LabNode], *, router_sysctls: dict[str, str] | None = None
    ) -> None:
        """Raises `ValueError` for names, addresses or subnets that collide."""
        topology.check_nodes(nodes)
        self.nodes = {node.name: node for node in nodes}
        self._router_sysctls = {
            key.replace(".", "/"): value for key, value in (router_sysctls or {}).items()
        }
        self._processes = Processes()
        self._holder: Holder | None = None
        self._tables: dict[str, list[str]] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        """Build it, after sweeping what killed labs left. Raises `LabError`."""
        sweep_leftovers()
        try:
            self._holder = Holder(self._processes)
            self._build(tuple(self.nodes.values()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process in the lab. The kernel removes the namespaces with the last one."""
        try:
            self._processes.end_all()
        except BaseException:
            # A second Ctrl-C: no more waiting, but nothing is left behind either.
            self._processes.end_all(patience=0.0)
            raise

    def popen(self, where: str, argv: Sequence[str], **options: Unpack[ProcessOptions]) -> Popen:
        """Start a program; its number is the program's own."""
        return self._processes.start([*self._entry(where), *argv], **options)

    def run(
        self,
        where: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        patience: float = COMMAND_PATIENCE,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, within `patience` seconds, with `text` as its input."""
        return self._run([*self._entry(where), *argv], check=check, patience=patience, text=text)

    def typed(self, where: str, argv: Sequence[str] = ("bash",)) -> str:
        """What a user types in another terminal to run that there while the lab is up: a shell,
        unless told otherwise.
        """
        return shlex.join([*self._entry(where), *argv])

    def end(self, process: Popen, *, patience: float = 2.0) -> int:
        """SIGTERM, and after `patience` seconds SIGKILL. Returns the exit status."""
        return self._processes.end(process, patience=patience)

    def kill(self, process: Popen) -> int:
        """SIGKILL. Returns the exit status."""
        return self._processes.kill(process)

    def plant(self, where: str, *faults: str) -> str:
        """Put faults in force, as `faults` makes them, and return their table's name.

        Each call makes a table of its own, so that faults add up and can be taken back one by
        one. What is already tracked as a connection goes on through rules of type nat.
        """
        table = f"planted_{next(self._numbers)}"
        chains = "".join(f"chain fault_{i} {fault}\n" for i, fault in enumerate(faults, start=1))
        self.run(where, ["nft", "-f", "-"], text=f"table inet {table} {{\n{chains}}}\n")
        self._tables.setdefault(where, []).append(table)
        return table

    def flush(self, where: str, table: str | None = None) -> None:
        """Take back one planted table, or all of them. Other rules there stay."""
        tables = self._tables.get(where, [])
        doomed = [one for one in tables if table in (None, one)]
        self.run(
            where, ["nft", "-f", "-"], text="".join(f"delete table inet {t}\n" for t in doomed)
        )
        self._tables[where] = [one for one in tables if one not in doomed]

    def add_address(self, where: str, address: str, *, device: str = "lo") -> None:
        """Give a node an address more, as a VIP that moves. Without a prefix it is the host's."""
        self._ip(where, "address", "replace", address, "dev", device, *_nodad(address))

    def remove_address(self, where: str, address: str, *, device: str = "lo") -> None:
        """Take an address away, which `add_address` gave or the node always had."""
        self._ip(where, "address", "del", address, "dev", device)

    def add_route(
        self, where: str, destination: str, *, via: str | None = None, kind: DeadRoute | None = None
    ) -> None:
        """Route to a subnet or an address: by way of an address, or into the void."""
        way = [kind, destination] if kind else [destination, "via", str(via)]
        self._ip(where, "route", "replace", *way)

    def remove_route(self, where: str, destination: str) -> None:
        """Take a route back. Raises `LabError` if there is none."""
        self._ip(where, "route", "del", destination)

    def set_mtu(self, node: str, mtu: int, *, router_side_only: bool = False) -> None:
        """Change a wire's MTU in bytes. With one side only, the node does not know of it."""
        self._ip(ROUTER, "link", "set", "dev", node, "mtu", str(mtu))
        if not router_side_only:
            self._ip(node, "link", "set", "dev", NODE_DEVICE, "mtu", str(mtu))

    def set_link(self, node: str, *, up: bool) -> None:
        """Pull a node's cable at the router's end, or plug it in again."""
        self._ip(ROUTER, "link", "set", "dev", node, "up" if up else "down")

    def set_sysctl(self, where: str, key: str, value: str) -> None:
        """Set a kernel setting of one namespace: "net.ipv4.icmp_ratelimit"."""
        self._write_sysctls(where, {key.replace(".", "/"): value})

    def _build(self, nodes: Sequence[LabNode]) -> None:
        holder = self._open_holder()
        self._batch(holder.enter_names(), topology.namespace_batch(nodes))
        for name in (ROUTER, *self.nodes):
            settings = topology.sysctls(nodes, name)
            self._write_sysctls(name, settings | (self._router_sysctls if name == ROUTER else {}))
        self._batch(holder.enter_names(ROUTER), topology.router_batch(nodes))
        for node in nodes:
            self._batch(holder.enter(node.name), topology.node_batch(node))

    def _write_sysctls(self, where: str, settings: dict[str, str]) -> None:
        lines = "".join(f"{path} {value}\n" for path, value in settings.items())
        self.run(where, ["sh", "-c", _WRITE_SYSCTLS], text=lines)

    def _ip(self, where: str, *words: str) -> None:
        self.run(where, ["ip", *words])

    def _batch(self, entry: Iterable[str], commands: str) -> None:
        self._run([*entry, "ip", "-batch", "-"], text=commands)

    def _run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        patience: float = COMMAND_PATIENCE,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = self._processes.run(argv, patience=patience, text=text)
        if check and done.returncode != 0:
            command = " ".join(argv[argv.index("--") + 1 :])
            raise LabError(f"{command}: {done.stderr.strip() or f'status {done.returncode}'}")
        return done

    def _entry(self, where: str) -> list[str]:
        if where != ROUTER and where not in self.nodes:
            raise LabError(f"there is no {where!r} in this lab")
        return self._open_holder().enter(where)

    def _open_holder(self) -> Holder:
        if self._holder is None:
            raise LabError("the lab is not up: use it in a with statement")
        return self._holder


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []
