"""Packet loss, at random, on flows that work and on flows that don't.

A working flow may be open, degraded, or untested because of loss; never blocked and never
intercepted. A dropped one may be untested; never open.
"""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import TCP_RESET, Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol
from preflight.model.report import Cause, FlowRecord, Verdict
from tests.netns.harness import OPEN, Checked, Cluster, Told, profile_of, untested

NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(("a", "d1", "d2", "d3", "d4"), start=1)
]
CLEAN, LOSSY_THERE, LOSSY_BOTH, LOSSY_BACK = (node.addresses for node in NODES[1:])
DROPPED, RESET = 6000, 6001
# The control connections of the run itself go without loss: they are not what is tested.
PORTS: list[tuple[Protocol, str]] = [("tcp", "1-10887,10889-65535"), ("udp", "1-65535")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    rules = {
        "one": "7000/tcp",
        "datagrams": "8472/udp 8285/udp",
        "range": "30000-30299/tcp",
        "dropped": f"{DROPPED}/tcp {DROPPED}/udp",
        "reset": f"{RESET}/tcp",
    }
    roles = {"a": ["source"]} | {node.name: ["destination"] for node in NODES[1:]}
    with Lab(NODES) as lab:
        folder = tmp_path_factory.mktemp("loss")
        cluster = Cluster(lab, folder, roles, profile=profile_of(rules))
        cluster.start_agents()
        yield lab, cluster


def check_with_loss(lab: Lab, cluster: Cluster, percent: int) -> Checked:
    ways: list[tuple[tuple[str, ...], faults.Way]] = [
        (LOSSY_THERE, "there"),
        (LOSSY_BOTH, "both"),
        (LOSSY_BACK, "back"),
    ]
    lab.plant(
        ROUTER,
        *(
            faults.loss(Traffic(protocol, (), address, ports), percent, way=way)
            for address, way in ways
            for protocol, ports in PORTS
        ),
        faults.drop(Traffic("tcp", ports=str(DROPPED))),
        faults.drop(Traffic("udp", ports=str(DROPPED))),
        faults.reject(Traffic("tcp", ports=str(RESET)), TCP_RESET),
    )
    checked = cluster.run_check()
    lab.flush(ROUTER)
    return checked


def is_told_truly(flow: FlowRecord) -> bool:
    blocked = {
        "dropped": {("blocked", Cause.NO_ANSWER), ("untested", Cause.LOSS)},
        "reset": {("blocked", Cause.RESET), ("untested", Cause.LOSS)},
    }
    working = {("open", None), ("degraded", Cause.LOSS), ("untested", Cause.LOSS)}
    if flow.destination == "d1":
        working = {("open", None)}
        blocked = {name: {min(told)} for name, told in blocked.items()}
    return (flow.verdict, flow.cause) in blocked.get(flow.rule, working)


@pytest.mark.parametrize("percent", [50, 20, 5])
def test_no_working_flow_is_called_broken(shared: tuple[Lab, Cluster], percent: int) -> None:
    checked = check_with_loss(*shared, percent)
    assert [flow for flow in checked.all_flows if not is_told_truly(flow)] == []
    lossy = [flow for flow in checked.flows("a", "d3") if flow.rule == "range"]
    assert "degraded" in {flow.verdict for flow in lossy}


def test_single_ports_have_little_to_go_by(shared: tuple[Lab, Cluster]) -> None:
    # Nothing else is asked that would tell of the loss.
    lab, cluster = shared
    cluster.reshape(profile=profile_of({"one": "7000/tcp"}))
    everybody = Traffic("tcp", (), (), "7000")
    table = lab.plant(ROUTER, faults.loss(everybody, 50, way="both"))
    told = {Told.by(flow) for _ in range(3) for flow in cluster.run_check().all_flows}
    lab.flush(ROUTER, table)
    assert told <= {OPEN, Told(Verdict.DEGRADED, Cause.LOSS, ok=True), untested(Cause.LOSS)}


def test_a_source_that_denies_some_of_its_own_datagrams(shared: tuple[Lab, Cluster]) -> None:
    # The kernel says EPERM for each one of them, and the next one leaves.
    lab, cluster = shared
    cluster.reshape(profile=profile_of({"range": "31000-31299/udp", "one": "8472/udp"}))
    everybody = Traffic("udp", (), (), "8472,31000-31299")
    table = lab.plant("a", faults.loss(everybody, 50, hook="output"))
    told = {Told.by(flow) for flow in cluster.run_check("--to", "d1").all_flows}
    lab.flush("a", table)
    assert Told(Verdict.DEGRADED, Cause.LOSS, ok=True) in told
    assert told <= {OPEN, Told(Verdict.DEGRADED, Cause.LOSS, ok=True)}
