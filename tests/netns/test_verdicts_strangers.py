"""Somebody else answers, or the connection is cut: one check, a fault on each port.

b and c listen on the same ports, so that whoever is led from one to the other meets an agent.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol
from preflight.model.report import Cause, Where
from tests.netns.harness import (
    OPEN,
    Checked,
    Cluster,
    Told,
    blocked,
    intercepted,
    profile_of,
    start_strangers,
)

A, B, C = "10.77.1.11", "10.77.2.11", "10.77.3.11"
NODES = [LabNode("a", (A,)), LabNode("b", (B,)), LabNode("c", (C,))]
AT_ROUTER, TOWARDS_B = "10.77.1.1", "10.77.2.1"

OPEN_PORT = 7000
FOREIGN = {
    # the port asked, and who answers there on the router
    7010: "tls",
    7011: "silent",
    7012: "close",
    7013: "reset",
    7014: "banner",
    7015: "echo",
}
ON_DESTINATION, ON_SOURCE, NOBODY = 7020, 7021, 7022
"""A redirect to another program there; a DNAT to where nobody listens."""
OTHER_NODE, OTHER_PORT, OTHER_PORT_BY_ITSELF = 7030, 7031, 7032
OTHER_NODE_STALLED, OTHER_NODE_HIDDEN, OTHER_NODE_HIDDEN_STALLED = 7033, 7034, 7035
STALLED, ANSWERS_STALLED, CUT, CUT_BY_DESTINATION, ONLY_SYNS = 7040, 7041, 7042, 7043, 7044
HIDDEN, HIDDEN_STALLED, HIDDEN_CUT, HIDDEN_ANSWERS_STALLED = 7050, 7051, 7052, 7053
PORTS = [
    *(OPEN_PORT, *FOREIGN, ON_DESTINATION, ON_SOURCE, NOBODY, OTHER_NODE, OTHER_PORT),
    *(OTHER_PORT_BY_ITSELF, OTHER_NODE_STALLED, OTHER_NODE_HIDDEN, OTHER_NODE_HIDDEN_STALLED),
    *(STALLED, ANSWERS_STALLED, CUT, CUT_BY_DESTINATION, ONLY_SYNS),
    *(HIDDEN, HIDDEN_STALLED, HIDDEN_CUT, HIDDEN_ANSWERS_STALLED),
]
NOT_ARRIVED = {Where.SOURCE_EGRESS, Where.FORWARD_PATH, Where.DESTINATION_HOST}
NOT_RETURNED = {Where.DESTINATION_HOST, Where.RETURN_PATH, Where.SOURCE_INGRESS}


def to_b(port: int, protocol: Protocol = "tcp") -> Traffic:
    return Traffic(protocol, (), B, str(port))


def cut(traffic: Traffic, hook: faults.Hook = "forward") -> str:
    """Connections are made, and reset as soon as data is sent."""
    return faults.reject(traffic, TCP_RESET, hook=hook).replace(
        "counter", f"meta length > {faults.HANDSHAKE_BYTES} counter"
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    """The one check."""
    with Lab(NODES) as lab:
        plant_foreign(lab)
        plant_other_nodes(lab)
        plant_cuts(lab)
        profile = profile_of({f"port-{port}": f"{port}/tcp {port}/udp" for port in PORTS})
        roles = {"a": ["source"], "b": ["destination"], "c": ["destination"]}
        folder = tmp_path_factory.mktemp("strangers")
        cluster = Cluster(lab, folder, roles, profile=profile)
        cluster.start_agents()
        yield cluster.run_check()


def plant_foreign(lab: Lab) -> None:
    places = [f"{kind}:tcp:{AT_ROUTER}:{1000 + port}" for port, kind in FOREIGN.items()]
    start_strangers(lab, ROUTER, *places, f"echo:udp:{AT_ROUTER}:{1000 + min(FOREIGN)}")
    lab.plant(
        ROUTER,
        *(faults.redirect_here(to_b(port), port=1000 + port) for port in FOREIGN),
        faults.redirect_here(to_b(min(FOREIGN), "udp"), port=1000 + min(FOREIGN)),
    )
    start_strangers(lab, "b", f"banner:tcp:{B}:8020")
    lab.plant("b", faults.redirect_here(to_b(ON_DESTINATION), port=8020))
    start_strangers(lab, "a", "banner:tcp:127.0.0.1:8021")
    lab.plant("a", faults.redirect_here(to_b(ON_SOURCE), port=8021, hook="output"))
    lab.plant(ROUTER, faults.redirect(to_b(NOBODY), address=C, port=9))


def plant_other_nodes(lab: Lab) -> None:
    for protocol in ("tcp", "udp"):
        lab.plant(
            ROUTER,
            faults.redirect(to_b(OTHER_NODE, protocol), address=C),
            faults.redirect(to_b(OTHER_PORT, protocol), address=B, port=OPEN_PORT),
            faults.redirect(to_b(OTHER_NODE_HIDDEN, protocol), address=C),
            faults.masquerade(Traffic(protocol, A, C, str(OTHER_NODE_HIDDEN))),
        )
        lab.plant("b", faults.redirect_here(to_b(OTHER_PORT_BY_ITSELF, protocol), port=OPEN_PORT))
    for port in (OTHER_NODE_STALLED, OTHER_NODE_HIDDEN_STALLED):
        lab.plant(ROUTER, faults.redirect(to_b(port), address=C))
    # Only what was led to c: the rules look at the address after its translation, and c's own
    # connections are told from these by the one that was asked before it.
    ports = f"{{ {OTHER_NODE_STALLED}, {OTHER_NODE_HIDDEN_STALLED} }}"
    led = f"ct original ip daddr {B} tcp dport {ports}"
    stall = f"{led} meta length > {faults.HANDSHAKE_BYTES} counter drop"
    lab.plant(ROUTER, f"{{\ntype filter hook forward priority filter; policy accept;\n{stall}\n}}")
    hidden = f"ct original ip daddr {B} tcp dport {OTHER_NODE_HIDDEN_STALLED} masquerade"
    lab.plant(
        ROUTER, f"{{\ntype nat hook postrouting priority srcnat; policy accept;\n{hidden}\n}}"
    )


def plant_cuts(lab: Lab) -> None:
    # A firewall that lets new connections through, and forgot the established ones.
    only_syns = faults.drop(to_b(ONLY_SYNS)).replace("counter", "tcp flags & syn == 0 counter")
    lab.plant(ROUTER, only_syns)
    lab.plant("b", cut(to_b(CUT_BY_DESTINATION), hook="input"))
    lab.plant(
        ROUTER,
        *(faults.stall(to_b(port)) for port in (STALLED, HIDDEN_STALLED)),
        *(
            faults.stall(to_b(port), way="back")
            for port in (ANSWERS_STALLED, HIDDEN_ANSWERS_STALLED)
        ),
        *(cut(to_b(port)) for port in (CUT, HIDDEN_CUT)),
        faults.masquerade(Traffic("tcp", A, B, f"{HIDDEN}-{HIDDEN_ANSWERS_STALLED}")),
        faults.masquerade(Traffic("udp", A, B, str(HIDDEN))),
    )


@pytest.mark.parametrize("port", FOREIGN)
def test_foreign_programs_on_the_way_are_impostors(checked: Checked, port: int) -> None:
    assert Told.by(checked.flow("a", "b", "tcp", port)) == intercepted(Cause.IMPOSTOR)


def test_a_foreign_answer_to_a_datagram_is_an_impostors(checked: Checked) -> None:
    flow = checked.flow("a", "b", "udp", min(FOREIGN))
    assert Told.by(flow) == intercepted(Cause.IMPOSTOR), flow


@pytest.mark.parametrize("port", [ON_DESTINATION, ON_SOURCE])
def test_foreign_programs_on_either_host_are_impostors(checked: Checked, port: int) -> None:
    flow = checked.flow("a", "b", "tcp", port)
    assert Told.by(flow) == intercepted(Cause.IMPOSTOR)
    assert bytes.fromhex(flow.evidence.first_bytes or "").startswith(b"SSH-2.0")


def test_a_redirect_to_nowhere_is_a_reset(checked: Checked) -> None:
    assert Told.by(checked.flow("a", "b", "tcp", NOBODY)) == blocked(Cause.RESET)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("port", [OTHER_NODE, OTHER_NODE_HIDDEN])
def test_another_agent_is_the_wrong_node(checked: Checked, protocol: Protocol, port: int) -> None:
    flow = checked.flow("a", "b", protocol, port)
    assert Told.by(flow) == intercepted(Cause.WRONG_NODE)
    assert flow.evidence.answered_by == "c"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("port", [OTHER_PORT, OTHER_PORT_BY_ITSELF])
def test_another_port_of_the_node_is_an_impostor(
    checked: Checked, protocol: Protocol, port: int
) -> None:
    assert Told.by(checked.flow("a", "b", protocol, port)) == intercepted(Cause.IMPOSTOR)


@pytest.mark.parametrize("port", [OTHER_NODE_STALLED, OTHER_NODE_HIDDEN_STALLED])
def test_another_node_that_never_got_the_challenge(checked: Checked, port: int) -> None:
    # Nobody can say who it was, but b says that it was not b.
    flow = checked.flow("a", "b", "tcp", port)
    assert flow.verdict == "intercepted"
    assert flow.evidence.seen_by_destination is False


@pytest.mark.parametrize(
    ("port", "possible"),
    [
        (STALLED, NOT_ARRIVED),
        (HIDDEN_STALLED, NOT_ARRIVED),
        (ANSWERS_STALLED, NOT_RETURNED),
        (HIDDEN_ANSWERS_STALLED, NOT_RETURNED),
    ],
)
def test_silence_after_the_handshake_is_stalled(
    checked: Checked, port: int, possible: set[Where]
) -> None:
    flow = checked.flow("a", "b", "tcp", port)
    assert Told.by(flow) == blocked(Cause.STALLED)
    assert {*flow.evidence.where_possible} == possible
    assert flow.evidence.seen_by_destination is True


def test_a_handshake_that_only_its_syn_gets_through_is_no_impostors(checked: Checked) -> None:
    flow = checked.flow("a", "b", "tcp", ONLY_SYNS)
    assert Told.by(flow) == blocked(Cause.STALLED)
    assert {*flow.evidence.where_possible} == NOT_ARRIVED
    assert flow.evidence.seen_by_destination is False


@pytest.mark.parametrize("port", [CUT, CUT_BY_DESTINATION, HIDDEN_CUT])
def test_a_reset_after_the_handshake_is_closed(checked: Checked, port: int) -> None:
    flow = checked.flow("a", "b", "tcp", port)
    assert Told.by(flow) == blocked(Cause.CLOSED)
    assert flow.evidence.seen_by_destination is True


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_masquerading_is_open_and_told_of(checked: Checked, protocol: Protocol) -> None:
    flow = checked.flow("a", "b", protocol, HIDDEN)
    assert Told.by(flow) == OPEN
    assert flow.observed_source == TOWARDS_B
    assert "nat-observed" in checked.finding_codes()


def test_everything_else_is_open(checked: Checked) -> None:
    faulty = {("a", "b", "tcp", port) for port in PORTS} - {("a", "b", "tcp", OPEN_PORT)}
    udp = (min(FOREIGN), OTHER_NODE, OTHER_NODE_HIDDEN, OTHER_PORT, OTHER_PORT_BY_ITSELF)
    faulty |= {("a", "b", "udp", port) for port in udp}
    found = [one for one in checked.surprises({}) if not any(str(f) in one for f in faulty)]
    assert found == []
