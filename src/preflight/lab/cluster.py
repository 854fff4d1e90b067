"""The real program on a lab: key files, a `cluster.toml`, an agent process on every node."""

import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Unpack

from preflight.lab.isolation import LabError
from preflight.lab.loopback import Site
from preflight.lab.owner import PROC
from preflight.lab.processes import Popen, ProcessOptions
from preflight.model.cluster import DEFAULT_CONTROL_PORT

PREFLIGHT = (sys.executable, "-m", "preflight")
START_PATIENCE = 15.0
"""Seconds that an agent may take from its start to holding its control port."""


@dataclass(frozen=True)
class ClusterNode:
    """A `[nodes.NAME]` of the cluster file. An embedded one gets no agent process."""

    name: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...]
    embedded: bool = False
    control: str | None = None
    nat: bool = False


@dataclass(frozen=True)
class ClusterVip:
    """A `[vips.NAME]` of the cluster file."""

    name: str
    address: str
    port: int
    backends: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ClusterShape:
    """What stands in a cluster file. `profile` is a built-in one's name, or a path."""

    nodes: Sequence[ClusterNode]
    vips: Sequence[ClusterVip] = ()
    profile: str = "apinizer"
    name: str = "lab"
    ports: Mapping[str, str] = field(default_factory=dict)

    def toml(self) -> str:
        """The cluster file; its key file is `cluster.key` beside it."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _table("", name=self.name, profile=self.profile, key_file="cluster.key")
        for node in self.nodes:
            more: dict[str, object] = {"embedded": True} if node.embedded else {}
            more |= {"nat": True} if node.nat else {}
            more |= {"control": node.control} if node.control else {}
            yield from _table(
                f"nodes.{node.name}", addresses=node.addresses, roles=node.roles, **more
            )
        for vip in self.vips:
            yield from _table(
                f"vips.{vip.name}",
                address=vip.address,
                port=vip.port,
                backends=vip.backends,
                **{"from": vip.sources},
            )
        if self.ports:
            yield from _table("ports", **self.ports)


class LabCluster:
    """A cluster whose files are in `folder` and whose agents run on a site's nodes.

    The agent of a node writes to `NODE.log` there.
    """

    def __init__(self, site: Site, shape: ClusterShape, *, folder: Path) -> None:
        """Write the cluster file and make its keys. Raises `LabError`."""
        self.site = site
        self.nodes = {node.name: node for node in shape.nodes}
        self.folder = folder
        self.agents: dict[str, Popen] = {}
        self.file = folder / "cluster.toml"
        self.file.write_text(shape.toml())
        self.agent_key = folder / "cluster.agent.key"
        self.make_key(folder / "cluster.key")

    def make_key(self, file: Path) -> None:
        """`preflight key`: FILE, and FILE's agent key beside it. Raises `LabError`."""
        done = subprocess.run(
            [*PREFLIGHT, "key", "--out", str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"preflight key: {done.stderr.strip()}")

    def start_agents(self, *, without: Collection[str] = ()) -> None:
        """Start every node's agent except these, and wait until all hold their control ports."""
        names = [
            node.name
            for node in self.nodes.values()
            if not node.embedded and node.name not in without
        ]
        for name in names:
            self._start(name, self.agent_key)
        for name in names:
            self.wait_for_agent(name)

    def start_agent(self, name: str, *, key_file: Path | None = None) -> None:
        """Start one node's agent, with another key file perhaps, and wait for its control port."""
        self._start(name, key_file or self.agent_key)
        self.wait_for_agent(name)

    def stop_agent(self, name: str) -> int:
        """SIGTERM. Returns the agent's exit status."""
        return self.site.end(self.agents.pop(name))

    def kill_agent(self, name: str) -> None:
        """SIGKILL: no goodbye to anybody."""
        self.site.kill(self.agents.pop(name))

    def wait_for_agent(self, name: str, patience: float = START_PATIENCE) -> None:
        """Until its control port is held. Raises `LabError` if it ends, or after `patience` s."""
        agent = self.agents[name]
        port = _control_port(self.nodes[name])
        deadline = time.monotonic() + patience
        while not _listens(agent.pid, port):
            if agent.poll() is not None or time.monotonic() > deadline:
                state = "did not start" if agent.poll() is None else "ended"
                raise LabError(f"the agent of {name} {state}: {self.log(name)[-500:].strip()}")
            time.sleep(0.02)

    def check(self, where: str, *options: str, **streams: Unpack[ProcessOptions]) -> Popen:
        """Start `preflight check` on a node of the site."""
        return self.site.popen(where, [*self.check_argv(), *options], **streams)

    def check_argv(self) -> list[str]:
        """`preflight check` of this cluster, to be run on its embedded node."""
        return [*PREFLIGHT, "check", "--cluster", str(self.file)]

    def log(self, name: str) -> str:
        """What a node's agent wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, key_file: Path) -> None:
        node = self.nodes[name]
        argv = [*PREFLIGHT, "serve", "--key-file", str(key_file)]
        if node.control is not None:
            argv += ["--control", node.control]
        with self._open_log(name) as log:
            self.agents[name] = self.site.popen(
                name, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _open_log(self, name: str) -> IO[bytes]:
        return (self.folder / f"{name}.log").open("ab")


def _control_port(node: ClusterNode) -> int:
    return int(node.control.rpartition(":")[2]) if node.control else DEFAULT_CONTROL_PORT


def _listens(pid: int, port: int) -> bool:
    """Whether that process itself listens on that port, on any address (proc(5), net/tcp).

    Looked up, not tried: a connection would be one that the agent did not expect.
    """
    inodes: set[str] = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        fields = [row.split() for row in rows]
        inodes |= {
            f"socket:[{row[9]}]"
            for row in fields
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    try:
        return any(str(held.readlink()) in inodes for held in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False


def _table(heading: str, **values: object) -> Iterator[str]:
    if heading:
        yield f"\n[{heading}]"
    for key, value in values.items():
        # JSON's strings, numbers, booleans and lists of them are TOML's as well.
        yield f"{key} = {json.dumps(value)}"
