"""A setting on the real network: a lab of namespaces, real agents, the real command."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from preflight.lab import faults as planted
from preflight.lab.cluster import PREFLIGHT, LabCluster
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Report
from tests.memory import faults
from tests.memory.faults import Fault, Traffic
from tests.memory.setting import Machine, Setting
from tests.netns.harness import CHECK_PATIENCE, STRANGERS

OPERATOR = Machine("operator", ("10.77.250.11",))
"""A machine apart, on which `check` runs: no fault touches its control connections."""
_KINDS = {"greets": "banner", "closes": "close", "silent": "silent", "idle": "idle"}
_HIGH_PORTS_ONLY = (
    "setpriv",
    "--bounding-set=-net_bind_service",
    "--inh-caps=-net_bind_service",
)
_ICMP_UNLIMITED = {"net.ipv4.icmp_ratelimit": "0", "net.ipv6.icmp.ratelimit": "0"}
_LISTEN_IS_OVER = b'"name":"listen"'


@dataclass(frozen=True)
class CheckedInNamespaces:
    """What the command said."""

    report: Report
    exit_code: int


def check_in_namespaces(setting: Setting, folder: Path) -> CheckedInNamespaces:
    """Build the network with its faults, start the agents, run the command, take it all down."""
    present = [machine for machine in setting.machines if not _has(setting, faults.Absent, machine)]
    nodes = [LabNode(one.name, one.addresses, one.link) for one in (*present, OPERATOR)]
    with Lab(nodes, router_sysctls=None if setting.icmp_limited else _ICMP_UNLIMITED) as lab:
        for machine in present:
            _start_programs(lab, setting, machine)
        for fault in setting.faults:
            _Planter(lab, setting).plant(fault)
        cluster = LabCluster(lab, setting.shape(folder), folder=folder)
        _start_agents(lab, cluster, setting, present)
        return _run(cluster, setting, folder)


class _Planter:
    """Puts the faults of a setting in force in a lab."""

    def __init__(self, lab: Lab, setting: Setting) -> None:
        self._lab = lab
        self._machines = setting.machines_by_name
        self._vips = {vip.name: vip for vip in setting.vips}

    def plant(self, fault: Fault) -> None:
        """Faults of agents and programs are somebody else's."""
        match fault:
            case faults.Drop() | faults.Refuse() | faults.Expire():
                at = ROUTER if isinstance(fault, faults.Expire) else fault.at
                self._lab.plant(at, self._filter(fault))
                self._route_to_vip(fault.traffic)
            case faults.Redirect():
                self._redirect(fault)
            case faults.Masquerade():
                self._lab.plant(ROUTER, planted.masquerade(self._traffic(fault.traffic)))
            case faults.Balance():
                self._balance(fault)
            case faults.DeadRoute():
                for address in self._machines[fault.destination].addresses:
                    self._lab.add_route(fault.source, address, kind=fault.kind)
            case _:
                pass

    def _filter(self, fault: faults.Drop | faults.Refuse | faults.Expire) -> str:
        traffic = self._traffic(fault.traffic)
        if isinstance(fault, faults.Expire):
            return _chain("prerouting", f"{_only(traffic)} ip ttl set 1")
        hook = _hook(fault)
        if isinstance(fault, faults.Refuse):
            chain = planted.reject(traffic, fault.reason, hook=hook)
            return _longer_than(chain, fault.longer_than)
        chain = planted.drop(traffic, hook=hook, way=fault.way)
        lost, of = fault.share
        if of > 1:
            # In turn, datagrams are lost as the fake loses them. A TCP connection may be as many
            # packets as the turns are long, and then it is always the same one that is lost.
            kind = "inc" if fault.traffic.protocol == "udp" else "random"
            chain = chain.replace("counter", f"numgen {kind} mod {of} < {lost} counter")
        return _longer_than(chain, fault.longer_than)

    def _redirect(self, fault: faults.Redirect) -> None:
        for address in self._machines[fault.to].addresses:
            family = 6 if ":" in address else 4
            if fault.traffic.family in (None, family):
                traffic = self._traffic(fault.traffic)
                self._lab.plant(ROUTER, planted.redirect(traffic, address=address, port=fault.port))

    def _balance(self, fault: faults.Balance) -> None:
        vip = self._vips[fault.vip]
        addresses = [self._machines[name].addresses[0] for name in fault.to]
        if fault.port is None:
            self._lab.plant(ROUTER, *planted.balance(vip.address, vip.port, addresses))
        else:
            traffic = planted.Traffic("tcp", (), vip.address, str(vip.port))
            chain = planted.redirect(traffic, address=addresses[0], port=fault.port)
            self._lab.plant(ROUTER, chain)

    def _route_to_vip(self, traffic: Traffic) -> None:
        """So that the router's forward hook sees what is sent to a VIP that nobody balances."""
        if traffic.destination in self._vips:
            somebody = next(m for m in self._machines.values() if m.name != traffic.source)
            address = self._vips[traffic.destination].address
            self._lab.add_route(ROUTER, address, via=somebody.addresses[0])

    def _traffic(self, traffic: Traffic) -> planted.Traffic:
        return planted.Traffic(
            traffic.protocol,
            self._addresses(traffic.source, traffic),
            self._addresses(traffic.destination, traffic),
            traffic.ports,
        )

    def _addresses(self, name: str, traffic: Traffic) -> tuple[str, ...]:
        if name in self._vips:
            return (self._vips[name].address,)
        every = self._machines[name].addresses
        return tuple(one for one in every if traffic.family in (None, 6 if ":" in one else 4))


def _hook(fault: faults.Drop | faults.Refuse) -> planted.Hook:
    """Where a firewall sits, by whose it is."""
    if fault.at == faults.ROUTER:
        return "forward"
    way = fault.way if isinstance(fault, faults.Drop) else "there"
    sends = fault.traffic.source if way == "there" else fault.traffic.destination
    return "output" if fault.at == sends else "input"


def _longer_than(chain: str, length: int | None) -> str:
    if length is None:
        return chain
    return chain.replace("counter", f"meta length > {length} counter")


def _only(traffic: planted.Traffic) -> str:
    (match,) = traffic.matches().values()
    return match


def _chain(hook: str, *rules: str) -> str:
    head = f"type filter hook {hook} priority filter; policy accept;"
    return "\n".join(("{", head, *rules, "}"))


def _has(setting: Setting, kind: type[Fault], machine: Machine) -> bool:
    return any(
        isinstance(fault, kind) and getattr(fault, "node", None) == machine.name
        for fault in setting.faults
    )


def _start_programs(lab: Lab, setting: Setting, machine: Machine) -> None:
    places = [
        f"{_KINDS[fault.behaviour]}:{fault.protocol}:{address}:{fault.port}"
        for fault in setting.faults
        if isinstance(fault, faults.Program) and fault.on == machine.name
        for address in machine.addresses
    ]
    if places:
        argv = [sys.executable, STRANGERS, *places]
        started = lab.popen(machine.name, argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"


def _start_agents(
    lab: Lab, cluster: LabCluster, setting: Setting, present: Sequence[Machine]
) -> None:
    """An agent on every node that is to have one, each started as its fault wants it."""
    special = {
        machine.name
        for machine in present
        for kind in (faults.ForeignAgent, faults.Unprivileged)
        if _has(setting, kind, machine)
    }
    missing = {
        name
        for name in cluster.nodes
        if name not in {machine.name for machine in present}
        or _has(setting, faults.NoAgent, setting.machines_by_name[name])
    }
    cluster.start_agents(without=special | missing)
    for name in special:
        machine = setting.machines_by_name[name]
        if _has(setting, faults.ForeignAgent, machine):
            cluster.make_key(cluster.folder / "foreign.key")
            cluster.start_agent(name, key_file=cluster.folder / "foreign.agent.key")
        else:
            argv = [*_HIGH_PORTS_ONLY, *PREFLIGHT, "serve", "--key-file", str(cluster.agent_key)]
            with (cluster.folder / f"{name}.log").open("ab") as log:
                cluster.agents[name] = lab.popen(name, argv, stdout=log, stderr=log)
            cluster.wait_for_agent(name)


def _run(cluster: LabCluster, setting: Setting, folder: Path) -> CheckedInNamespaces:
    run_file = folder / "run.json"
    options = ["--format", "json", "--output", str(run_file)]
    limits = setting.limits
    options += ["--rate", "max" if limits.rate is None else str(limits.rate)]
    options += ["--max-half-open", str(limits.max_half_open), "--close", limits.close]
    options += ["--sample", str(limits.sample)] if limits.sample is not None else []
    options += ["--deadline", str(setting.deadline)] if setting.deadline is not None else []
    dying = [fault.node for fault in setting.faults if isinstance(fault, faults.Dies)]
    command = cluster.check(
        OPERATOR.name,
        *options,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for line in _lines_as_written(run_file, command) if dying else ():
        if _LISTEN_IS_OVER in line:
            for name in dying:
                cluster.kill_agent(name)
            break
    stdout, stderr = command.communicate(timeout=CHECK_PATIENCE)
    assert stdout, stderr
    report = msgspec.json.decode(stdout, type=Report)
    return CheckedInNamespaces(report, command.returncode)


def _lines_as_written(file: Path, writer: "subprocess.Popen[str]") -> Iterator[bytes]:
    """The lines of a file that is still being written, until its writer ends."""
    seen = 0
    while writer.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = file.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            yield from whole[seen:]
            seen = len(whole)
        time.sleep(0.02)
