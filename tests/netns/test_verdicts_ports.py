"""Ports of the destination that another program holds, with and without a fault on the way."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.plan import Family
from preflight.model.report import Cause, Where
from tests.netns.harness import (
    OPEN,
    Checked,
    Cluster,
    Told,
    blocked,
    profile_of,
    start_strangers,
    untested,
)

A, B = ("10.77.1.11", "fd77:1::11"), ("10.77.2.11", "fd77:2::11")
NODES = [LabNode("a", A), LabNode("b", B)]
VXLAN = 8472
FREE, LISTENING, WILDCARD, IDLE, OUTGOING = 7000, 7001, 7002, 7003, 30000
DROPPED, REJECTED, RESET, SILENT_HOLDER = 7010, 7011, 7012, 7013
UDP_HELD, UDP_HELD_AND_DROPPED = 7020, 7021
PORTS = [
    *(FREE, LISTENING, WILDCARD, IDLE, OUTGOING, DROPPED, REJECTED, RESET),
    *(SILENT_HOLDER, UDP_HELD, UDP_HELD_AND_DROPPED, VXLAN),
]
"""All of them as TCP and as UDP."""

OUTGOING_CONNECTION = """
import signal, socket, sys
held = socket.socket()
held.bind((sys.argv[1], int(sys.argv[2])))
held.connect((sys.argv[3], 7900))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    """The one check, over both families; the programs hold their ports on both addresses."""
    with Lab(NODES) as lab:
        for address in B:
            start_strangers(
                lab,
                "b",
                *(f"banner:tcp:{address}:{port}" for port in (LISTENING, DROPPED, REJECTED, RESET)),
                f"silent:tcp:{address}:{SILENT_HOLDER}",
                f"idle:tcp:{address}:{IDLE}",
                *(f"echo:udp:{address}:{port}" for port in (UDP_HELD, UDP_HELD_AND_DROPPED)),
            )
        start_strangers(lab, "b", f"banner:tcp::{WILDCARD}")
        connect_from(lab)
        lab.run("b", ["ip", "link", "add", "vxlan.1", "type", "vxlan", *VXLAN_OPTIONS])
        lab.run("b", ["ip", "link", "set", "vxlan.1", "up"])
        plant_faults(lab)
        profile = profile_of({f"port-{port}": f"{port}/tcp {port}/udp" for port in PORTS})
        roles = {"a": ["source"], "b": ["destination"]}
        cluster = Cluster(lab, tmp_path_factory.mktemp("ports"), roles, profile=profile)
        cluster.start_agents()
        yield cluster.run_check()


VXLAN_OPTIONS = ["id", "1", "dstport", str(VXLAN), "dev", "eth0", "local", B[0]]


def connect_from(lab: Lab) -> None:
    """An outgoing connection of b's whose local port is one that is asked for."""
    gateways = ("10.77.2.1", "fd77:2::1")
    start_strangers(lab, ROUTER, *(f"silent:tcp:{address}:7900" for address in gateways))
    for own, gateway in zip(B, gateways, strict=True):
        program = OUTGOING_CONNECTION.replace(
            "socket.socket()", f"socket.socket(socket.AF_INET{'6' if ':' in own else ''})"
        )
        argv = [sys.executable, "-S", "-c", program, own, str(OUTGOING), gateway]
        holder = lab.popen("b", argv, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"


def plant_faults(lab: Lab) -> None:
    lab.plant(
        ROUTER,
        faults.drop(Traffic("tcp", ports=str(DROPPED))),
        faults.drop(Traffic("udp", ports=str(UDP_HELD_AND_DROPPED))),
        faults.reject(Traffic("tcp", (), B[0], str(REJECTED)), "admin-prohibited"),
        faults.reject(Traffic("tcp", (), B[1], str(REJECTED)), "admin-prohibited"),
        faults.reject(Traffic("tcp", ports=str(RESET)), TCP_RESET),
    )


@pytest.mark.parametrize("family", [4, 6])
class TestEach:
    """In each family."""

    @pytest.mark.parametrize("port", [LISTENING, WILDCARD, SILENT_HOLDER])
    def test_a_listener_is_connected_to(self, checked: Checked, family: Family, port: int) -> None:
        flow = checked.flow("a", "b", "tcp", port, family)
        assert Told.by(flow) == OPEN
        assert flow.proof == "connection"
        assert "python" in (flow.evidence.owner or "")

    @pytest.mark.parametrize("port", [IDLE, OUTGOING])
    def test_a_holder_that_does_not_listen(
        self, checked: Checked, family: Family, port: int
    ) -> None:
        assert Told.by(checked.flow("a", "b", "tcp", port, family)) == untested(Cause.PORT_IN_USE)

    def test_silence_and_icmp_are_the_networks(self, checked: Checked, family: Family) -> None:
        router = "10.77.1.1" if family == 4 else "fd77:1::1"
        assert Told.by(checked.flow("a", "b", "tcp", DROPPED, family)) == blocked(Cause.NO_ANSWER)
        assert Told.by(checked.flow("a", "b", "tcp", REJECTED, family)) == blocked(
            Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by=router
        )

    def test_a_reset_may_be_the_holders(self, checked: Checked, family: Family) -> None:
        assert Told.by(checked.flow("a", "b", "tcp", RESET, family)) == untested(Cause.PORT_IN_USE)

    @pytest.mark.parametrize("port", [UDP_HELD, UDP_HELD_AND_DROPPED])
    def test_udp_can_not_be_looked_at(self, checked: Checked, family: Family, port: int) -> None:
        assert Told.by(checked.flow("a", "b", "udp", port, family)) == untested(Cause.PORT_IN_USE)

    def test_what_is_free_is_proven(self, checked: Checked, family: Family) -> None:
        for protocol in ("tcp", "udp"):
            flow = checked.flow("a", "b", protocol, FREE, family)
            assert (Told.by(flow), flow.proof) == (OPEN, "agent")
        for port in (LISTENING, IDLE, OUTGOING, DROPPED):
            assert checked.flow("a", "b", "udp", port, family).proof == "agent"
        for port in (UDP_HELD, UDP_HELD_AND_DROPPED, VXLAN):
            assert checked.flow("a", "b", "tcp", port, family).proof == "agent"


def test_a_vxlan_device_is_named(checked: Checked) -> None:
    flow = checked.flow("a", "b", "udp", VXLAN, 4)
    assert Told.by(flow) == untested(Cause.PORT_IN_USE)
    assert "vxlan.1" in (flow.evidence.owner or "")


def test_the_holders_are_told_of(checked: Checked) -> None:
    assert "port-occupied" in checked.finding_codes()
    assert checked.exit_code == 1
