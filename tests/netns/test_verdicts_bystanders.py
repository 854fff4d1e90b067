"""Somebody whom the cluster does not know connects to the ports that are tried, all the time."""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.report import Cause
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

A, B, BYSTANDER = "10.77.1.11", "10.77.2.11", "10.77.3.11"
NODES = [LabNode("a", (A,)), LabNode("b", (B,)), LabNode("bystander", (BYSTANDER,))]
AT_ROUTER = "10.77.1.1"
OPEN_PORT, STALLED = 7000, 7003
IMPOSTORS = {7001: "silent", 7002: "close"}
PORTS = (OPEN_PORT, STALLED, *IMPOSTORS)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    with Lab(NODES) as lab:
        places = [f"{kind}:tcp:{AT_ROUTER}:{1000 + port}" for port, kind in IMPOSTORS.items()]
        start_strangers(lab, ROUTER, *places)
        start_strangers(lab, "bystander", *(f"knock:tcp:{B}:{port}" for port in PORTS))
        lab.plant(
            ROUTER,
            *(
                faults.redirect_here(Traffic("tcp", A, B, str(port)), port=1000 + port)
                for port in IMPOSTORS
            ),
            faults.stall(Traffic("tcp", A, B, str(STALLED))),
        )
        profile = profile_of({f"port-{port}": f"{port}/tcp" for port in PORTS})
        roles = {"a": ["source"], "b": ["destination"]}
        folder = tmp_path_factory.mktemp("bystanders")
        cluster = Cluster(lab, folder, roles, profile=profile)
        cluster.start_agents()
        yield cluster.run_check()


@pytest.mark.parametrize("port", IMPOSTORS)
def test_a_bystanders_connections_are_no_alibi_for_an_impostor(checked: Checked, port: int) -> None:
    flow = checked.flow("a", "b", "tcp", port)
    assert Told.by(flow) == intercepted(Cause.IMPOSTOR)
    assert flow.evidence.seen_by_destination is False


def test_what_is_true_of_the_other_ports_stays_true(checked: Checked) -> None:
    assert Told.by(checked.flow("a", "b", "tcp", OPEN_PORT)) == OPEN
    assert Told.by(checked.flow("a", "b", "tcp", STALLED)) == blocked(Cause.STALLED)
