"""Rules with `expect = "blocked"`: what keeps them, what breaks them, and what tells nothing."""

from collections.abc import Iterator

import pytest

from preflight.lab import faults
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import Protocol
from preflight.model.report import Cause, Verdict
from tests.netns.harness import OPEN, Checked, Cluster, Told

NODES = [LabNode(name, (f"10.77.{number}.11",)) for number, name in enumerate(("a", "b"), start=1)]
PROFILE = """
name = "exposure"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000/tcp"]
why = "so that connections are made"
source = "tests"
[rules.closed]
from = ["source"]
to = ["destination"]
ports = ["9000-9002/tcp", "9000-9002/udp"]
expect = "blocked"
why = "the test asks for it"
source = "tests"
"""
DROPPED_ON_THE_WAY, NEVER_LEFT, EXPOSED = 9000, 9001, 9002
BOTH: tuple[Protocol, ...] = ("tcp", "udp")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    with Lab(NODES) as lab:
        for one in BOTH:
            lab.plant(ROUTER, faults.drop(Traffic(one, ports=str(DROPPED_ON_THE_WAY))))
            lab.plant("a", faults.drop(Traffic(one, ports=str(NEVER_LEFT)), hook="output"))
        roles = {"a": ["source"], "b": ["destination"]}
        folder = tmp_path_factory.mktemp("exposure")
        cluster = Cluster(lab, folder, roles, profile=PROFILE)
        cluster.start_agents()
        yield cluster.run_check()


@pytest.mark.parametrize("protocol", BOTH)
def test_a_firewall_on_the_way_keeps_the_rule(checked: Checked, protocol: Protocol) -> None:
    flow = checked.flow("a", "b", protocol, DROPPED_ON_THE_WAY)
    assert (flow.verdict, flow.cause, flow.ok) == (Verdict.BLOCKED, Cause.NO_ANSWER, True)


@pytest.mark.parametrize("protocol", BOTH)
def test_the_sources_own_firewall_says_nothing_of_the_way(
    checked: Checked, protocol: Protocol
) -> None:
    flow = checked.flow("a", "b", protocol, NEVER_LEFT)
    assert flow.verdict == "blocked"
    assert flow.ok is None


@pytest.mark.parametrize("protocol", BOTH)
def test_an_open_port_breaks_it(checked: Checked, protocol: Protocol) -> None:
    flow = checked.flow("a", "b", protocol, EXPOSED)
    assert (flow.verdict, flow.ok) == ("open", False)
    assert checked.exit_code == 1
    assert Told.by(checked.flow("a", "b", "tcp", 7000)) == OPEN
