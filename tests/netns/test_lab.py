"""The lab, proven with plain sockets: what its faults are called is what they do."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preflight.lab import faults, owner
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.isolation import LabError, how_isolated
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol

PLAIN_SOCKETS = str(Path(__file__).with_name("plain_sockets.py"))
A4, A6 = "10.77.1.11", "fd77:1::11"
B4, B6 = "10.77.2.11", "fd77:2::11"
C4, C6 = "10.77.3.11", "fd77:3::11"
NODES = [LabNode("a", (A4, A6)), LabNode("b", (B4, B6)), LabNode("c", (C4, C6))]
PLACES = [(protocol, address) for protocol in ("tcp", "udp") for address in (B4, B6)]
PORT = 7000
OTHER_PORT = 7001

SILENT = {"error": "silence", "icmp": None, "answer": None}


def start_answering(lab: Lab, where: str, *addresses: str) -> Popen:
    places = [
        f"{protocol}:{address}:{port}"
        for protocol in ("tcp", "udp")
        for address in addresses
        for port in (PORT, OTHER_PORT)
    ]
    argv = [sys.executable, "-S", PLAIN_SOCKETS, "answer", where, *places]
    answering = lab.popen(where, argv, stdout=subprocess.PIPE)
    assert answering.stdout is not None
    assert answering.stdout.readline() == "ready\n"
    return answering


def ask(lab: Lab, where: str, protocol: str, address: str, *more: int) -> dict[str, Any]:
    numbers = [str(number) for number in more or (PORT,)]
    argv = [sys.executable, "-S", PLAIN_SOCKETS, "ask", protocol, address, *numbers]
    told: dict[str, Any] = json.loads(lab.run(where, argv).stdout)
    return told


def answered_by(name: str, seen: str) -> dict[str, Any]:
    return {"step": "answer", "error": None, "icmp": None, "answer": f"{name} {seen}"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """Three nodes behind a router; b and c answer on two ports."""
    with Lab(NODES) as lab:
        start_answering(lab, "b", B4, B6)
        start_answering(lab, "c", C4, C6)
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    for where in (ROUTER, "a", "b", "c"):
        shared.flush(where)


@pytest.mark.parametrize(("protocol", "address"), PLACES)
def test_nodes_reach_each_other_through_the_router(lab: Lab, protocol: str, address: str) -> None:
    own = A6 if ":" in address else A4
    assert ask(lab, "a", protocol, address) == answered_by("b", own)


def test_nothing_leads_out_of_the_lab(lab: Lab) -> None:
    for where in (ROUTER, "a"):
        links = json.loads(lab.run(where, ["ip", "-json", "link"]).stdout)
        wires = {"lo", "eth0"} if where == "a" else {"lo", "a", "b", "c"}
        assert {link["ifname"] for link in links} == wires
    told = ask(lab, ROUTER, "tcp", "192.0.2.1")
    assert told["error"] == "ENETUNREACH"
    assert told["icmp"] is None


@pytest.mark.parametrize(("protocol", "address"), PLACES)
@pytest.mark.parametrize("way", ["there", "back"])
def test_drop_is_silence_and_only_where_it_was_said(
    lab: Lab, protocol: Protocol, address: str, way: faults.Way
) -> None:
    lab.plant(ROUTER, faults.drop(Traffic(protocol, (), address, str(PORT)), way=way))
    assert SILENT.items() <= ask(lab, "a", protocol, address).items()
    assert ask(lab, "a", protocol, address, OTHER_PORT)["error"] is None
    lab.flush(ROUTER)
    assert ask(lab, "a", protocol, address)["error"] is None


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("reason", "number", "code"),
    [
        ("net-unreachable", "ENETUNREACH", 0),
        ("host-unreachable", "EHOSTUNREACH", 1),
        ("prot-unreachable", "ENOPROTOOPT", 2),
        ("port-unreachable", "ECONNREFUSED", 3),
        ("net-prohibited", "ENETUNREACH", 9),
        ("host-prohibited", "EHOSTUNREACH", 10),
        ("admin-prohibited", "EHOSTUNREACH", 13),
    ],
)
def test_reject_sends_the_icmp_error_of_its_name(
    lab: Lab, protocol: Protocol, reason: str, number: str, code: int
) -> None:
    lab.set_sysctl(ROUTER, "net.ipv4.icmp_ratelimit", "0")
    lab.plant(ROUTER, faults.reject(Traffic(protocol, A4, B4), reason))
    told = ask(lab, "a", protocol, B4)
    assert (told["error"], told["icmp"]) == (number, [3, code, "10.77.1.1"])


@pytest.mark.parametrize(
    ("reason", "code"),
    [("no-route", 0), ("admin-prohibited", 1), ("addr-unreachable", 3), ("port-unreachable", 4)],
)
def test_reject_sends_the_icmpv6_error_of_its_name(lab: Lab, reason: str, code: int) -> None:
    lab.plant(ROUTER, faults.reject(Traffic("udp", A6, B6), reason))
    assert ask(lab, "a", "udp", B6)["icmp"] == [1, code, "fd77:1::1"]


def test_reject_by_a_host_names_the_host(lab: Lab) -> None:
    traffic = Traffic("tcp", ports=str(PORT))
    lab.plant("b", faults.reject(traffic, "admin-prohibited", hook="input"))
    assert ask(lab, "a", "tcp", B4)["icmp"] == [3, 13, B4]
    assert ask(lab, "a", "tcp", B6)["icmp"] == [1, 1, B6]


@pytest.mark.parametrize("address", [B4, B6])
@pytest.mark.parametrize(("where", "hook"), [(ROUTER, "forward"), ("b", "input")])
def test_tcp_reset_is_a_refusal_without_icmp(
    lab: Lab, where: str, hook: faults.Hook, address: str
) -> None:
    lab.plant(where, faults.reject(Traffic("tcp"), TCP_RESET, hook=hook))
    told = ask(lab, "a", "tcp", address)
    assert (told["step"], told["error"], told["icmp"]) == ("connect", "ECONNREFUSED", None)


def test_a_hosts_own_drop_on_output_is_told_to_udp_only(lab: Lab) -> None:
    lab.plant("a", faults.drop(Traffic(), hook="output"))
    assert ask(lab, "a", "udp", B4)["error"] == "EPERM"
    assert SILENT.items() <= ask(lab, "a", "tcp", B4).items()


@pytest.mark.parametrize("address", [B4, B6])
def test_stall_lets_the_handshake_through(lab: Lab, address: str) -> None:
    lab.plant(ROUTER, faults.stall(Traffic("tcp")))
    assert ask(lab, "a", "tcp", address) == {"step": "answer", **SILENT}


def test_stall_of_full_segments_lets_small_data_through(lab: Lab) -> None:
    lab.plant(ROUTER, faults.stall(Traffic("tcp"), longer_than=1_400))
    assert ask(lab, "a", "tcp", B4, PORT, 256)["error"] is None
    assert ask(lab, "a", "tcp", B4, PORT, 8_192)["error"] == "silence"


def test_loss_loses_some_and_not_all(lab: Lab) -> None:
    # Five of 200 datagrams or fewer, or all but five, would be a chance below 1 in 10^40.
    lab.plant(ROUTER, faults.loss(Traffic("udp", ports=str(PORT)), 50))
    program = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM);"
        f" [s.sendto(b'x', ('{B4}', {PORT})) for _ in range(200)]"
    )
    lab.run("a", [sys.executable, "-S", "-c", program])
    ruleset = json.loads(lab.run(ROUTER, ["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    expressions = [one for entry in ruleset for one in entry.get("rule", {}).get("expr", [])]
    dropped = sum(one["counter"]["packets"] for one in expressions if "counter" in one)
    assert 5 < dropped < 195


@pytest.mark.parametrize(("protocol", "asked"), PLACES)
def test_redirect_leads_to_another_node(lab: Lab, protocol: Protocol, asked: str) -> None:
    other, own = (C6, A6) if ":" in asked else (C4, A4)
    traffic = Traffic(protocol, (), asked, str(PORT))
    lab.plant(ROUTER, faults.redirect(traffic, address=other, port=OTHER_PORT))
    assert ask(lab, "a", protocol, asked) == answered_by("c", own)


def test_redirect_here_leads_to_the_router_itself(lab: Lab) -> None:
    answering = start_answering(lab, ROUTER, "10.77.1.1")
    lab.plant(ROUTER, faults.redirect_here(Traffic("tcp", (), B4, "9000"), port=PORT))
    assert ask(lab, "a", "tcp", B4, 9000) == answered_by(ROUTER, A4)
    lab.end(answering)


@pytest.mark.parametrize(("protocol", "address"), PLACES)
def test_masquerade_hides_the_source(lab: Lab, protocol: Protocol, address: str) -> None:
    lab.plant(ROUTER, faults.masquerade(Traffic(protocol, (), address)))
    seen = "fd77:2::1" if ":" in address else "10.77.2.1"
    assert ask(lab, "a", protocol, address) == answered_by("b", seen)


@pytest.mark.parametrize(
    ("vip", "backends", "own"),
    [("10.77.100.10", (B4, C4), A4), ("fd77:100::10", (B6, C6), A6)],
)
def test_balance_takes_the_backends_in_turn(
    lab: Lab, vip: str, backends: tuple[str, str], own: str
) -> None:
    lab.plant(ROUTER, *faults.balance(vip, PORT, backends))
    answers = [ask(lab, "a", "tcp", vip)["answer"] for _ in range(4)]
    assert sorted(answers) == [f"b {own}"] * 2 + [f"c {own}"] * 2
    # A backend that asks the VIP may get itself, and then sees the router.
    assert {ask(lab, "b", "tcp", vip)["answer"].split()[0] for _ in range(2)} == {"b", "c"}


def test_faults_add_up_and_are_taken_back_one_by_one(lab: Lab) -> None:
    first = lab.plant(ROUTER, faults.drop(Traffic("tcp")))
    lab.plant(ROUTER, faults.reject(Traffic("udp"), "admin-prohibited"))
    lab.run(ROUTER, ["nft", "add", "table", "inet", "somebody_elses"])
    assert ask(lab, "a", "tcp", B4)["error"] == "silence"
    assert ask(lab, "a", "udp", B4)["error"] == "EHOSTUNREACH"
    lab.flush(ROUTER, first)
    assert ask(lab, "a", "tcp", B4)["error"] is None
    assert ask(lab, "a", "udp", B4)["error"] == "EHOSTUNREACH"
    lab.flush(ROUTER)
    tables = lab.run(ROUTER, ["nft", "list", "tables"]).stdout
    assert tables == "table inet somebody_elses\n"
    lab.run(ROUTER, ["nft", "delete", "table", "inet", "somebody_elses"])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol"):
        faults.drop(Traffic(ports="80"))
    with pytest.raises(ValueError, match="in common"):
        faults.drop(Traffic(source=A4, destination=B6))
    with pytest.raises(ValueError, match="no-route"):
        faults.reject(Traffic("tcp", A4), "no-route")
    with pytest.raises(ValueError, match="TCP"):
        faults.reject(Traffic("udp"), TCP_RESET)


@pytest.mark.parametrize(
    "nodes",
    [
        [LabNode("a", (A4,)), LabNode("a", (B4,))],
        [LabNode("a", (A4,)), LabNode("b", (A4,))],
        [LabNode("a", (A4,)), LabNode("b", ("10.77.1.12",))],
        [LabNode("a", ("10.77.1.1",))],
        [LabNode("router", (A4,))],
        [LabNode("a b", (A4,))],
        [LabNode("a", (A4,), link="not a name")],
    ],
)
def test_a_lab_that_can_not_be_is_refused(nodes: list[LabNode]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Lab(nodes)


def test_dead_routes_refuse_in_their_ways(lab: Lab) -> None:
    errors = {}
    for kind in ("blackhole", "prohibit", "unreachable"):
        lab.add_route("a", "10.88.0.0/16", kind=kind)
        errors[kind] = (ask(lab, "a", "udp", "10.88.0.1"))["error"]
        lab.remove_route("a", "10.88.0.0/16")
    assert errors == {"blackhole": "EINVAL", "prohibit": "EACCES", "unreachable": "EHOSTUNREACH"}


def test_an_address_can_be_added_and_routed_to(lab: Lab) -> None:
    for address, way in (("10.77.200.1", B4), ("fd77:200::1", B6)):
        lab.add_address("b", address)
        lab.add_route(ROUTER, address, via=way)
        answering = start_answering(lab, "b", address)
        assert ask(lab, "a", "tcp", address)["answer"].startswith("b ")
        lab.end(answering)
        lab.remove_route(ROUTER, address)
        lab.remove_address("b", f"{address}/{128 if ':' in address else 32}")


def test_neighbours_on_one_link_do_not_cross_the_router() -> None:
    nodes = [
        LabNode(name, (f"10.77.5.{i}", f"fd77:5::{i}"), "lan") for i, name in enumerate("ab", 2)
    ]
    with Lab(nodes) as lab:
        start_answering(lab, "b", "10.77.5.3", "fd77:5::3")
        lab.plant(ROUTER, faults.drop(Traffic()))
        for own, other in (("10.77.5.2", "10.77.5.3"), ("fd77:5::2", "fd77:5::3")):
            assert ask(lab, "a", "tcp", other) == answered_by("b", own)


def test_sysctls_and_mtu_are_set_where_asked() -> None:
    node = LabNode("a", (A4,), mtu=1_400, sysctls={"net.ipv4.conf.default.rp_filter": "1"})
    with Lab([node], router_sysctls={"net.ipv4.icmp_ratelimit": "2000"}) as lab:

        def read(where: str, file: str) -> str:
            return lab.run(where, ["cat", file]).stdout.strip()

        assert read("a", "/proc/sys/net/ipv4/conf/eth0/rp_filter") == "1"
        assert read(ROUTER, "/proc/sys/net/ipv4/icmp_ratelimit") == "2000"
        for mtu, at_router in ((1_400, 1_400), (1_400, 1_300), (1_280, 1_280)):
            lab.set_mtu("a", at_router, router_side_only=mtu != at_router)
            for where, device, expected in (("a", "eth0", mtu), (ROUTER, "a", at_router)):
                (link,) = json.loads(
                    lab.run(where, ["ip", "-j", "link", "show", "dev", device]).stdout
                )
                assert link["mtu"] == expected


def test_a_pulled_cable_is_silence_until_it_is_back() -> None:
    with Lab(NODES[:2]) as lab:
        start_answering(lab, "b", B4)
        lab.set_link("b", up=False)
        assert ask(lab, "a", "tcp", B4)["answer"] is None
        lab.set_link("b", up=True)
        assert ask(lab, "a", "tcp", B4) == answered_by("b", A4)


def test_two_labs_with_the_same_names_and_addresses_do_not_meet() -> None:
    with Lab(NODES[:2]) as first, Lab(NODES[:2]) as second:
        start_answering(first, "b", B4)
        assert ask(first, "a", "tcp", B4)["error"] is None
        assert ask(second, "a", "tcp", B4)["error"] == "ECONNREFUSED"


def test_a_wrong_command_or_place_is_a_clear_error(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"ip link show nothing: .*nothing"):
        lab.run("a", ["ip", "link", "show", "nothing"])
    with pytest.raises(LabError, match="'d'"):
        lab.run("d", ["true"])
    with pytest.raises(LabError, match="not up"):
        Lab(NODES).run("a", ["true"])


def namespaces_of(lab: Lab) -> set[str]:
    return {lab.run(name, ["readlink", "/proc/self/ns/net"]).stdout.strip() for name in lab.nodes}


def namespaces_in_use() -> set[str]:
    found = set()
    for entry in owner.PROC.iterdir():
        if entry.name.isdigit() and owner.start_time(int(entry.name)) is not None:
            try:
                found.add(str((entry / "ns/net").readlink()))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(error: type[BaseException]) -> None:
    lab = Lab(NODES[:1])

    def use_it() -> tuple[Popen, set[str]]:
        # One that ignores SIGTERM, and has started another that left its session.
        stubborn = "trap '' TERM; setsid sleep 100 & echo ready; read never"
        argv = ["sh", "-c", stubborn]
        process = lab.popen("a", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process, namespaces_of(lab)

    with contextlib.suppress(error), lab:
        process, made = use_it()
        assert made <= namespaces_in_use()
        raise error
    assert process.returncode == -signal.SIGKILL
    assert not made & namespaces_in_use()


def test_the_next_start_sweeps_what_a_killed_lab_left() -> None:
    program = (
        "import signal, subprocess; from preflight.lab.network import Lab;"
        "from preflight.lab.topology import LabNode;"
        f"lab = Lab([LabNode('a', ('{A4}',))]).__enter__();"
        "left = lab.popen('a', ['sleep', '100']); print(left.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        left = int(killed.stdout.readline())
        assert owner.sweep_leftovers() == 0, "its owner is alive"
        killed.kill()
        killed.wait()
    assert owner.start_time(left) is not None
    with Lab(NODES[:1]):
        assert owner.start_time(left) is None


def test_an_owner_is_known_by_more_than_its_number() -> None:
    own = owner.this_process()
    assert owner.read_owner(f"{own}.7") == own
    assert not owner.is_gone(own)
    assert owner.is_gone(owner.Owner(own.pid, own.started - 1, own.pid_namespace))
    assert not owner.is_gone(owner.Owner(own.pid, own.started - 1, own.pid_namespace + 1))
    assert owner.read_owner("nobody") is None


def test_the_way_in_is_the_one_that_this_user_has() -> None:
    assert how_isolated() == ("root" if os.geteuid() == 0 else "user-namespace")
