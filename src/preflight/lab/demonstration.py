"""What `preflight demo` shows: a usual cluster, three faults, and what to find of each."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from preflight.lab import faults
from preflight.lab.cluster import ClusterNode, ClusterVip
from preflight.lab.faults import Traffic
from preflight.lab.loopback import Site
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import DEFAULT_CONTROL_PORT, Protocol
from preflight.model.report import Cause, FlowRecord, Report, Verdict
from preflight.ports import format_ports, intersect, parse_ports, union

NODES = (
    ClusterNode("cp1", ("10.77.1.11",), ("control-plane",)),
    ClusterNode("cp2", ("10.77.2.11",), ("control-plane",)),
    ClusterNode("cp3", ("10.77.3.11",), ("control-plane",)),
    ClusterNode("w1", ("10.77.4.11",), ("worker",)),
    ClusterNode("w2", ("10.77.5.11",), ("worker",)),
    ClusterNode("db1", ("10.77.6.11",), ("mongodb",)),
    ClusterNode("es1", ("10.77.7.11",), ("elasticsearch",)),
    ClusterNode("ops", ("10.77.9.11",), ("client",), embedded=True),
)
VIP = ClusterVip("api", "10.77.100.10", 6443, "control-plane", ("control-plane", "worker"))
OBSERVER = "ops"
"""The node on which `check` runs."""

_ADDRESSES = {node.name: node.addresses[0] for node in NODES}
_CONTROL_PLANE = ("cp1", "cp2", "cp3")
_WORKERS = ("w1", "w2")


@dataclass(frozen=True)
class Planted:
    """A fault, in words, and what a report must say of the flows that it hits."""

    words: str
    sources: tuple[str, ...]
    destination: str
    protocol: Protocol
    ports: str
    verdict: Verdict
    cause: Cause | None
    reported_by: str | None = None

    def hits(self, flow: FlowRecord) -> bool:
        """Whether the flow is (partly) one of those that this fault is about."""
        return (
            flow.source in self.sources
            and (flow.destination, flow.protocol) == (self.destination, self.protocol)
            and bool(intersect(parse_ports(flow.ports), parse_ports(self.ports)))
        )

    def is_told(self, report: Report) -> bool:
        """Whether the report says so of each source, and of these ports and no others."""
        for source in self.sources:
            told = [flow for flow in report.flows if self.hits(flow) and flow.source == source]
            if union(*(parse_ports(flow.ports) for flow in told)) != parse_ports(self.ports):
                return False
            for flow in told:
                if (flow.verdict, flow.cause) != (self.verdict, self.cause):
                    return False
                if self.reported_by not in (None, flow.reported_by):
                    return False
        return True


ON_THE_LAB = (
    Planted(
        "the router silently drops what the workers send to MongoDB (w1, w2 -> db1 25080/tcp)",
        _WORKERS,
        "db1",
        "tcp",
        "25080",
        Verdict.BLOCKED,
        Cause.NO_ANSWER,
    ),
    Planted(
        "w2's own firewall refuses the kubelet's port with ICMP admin-prohibited"
        " (cp1, cp2, cp3 -> w2 10250/tcp)",
        _CONTROL_PLANE,
        "w2",
        "tcp",
        "10250",
        Verdict.BLOCKED,
        Cause.ICMP_ADMIN_PROHIBITED,
        _ADDRESSES["w2"],
    ),
    Planted(
        "the router resets ten NodePorts of w1 (ops -> w1 31500-31509/tcp)",
        (OBSERVER,),
        "w1",
        "tcp",
        "31500-31509",
        Verdict.BLOCKED,
        Cause.RESET,
    ),
)

ABSENT_ON_LOOPBACK = ("es1",)
"""Nodes whose agents are not to be started there."""

ON_LOOPBACK = (
    Planted(
        "the agent of es1 is not running (w1, w2 -> es1 9200/tcp can't be tested)",
        _WORKERS,
        "es1",
        "tcp",
        "9200",
        Verdict.UNTESTED,
        Cause.AGENT_UNREACHABLE,
    ),
    Planted(
        "another program holds db1's 25080/tcp and doesn't listen"
        " (w1, w2 -> db1 25080/tcp can't be tested)",
        _WORKERS,
        "db1",
        "tcp",
        "25080",
        Verdict.UNTESTED,
        Cause.PORT_IN_USE,
    ),
    Planted(
        "another program holds w2's 8472/udp, as a leftover of flannel would"
        " (cp1, cp2, cp3, w1 -> w2 8472/udp can't be tested)",
        (*_CONTROL_PLANE, "w1"),
        "w2",
        "udp",
        "8472",
        Verdict.UNTESTED,
        Cause.PORT_IN_USE,
    ),
)


def lab_nodes() -> list[LabNode]:
    """The cluster's nodes as machines, each in a subnet of its own."""
    return [LabNode(node.name, node.addresses) for node in NODES]


def loopback_nodes() -> list[ClusterNode]:
    """The same cluster on 127.77.0.0/16, with a control port on each node's address."""
    return [
        replace(
            node,
            addresses=(moved,),
            control=None if node.embedded else f"{moved}:{DEFAULT_CONTROL_PORT}",
        )
        for node in NODES
        for moved in [node.addresses[0].replace("10.", "127.", 1)]
    ]


def plant_on_lab(lab: Lab) -> None:
    """Put `ON_THE_LAB` in force."""
    workers = [_ADDRESSES[name] for name in _WORKERS]
    mongodb = Traffic("tcp", workers, _ADDRESSES["db1"], "25080")
    node_ports = Traffic("tcp", (), _ADDRESSES["w1"], "31500-31509")
    lab.plant(ROUTER, faults.drop(mongodb))
    lab.plant(ROUTER, faults.reject(node_ports, faults.TCP_RESET))
    kubelet = Traffic("tcp", ports="10250")
    lab.plant("w2", faults.reject(kubelet, "admin-prohibited", hook="input"))


def plant_vip(lab: Lab) -> None:
    """The router is the load balancer of the VIP."""
    backends = [_ADDRESSES[name] for name in _CONTROL_PLANE]
    lab.plant(ROUTER, *faults.balance(VIP.address, VIP.port, backends))


def plant_on_loopback(site: Site, nodes: Sequence[ClusterNode]) -> None:
    """Put `ON_LOOPBACK` in force, except for the agent that is not to be started."""
    addresses = {node.name: node.addresses[0] for node in nodes}
    _occupy(site, "SOCK_STREAM", addresses["db1"], 25080)
    _occupy(site, "SOCK_DGRAM", addresses["w2"], 8472)


def surprises(report: Report, planted: Sequence[Planted]) -> list[str]:
    """Where the report and what was planted differ, in words: empty if it found just that."""
    found = [f"not found: {fault.words}" for fault in planted if not fault.is_told(report)]
    for flow in report.flows:
        expected = union(*(parse_ports(fault.ports) for fault in planted if fault.hits(flow)))
        told = parse_ports(flow.ports)
        if flow.verdict is not Verdict.OPEN and intersect(told, expected) != told:
            found.append(
                f"not planted: {flow.source} -> {flow.destination}"
                f" {format_ports(told)}/{flow.protocol} {flow.verdict} ({flow.cause})"
            )
    return found


def _occupy(site: Site, kind: str, address: str, port: int) -> None:
    """A program that binds a port and does nothing with it; back when it holds it."""
    program = (
        f"import signal, socket; held = socket.socket(socket.AF_INET, socket.{kind});"
        f" held.bind(({address!r}, {port})); print('bound', flush=True); signal.pause()"
    )
    holder = site.popen("", [sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
