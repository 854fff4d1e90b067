"""Virtual addresses: the router balances them over m1 and m2, or over nothing.

One check: each VIP has its own trouble, in both families.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.lab import faults
from preflight.lab.cluster import ClusterVip
from preflight.lab.faults import Traffic
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
    intercepted,
    start_strangers,
)

NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(("a", "m1", "m2", "m3", "out"), start=1)
]
A, M1, M2, M3, OUT = (node.addresses for node in NODES)
TROUBLES = (
    *("works", "one-dead", "all-dead", "refused", "dropped", "closes", "silent", "banner"),
    *("elsewhere", "rejected", "stalled", "half-silent", "one-elsewhere"),
)
VIPS = {name: (f"10.77.100.{n}", f"fd77:100::{n}") for n, name in enumerate(TROUBLES, start=1)}


def plant(lab: Lab) -> None:
    start_strangers(
        lab,
        "out",
        *(
            f"{kind}:tcp:{address}:{port}"
            for address in OUT
            for kind, port in (("close", 7101), ("silent", 7102), ("banner", 7103))
        ),
    )
    chains: list[str] = []
    for n in (0, 1):
        vip = {name: addresses[n] for name, addresses in VIPS.items()}

        def to(name: str, address: str, port: int, vip: dict[str, str] = vip) -> str:
            traffic = Traffic("tcp", (), vip[name], "6443")
            return faults.redirect(traffic, address=address, port=port)

        for name in ("works", "one-dead", "half-silent", "stalled", "all-dead"):
            chains += faults.balance(vip[name], 6443, [M1[n], M2[n]])
        chains += faults.balance(vip["one-elsewhere"], 6443, [M1[n], M3[n]])
        chains += [
            to("closes", OUT[n], 7101),
            to("silent", OUT[n], 7102),
            to("banner", OUT[n], 7103),
            to("refused", OUT[n], 7999),
            to("elsewhere", M3[n], 6443),
            faults.drop(Traffic("tcp", (), vip["dropped"], "6443")),
            faults.reject(Traffic("tcp", (), vip["rejected"], "6443"), "admin-prohibited"),
        ]
    lab.plant(ROUTER, *chains)
    for n, word in enumerate(("ip", "ip6")):
        to_vip = {name: f"ct original {word} daddr {VIPS[name][n]}" for name in TROUBLES}
        rules = "\n".join(
            (
                f"{to_vip['one-dead']} {word} daddr {M1[n]} tcp flags syn reject with tcp reset",
                f"{to_vip['all-dead']} tcp flags syn reject with tcp reset",
                f"{to_vip['half-silent']} {word} daddr {M1[n]} drop",
                f"{to_vip['stalled']} ct direction original meta length > 120 drop",
            )
        )
        head = "type filter hook forward priority filter; policy accept;"
        lab.plant(ROUTER, f"{{\n{head}\n{rules}\n}}")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    """The one check."""
    profile = """
name = "vips"
[rules.api]
from = ["source"]
to = ["vip"]
ports = ["6443/tcp"]
why = "the test asks for it"
source = "tests"
[rules.direct]
from = ["source"]
to = ["other", "backend"]
ports = ["6443/tcp"]
why = "so that its agent holds the port"
source = "tests"
"""
    vips = [
        ClusterVip(f"{name}-{6 if ':' in address else 4}", address, 6443, "backend", ("source",))
        for name, addresses in VIPS.items()
        for address in addresses
    ]
    roles = {"a": ["source"], "m1": ["backend"], "m2": ["backend"], "m3": ["other"]}
    with Lab(NODES) as lab:
        for address in (address for addresses in VIPS.values() for address in addresses):
            lab.add_route(ROUTER, address, via=OUT[":" in address])
        plant(lab)
        folder = tmp_path_factory.mktemp("vips")
        cluster = Cluster(lab, folder, roles, profile=profile, vips=vips)
        cluster.start_agents()
        yield cluster.run_check()


EXPECTED = {
    "works": OPEN,
    "one-dead": OPEN,
    "half-silent": OPEN,
    "all-dead": blocked(Cause.RESET),
    "refused": blocked(Cause.RESET),
    "dropped": blocked(Cause.NO_ANSWER),
    "closes": blocked(Cause.NO_BACKEND),
    "silent": blocked(Cause.STALLED),
    "stalled": blocked(Cause.STALLED),
    "banner": intercepted(Cause.IMPOSTOR),
    "elsewhere": intercepted(Cause.WRONG_NODE),
    "one-elsewhere": intercepted(Cause.WRONG_NODE),
}


@pytest.mark.parametrize("family", [4, 6])
class TestEach:
    """In each family."""

    @pytest.mark.parametrize("name", EXPECTED)
    def test_vip(self, checked: Checked, family: Family, name: str) -> None:
        assert Told.by(checked.flow("a", f"{name}-{family}")) == EXPECTED[name]

    def test_a_refusal_names_the_router(self, checked: Checked, family: Family) -> None:
        router = "10.77.1.1" if family == 4 else "fd77:1::1"
        assert Told.by(checked.flow("a", f"rejected-{family}")) == blocked(
            Cause.ICMP_ADMIN_PROHIBITED, Where.FORWARD_PATH, reported_by=router
        )

    @pytest.mark.parametrize(
        ("name", "backends"),
        [("works", {"m1", "m2"}), ("one-dead", {"m2"}), ("half-silent", {"m2"})],
    )
    def test_backends_are_counted(
        self, checked: Checked, family: Family, name: str, backends: set[str]
    ) -> None:
        counted = checked.flow("a", f"{name}-{family}").backends or {}
        assert {*counted} == backends
        assert min(counted.values()) > 1

    def test_what_was_seen_of_stalled_connections(self, checked: Checked, family: Family) -> None:
        for name, seen in (("silent", False), ("stalled", True)):
            evidence = checked.flow("a", f"{name}-{family}").evidence
            assert evidence.seen_by_destination is seen

    def test_the_nodes_themselves_are_open(self, checked: Checked, family: Family) -> None:
        for name in ("m1", "m2", "m3"):
            assert Told.by(checked.flow("a", name, family=family)) == OPEN


@pytest.mark.parametrize("name", ["one-dead", "half-silent"])
def test_a_dead_backend_makes_a_vip_unsteady(checked: Checked, name: str) -> None:
    assert checked.report is not None
    told = [one for one in checked.report.findings if one.code == "vip-unsteady"]
    unsteady = {checked.all_flows[number].destination for one in told for number in one.flows}
    assert {f"{name}-4", f"{name}-6"} <= unsteady
    assert not {"works-4", "works-6"} & unsteady


def test_findings(checked: Checked) -> None:
    assert {"vip-unsteady", "no-backend"} <= checked.finding_codes()
    assert checked.exit_code == 1


def test_a_balancer_on_a_backends_own_host(tmp_path: Path) -> None:
    """It holds the VIP there; its host's agent and the other backend's hold their addresses."""
    vip = "10.77.100.99"
    nodes = [LabNode(name, (f"10.77.{n}.11",)) for n, name in enumerate(("a", "m1", "m2"), start=1)]
    roles = {"a": ["source"], "m1": ["backend"], "m2": ["backend"]}
    with Lab(nodes) as lab:
        lab.add_address("m1", vip)
        lab.add_route(ROUTER, vip, via=M1[0])
        start_strangers(lab, "m1", f"close:tcp:{vip}:6443")
        vips = [ClusterVip("api", vip, 6443, "backend", ("source",))]
        cluster = Cluster(lab, tmp_path, roles, vips=vips)
        cluster.start_agents()
        checked = cluster.run_check()
    assert Told.by(checked.flow("a", "api")) == blocked(Cause.NO_BACKEND)
    assert {"no-backend", "port-occupied"} <= checked.finding_codes()
