"""Coordinators that are interrupted, killed, stopped, cut off, or not alone; agents that end.

In every case the agents let go of all their ports within 15 s, what was learned is not lost,
and nobody prints a traceback.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preflight.lab import faults
from preflight.lab.cluster import PREFLIGHT
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import DEFAULT_CONTROL_PORT
from preflight.model.report import Cause, Verdict
from tests.netns.harness import Checked, Cluster

A, B, C, OPS = "10.77.1.11", "10.77.2.11", "10.77.3.11", "10.77.9.11"
NODES = [LabNode("a", (A,)), LabNode("b", (B,)), LabNode("c", (C,)), LabNode("ops", (OPS,))]
FIRST, LAST, DROPPED = 7000, 7049, 7001
PROFILE = f"""
name = "lifecycle"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["{FIRST}-{LAST}/tcp", "7000/udp"]
why = "the test asks for it"
source = "tests"
"""
LET_GO = 15.0
"""Seconds within which an agent whose coordinator is gone holds no port (DESIGN 5)."""
AT_ONCE = 3.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(NODES) as lab:
        yield lab


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path) -> Iterator[Cluster]:
    """Agents on a, b and c; one port of b is silent, so that every run takes some seconds."""
    roles = {"a": ["source"], "b": ["destination"], "c": ["destination"]}
    cluster = Cluster(lab, tmp_path, roles, profile=PROFILE)
    cluster.where = "ops"
    lab.plant(ROUTER, faults.drop(Traffic("tcp", (), B, str(DROPPED))))
    cluster.start_agents()
    yield cluster
    for name, agent in cluster.agents.items():
        agent.send_signal(signal.SIGCONT)
        assert lab.end(agent) == 0
        assert "Traceback" not in cluster.log(name)
    lab.flush(ROUTER)


def begin(cluster: Cluster, *options: str) -> Popen:
    """A check that is in the middle of its probing, and has recorded what a saw of c."""
    run_file = cluster.folder / "run.jsonl"
    run_file.unlink(missing_ok=True)
    check = cluster.begin_check("--output", str(run_file), *options)
    wait_until(lambda: run_file.exists() and b'"line":"outcomes"' in run_file.read_bytes())
    assert held(cluster, "b") == set(range(FIRST, LAST + 1))
    return check


def held(cluster: Cluster, name: str) -> set[int]:
    """The plan's TCP ports on which somebody listens on a node (proc(5), net/tcp)."""
    assert isinstance(cluster.site, Lab)
    rows = cluster.site.run(name, ["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]
    listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
    ports = {int(address.rpartition(":")[2], 16) for address in listening}
    return ports & set(range(FIRST, LAST + 1))


def wait_until(true: Callable[[], bool], patience: float = LET_GO) -> float:
    """How long it took, in seconds; fails after `patience`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience, f"not within {patience} s"
        time.sleep(0.05)
    return time.monotonic() - began


def wait_until_free(cluster: Cluster, patience: float) -> None:
    """Until none of the agents holds a port of the plan."""
    wait_until(lambda: not any(held(cluster, name) for name in cluster.agents), patience)


def wait_for_line(check: Popen, words: str) -> None:
    assert check.stderr is not None
    assert any(words in line for line in check.stderr), f"check ended without {words!r}"


def all_but_the_dropped(checked: Checked) -> bool:
    """Whether a run was whole: only the planted fault is in its report."""
    wrong = [flow for flow in checked.all_flows if flow.verdict is not Verdict.OPEN]
    return [(flow.destination, flow.ports, flow.cause) for flow in wrong] == [
        ("b", str(DROPPED), Cause.NO_ANSWER)
    ]


def test_ctrl_c_prints_and_saves_what_was_learned(cluster: Cluster) -> None:
    checked = cluster.interrupt(begin(cluster))
    assert "Traceback" not in checked.stderr
    assert "stopping: what was learned is collected" in checked.stderr
    assert (checked.exit_code, checked.report and checked.report.interrupted) == (130, True)
    assert {flow.verdict for flow in checked.flows("a", "c")} == {Verdict.OPEN}
    dropped = checked.flow("a", "b", "tcp", DROPPED)
    assert (dropped.verdict, dropped.cause) == (Verdict.UNTESTED, Cause.SKIPPED)
    assert not any(held(cluster, name) for name in cluster.agents)
    again = diagnose(cluster)
    assert checked.report is not None
    assert len(again["flows"]) == checked.report.summary.records
    assert again["summary"]["flows"]["open"] == checked.report.summary.flows.open


def test_a_second_ctrl_c_quits_at_once(cluster: Cluster) -> None:
    check = begin(cluster)
    cluster.agents["b"].send_signal(signal.SIGSTOP)  # to collect takes as long as it may
    check.send_signal(signal.SIGINT)
    wait_for_line(check, "press Ctrl-C again")
    check.send_signal(signal.SIGINT)
    began = time.monotonic()
    checked = cluster.finish(check)
    assert time.monotonic() - began < AT_ONCE
    assert (checked.exit_code, checked.stdout) == (130, "")
    assert "Traceback" not in checked.stderr
    cluster.agents["b"].send_signal(signal.SIGCONT)
    wait_until_free(cluster, AT_ONCE)
    assert diagnose(cluster)["interrupted"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_are_as_ctrl_c(cluster: Cluster, number: signal.Signals) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored under nohup
    check = begin(cluster)
    signal.signal(signal.SIGHUP, before)
    check.send_signal(number)
    assert cluster.finish(check).exit_code == 130
    assert not any(held(cluster, name) for name in cluster.agents)


def test_a_killed_coordinator(cluster: Cluster) -> None:
    check = begin(cluster)
    check.kill()
    check.communicate()
    wait_until_free(cluster, LET_GO)
    report = diagnose(cluster)
    assert report["interrupted"] is True
    assert report["summary"]["flows"]["blocked"] == 0
    assert report["summary"]["flows"]["open"] >= LAST - FIRST + 1  # those of a -> c
    # And the agents are ready for the next.
    assert all_but_the_dropped(cluster.run_check())


def test_a_stopped_coordinator_loses_its_lease(cluster: Cluster) -> None:
    check = begin(cluster)
    check.send_signal(signal.SIGSTOP)
    wait_until_free(cluster, LET_GO)
    assert "nothing was heard of the coordinator for 10 s" in cluster.log("b")
    assert all_but_the_dropped(cluster.run_check())
    check.send_signal(signal.SIGCONT)
    late = cluster.finish(check)
    assert "Traceback" not in late.stderr
    # It learned nothing of b that it could call blocked: b was not its own any more.
    assert {flow.verdict for flow in late.flows("a", "b")} <= {Verdict.OPEN, Verdict.UNTESTED}


def test_two_coordinators_at_once(cluster: Cluster) -> None:
    first = begin(cluster)
    second = cluster.run_check()
    assert second.exit_code == 3
    assert "Traceback" not in second.stderr
    assert second.report is not None
    assert {agent.state for agent in second.report.agents} == {"refused"}
    for agent in second.report.agents:
        assert f"(pid {first.pid}) holds this agent since" in agent.detail
    assert {flow.cause for flow in second.all_flows} == {Cause.AGENT_REFUSED}
    assert held(cluster, "b") == set(range(FIRST, LAST + 1))
    undisturbed = cluster.finish(first)
    assert undisturbed.exit_code == 1
    assert all_but_the_dropped(undisturbed)


def test_a_router_that_drops_the_control_connection(lab: Lab, cluster: Cluster) -> None:
    check = begin(cluster)
    port = str(DEFAULT_CONTROL_PORT)
    lab.plant(ROUTER, faults.drop(Traffic("tcp", (), B, port)))
    began = time.monotonic()
    checked = cluster.finish(check)
    assert time.monotonic() - began < 20
    assert checked.exit_code == 3
    assert "Traceback" not in checked.stderr
    assert {flow.verdict for flow in checked.flows("a", "c")} == {Verdict.OPEN}
    dropped = checked.flow("a", "b", "tcp", DROPPED)
    assert (dropped.verdict, dropped.cause) == (Verdict.UNTESTED, Cause.AGENT_LOST)
    wait_until(lambda: not held(cluster, "b"), LET_GO)


def test_sigterm_ends_an_agent_with_everything_it_held(cluster: Cluster) -> None:
    check = begin(cluster)
    began = time.monotonic()
    assert cluster.stop_agent("b") == 0
    assert time.monotonic() - began < AT_ONCE
    assert not held(cluster, "b")
    assert cluster.log("b").rstrip().endswith("stopping")
    checked = cluster.finish(check)
    assert checked.exit_code == 3
    assert checked.flow("a", "b", "tcp", DROPPED).cause is Cause.AGENT_LOST
    assert {flow.verdict for flow in checked.flows("a", "c")} == {Verdict.OPEN}


def diagnose(cluster: Cluster) -> dict[str, Any]:
    """What `preflight diagnose` says of the run file."""
    lab = cluster.site
    assert isinstance(lab, Lab)
    file = str(cluster.folder / "run.jsonl")
    done = lab.run("ops", [*PREFLIGHT, "diagnose", file, "--format", "json"], check=False)
    assert done.returncode in {0, 1, 3}, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report
