import ipaddress
import json
import os
import resource
import shutil
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from preflight.agent.facts import (
    UNKNOWN,
    PortOwners,
    gather_facts,
    is_own_address,
    own_addresses,
    port_owner,
)
from tests.unit.net.listening_side import ADDRESS, WILDCARD

VXLAN = [
    {
        "ifindex": 7,
        "ifname": "flannel.1",
        "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 1, "port": 8472}},
    }
]


def test_facts_are_those_of_this_host() -> None:
    found = gather_facts()
    assert found.hostname == socket.gethostname()
    assert found.kernel == os.uname().release
    assert found.mtus["lo"] > 1_500
    assert found.descriptors == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert found.local_port_range is not None
    assert 1 <= found.local_port_range[0] < found.local_port_range[1] <= 65_535
    assert found.capture == _may_open_a_packet_socket()


def _may_open_a_packet_socket() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return False
    return True


def test_own_addresses_are_plain_and_sorted() -> None:
    found = own_addresses()
    assert "127.0.0.1" in found
    assert all(str(ipaddress.ip_address(address)) == address for address in found)
    assert len(set(found)) == len(found)
    versions = [ipaddress.ip_address(address).version for address in found]
    assert versions == sorted(versions)


def test_knows_its_own_address() -> None:
    assert is_own_address("127.0.0.1")
    assert is_own_address("127.9.9.9")  # all of 127/8 is here, though lo lists one address
    assert not is_own_address("192.0.2.1")


def test_a_listener_is_found_by_its_address() -> None:
    with closing(socket.create_server((ADDRESS, 0))) as server:
        port = server.getsockname()[1]
        owner = port_owner("tcp", ADDRESS, port)
        assert owner.listens
        assert owner.text.endswith(f"(pid {os.getpid()})")
        assert port_owner("tcp", "127.76.0.1", port) == UNKNOWN
        assert port_owner("udp", ADDRESS, port) == UNKNOWN


@pytest.mark.parametrize("wildcard", [WILDCARD, "::"])
def test_a_wildcard_holds_every_address(wildcard: str) -> None:
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with closing(
        socket.create_server((wildcard, 0), family=family, dualstack_ipv6=family != socket.AF_INET)
    ) as server:
        owner = port_owner("tcp", ADDRESS, server.getsockname()[1])
    assert owner.listens


def test_who_listens_goes_before_who_is_connected() -> None:
    with (
        closing(socket.create_server((ADDRESS, 0))) as server,
        closing(socket.create_connection(server.getsockname())),
        closing(server.accept()[0]),
    ):
        assert port_owner("tcp", ADDRESS, server.getsockname()[1]).listens


def test_a_connection_that_ended_is_no_program() -> None:
    with closing(socket.create_server((ADDRESS, 0))) as server:
        outgoing = socket.create_connection(server.getsockname())
        accepted = server.accept()[0]
        own = outgoing.getsockname()
        outgoing.close()  # first: so TIME_WAIT stays on this side
        accepted.recv(1)
        accepted.close()
        owner = port_owner("tcp", own[0], own[1])
    assert owner.text == "an outgoing connection that just ended (TIME_WAIT)"
    assert not owner.listens


def test_a_bound_socket_that_does_not_listen_is_not_to_be_seen() -> None:
    with closing(socket.socket()) as bound:
        bound.bind((ADDRESS, 0))
        assert port_owner("tcp", ADDRESS, bound.getsockname()[1]) == UNKNOWN


def test_one_look_serves_many_ports() -> None:
    with closing(socket.create_server((ADDRESS, 0))) as server:
        port = server.getsockname()[1]
        owners = PortOwners()
    assert owners.find("tcp", ADDRESS, port).listens  # as it was when we looked


def _say_that_there_is_a_vxlan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ip"
    program.write_text(
        "#!/bin/sh\n"
        f"case \"$*\" in *vxlan) echo '{json.dumps(VXLAN)}';; *) echo 'no such kind' >&2; exit 1;; "
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_names_the_tunnel_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _say_that_there_is_a_vxlan(tmp_path, monkeypatch)
    assert port_owner("udp", ADDRESS, 8_472) == ("VXLAN device flannel.1", False)
    assert port_owner("udp", ADDRESS, 8_473) == UNKNOWN
    assert port_owner("tcp", ADDRESS, 8_472) == UNKNOWN


def test_a_tunnel_is_listed_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc/net/udp shows it: bound to the wildcard, and nobody's."""
    _say_that_there_is_a_vxlan(tmp_path, monkeypatch)
    listed = [
        SimpleNamespace(laddr=SimpleNamespace(ip="::", port=port), pid=None, status="NONE")
        for port in (8_472, 6_081)
    ]
    monkeypatch.setattr(psutil, "net_connections", lambda kind: listed if kind == "udp" else [])
    owners = PortOwners()
    assert owners.find("udp", ADDRESS, 8_472).text == "VXLAN device flannel.1"
    assert owners.find("udp", ADDRESS, 6_081).text.startswith("another program (")


def test_without_iproute2_the_tunnel_stays_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert port_owner("udp", ADDRESS, 8_472) == UNKNOWN
