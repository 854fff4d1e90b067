"""Agents that are missing, foreign, old, starved or dying: each costs its own flows, and no more.

Three nodes behind a router: a must reach b and c. Something is wrong with b, and whatever it
is, c's flow is open, b's is untested with a reason, nothing is called blocked, and nobody
prints a traceback.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from preflight.lab import faults
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import DEFAULT_CONTROL_PORT
from preflight.model.report import AgentRecord, Cause, Verdict
from tests.netns.harness import Checked, Cluster

A, B, C, OPS = "10.77.1.11", "10.77.2.11", "10.77.3.11", "10.77.9.11"
NODES = [LabNode("a", (A,)), LabNode("b", (B,)), LabNode("c", (C,)), LabNode("ops", (OPS,))]
PORTS = "7000-7199/tcp"
PROFILE = f"""
name = "bad-day"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["{PORTS}", "7000/udp", "80/tcp"]
why = "the test asks for it"
source = "tests"
"""
FLOWS_OF_ONE = 202
EXPIRED = (
    "import datetime as d; from preflight.net import certificates as c;"
    "c._VALID_FROM, c._VALID_UNTIL = d.datetime(2001, 1, 1), d.datetime(2002, 1, 1)"
)
THREE_YEARS = 3 * 365 * 86_400


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(NODES) as lab:
        yield lab


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path) -> Iterator[Cluster]:
    """No agent runs yet. Afterwards: none had anything worse to tell than a sentence."""
    roles = {"a": ["source"], "b": ["destination"], "c": ["destination"]}
    cluster = Cluster(lab, tmp_path, roles, profile=PROFILE)
    cluster.where = "ops"
    yield cluster
    for name, agent in cluster.agents.items():
        agent.send_signal(signal.SIGCONT)
        lab.end(agent)
        assert "Traceback" not in cluster.log(name)
    lab.flush(ROUTER)


def run_as(cluster: Cluster, name: str, argv: Sequence[str]) -> None:
    """Start a node's agent in another way than `preflight serve`."""
    with (cluster.folder / f"{name}.log").open("ab") as log:
        cluster.agents[name] = cluster.site.popen(name, argv, stdout=log, stderr=log)
    cluster.wait_for_agent(name)


def changed_serve(cluster: Cluster, change: str) -> list[str]:
    """The real `serve`, in a process in which one line of Python was run before."""
    program = f"{change}; from preflight.cli.app import main; main()"
    return [sys.executable, "-c", program, "serve", "--key-file", str(cluster.agent_key)]


def serve(cluster: Cluster) -> list[str]:
    return [sys.executable, "-m", "preflight", "serve", "--key-file", str(cluster.agent_key)]


@contextmanager
def at_phase(check: Popen, words: str) -> Iterator[None]:
    """Go on as soon as a check says on stderr that it is there."""
    assert check.stderr is not None
    for line in check.stderr:
        if words in line:
            yield
            return
    raise AssertionError(f"check ended without {words!r}")


def agent_of(checked: Checked, name: str) -> AgentRecord:
    assert checked.report is not None, checked.stderr
    return next(agent for agent in checked.report.agents if agent.node == name)


def costs_only_its_own(checked: Checked, cause: Cause, *, proven_before: bool = False) -> str:
    """Check the report of a run in which only b was not as it should; b's detail."""
    assert "Traceback" not in checked.stderr
    assert checked.exit_code == 3, checked.stderr
    assert {flow.verdict for flow in checked.flows("a", "c")} == {Verdict.OPEN}
    assert checked.flow("a", "c", "udp").verdict is Verdict.OPEN
    allowed = {(Verdict.UNTESTED, cause)} | ({(Verdict.OPEN, None)} if proven_before else set())
    flows = [*checked.flows("a", "b"), *checked.flows("a", "b", "udp")]
    assert (Verdict.UNTESTED, cause) in {(flow.verdict, flow.cause) for flow in flows}
    assert {(flow.verdict, flow.cause) for flow in flows} <= allowed
    assert all(flow.detail for flow in flows)
    return agent_of(checked, "b").detail


def test_a_missing_agent(cluster: Cluster) -> None:
    cluster.start_agents(without=["b"])
    detail = costs_only_its_own(cluster.run_check(), Cause.AGENT_UNREACHABLE)
    assert f"connection to {B}:{DEFAULT_CONTROL_PORT} was refused" in detail
    assert "preflight serve" in detail


def test_an_agent_with_another_clusters_key(cluster: Cluster) -> None:
    cluster.start_agents(without=["b"])
    cluster.make_key(cluster.folder / "other.key")
    cluster.start_agent("b", key_file=cluster.folder / "other.agent.key")
    detail = costs_only_its_own(cluster.run_check(), Cause.AGENT_REFUSED)
    assert "another key file" in detail
    assert "another cluster's key" in cluster.log("b")


@pytest.mark.parametrize(
    "change",
    [
        "m.WIRE_VERSION = 2",
        # It can't even read the greeting.
        "import msgspec; m._agent_decoder = msgspec.msgpack.Decoder(m.Beat)",
    ],
)
def test_an_agent_of_another_version(cluster: Cluster, change: str) -> None:
    cluster.start_agents(without=["b"])
    run_as(cluster, "b", changed_serve(cluster, f"import preflight.wire.messages as m; {change}"))
    detail = costs_only_its_own(cluster.run_check(), Cause.AGENT_REFUSED)
    assert "install the same version on both" in detail


def test_clocks_and_certificates_of_other_years_do_not_matter(cluster: Cluster) -> None:
    for file in (cluster.folder / "cluster.key", cluster.agent_key):
        file.unlink()
    write = f"{EXPIRED}; from preflight.cli.app import main; main()"
    key = [sys.executable, "-c", write, "key", "--out", str(cluster.folder / "cluster.key")]
    subprocess.run(key, check=True, capture_output=True)
    cluster.start_agents(without=["b"])
    late = f"import time; now = time.time; time.time = lambda: now() - {THREE_YEARS}"
    run_as(cluster, "b", changed_serve(cluster, late))
    checked = cluster.run_check()
    assert checked.exit_code == 0, checked.stderr
    offset = agent_of(checked, "b").clock_offset_ms
    assert offset == pytest.approx(-THREE_YEARS * 1000, abs=10_000)
    assert agent_of(checked, "c").clock_offset_ms == pytest.approx(0, abs=10_000)


def test_an_agent_with_too_few_descriptors(cluster: Cluster) -> None:
    cluster.start_agents(without=["b"])
    run_as(cluster, "b", ["prlimit", "--nofile=150:150", *serve(cluster)])
    detail = costs_only_its_own(cluster.run_check(), Cause.AGENT_REFUSED)
    assert re.search(r"holding 202 ports needs \d{3} open files", detail)
    assert "150" in detail
    # Its next coordinator finds it free.
    assert "holding 202 ports" in agent_of(cluster.run_check(), "b").detail


def test_an_agent_without_privilege(lab: Lab, cluster: Cluster) -> None:
    """Port 80 it may not bind where the kernel reserves it; everything else it does."""
    lab.set_sysctl("b", "net.ipv4.ip_unprivileged_port_start", "1024")
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    cluster.start_agents(without=["b"])
    run_as(cluster, "b", [*bare, *serve(cluster)])
    checked = cluster.run_check()
    assert checked.exit_code == 3, checked.stderr
    assert checked.flow("a", "b", "tcp", 80).cause is Cause.BIND_DENIED
    assert "CAP_NET_BIND_SERVICE" in checked.flow("a", "b", "tcp", 80).detail
    assert checked.flow("a", "b", "tcp", 7000).verdict is Verdict.OPEN
    assert checked.flow("a", "b", "udp", 7000).verdict is Verdict.OPEN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_nobody_can_check(lab: Lab, cluster: Cluster) -> None:
    cluster.start_agents()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # tmp_path is for its owner only
        for name in ("cluster.toml", "profile.toml", "cluster.key"):
            copy = folder / name
            copy.write_bytes((cluster.folder / name).read_bytes())
            os.chown(copy, 65534, 65534)
            copy.chmod(0o600)
        # Nobody may not write the file in which a measured process leaves its coverage.
        nobody = ["env", "--unset=COVERAGE_PROCESS_CONFIG", "--unset=COVERAGE_PROCESS_START"]
        nobody += ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        check = ["check", "--cluster", str(folder / "cluster.toml"), "--format", "json"]
        argv = [*nobody, sys.executable, "-m", "preflight", *check]
        done = lab.run("ops", argv, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_an_agent_killed_in_the_middle(lab: Lab, cluster: Cluster) -> None:
    lab.plant(ROUTER, faults.drop(Traffic("tcp", (), B, "7001")))  # there is something to wait for
    cluster.start_agents()
    check = cluster.begin_check()
    with at_phase(check, "probing"):
        cluster.kill_agent("b")
    detail = costs_only_its_own(cluster.finish(check), Cause.AGENT_LOST, proven_before=True)
    assert "the agent is gone" in detail


def test_an_agent_restarted_in_the_middle(lab: Lab, cluster: Cluster) -> None:
    """Its successor holds nothing: what it refuses says nothing about the network."""
    lab.plant(ROUTER, faults.drop(Traffic("tcp", (), B, "7001")))
    cluster.start_agents()
    check = cluster.begin_check()
    with at_phase(check, "probing"):
        cluster.kill_agent("b")
        cluster.start_agent("b")
    costs_only_its_own(cluster.finish(check), Cause.AGENT_LOST, proven_before=True)
    # It is nobody's, and ready for the next.
    lab.flush(ROUTER)
    assert cluster.run_check().exit_code == 0


def test_an_agent_that_is_stopped(cluster: Cluster) -> None:
    """Its kernel goes on completing handshakes: that is no proof of anything."""
    cluster.start_agents()
    check = cluster.begin_check()
    with at_phase(check, "probing"):
        cluster.agents["b"].send_signal(signal.SIGSTOP)
    checked = cluster.finish(check)
    costs_only_its_own(checked, Cause.AGENT_LOST, proven_before=True)
    assert checked.report is not None
    assert sum(phase.elapsed_ms for phase in checked.report.phases) < 25_000


def test_an_agent_that_stood_still_for_a_while(cluster: Cluster) -> None:
    """It is back in time to say that its listeners were up, and knows better."""
    cluster.start_agents()
    check = cluster.begin_check("--deadline", "5")
    with at_phase(check, "probing"):
        cluster.agents["b"].send_signal(signal.SIGSTOP)
    with at_phase(check, "asking what the listeners saw"):
        cluster.agents["b"].send_signal(signal.SIGCONT)
    checked = cluster.finish(check)
    costs_only_its_own(checked, Cause.AGENT_LOST, proven_before=True)
    assert agent_of(checked, "b").state == "ready"
    assert "agent-unsteady" in checked.finding_codes()


@pytest.mark.parametrize(
    "greeting", ["b''", "b'GET / HTTP/1.1\\r\\n\\r\\n'", "bytes([22, 3, 1, 2, 0]) + b'x' * 600"]
)
def test_strangers_at_the_control_port(lab: Lab, cluster: Cluster, greeting: str) -> None:
    """200 connections that never finish a handshake keep nobody out, and cost few descriptors."""
    cluster.start_agents(without=["b"])
    run_as(cluster, "b", ["prlimit", "--nofile=700:700", *serve(cluster)])
    crowd = (
        "import socket, sys\n"
        f"place = ('{B}', {DEFAULT_CONTROL_PORT})\n"
        "crowd = [socket.create_connection(place) for _ in range(200)]\n"
        f"for one in crowd:\n    try: one.sendall({greeting})\n    except OSError: pass\n"
        "print('there', flush=True)\nsys.stdin.read()\n"
    )
    strangers = lab.popen(
        "ops", [sys.executable, "-c", crowd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert strangers.stdout is not None
    assert strangers.stdout.readline() == "there\n"
    checked = cluster.run_check()
    lab.kill(strangers)
    assert checked.exit_code == 0, checked.stderr


def test_a_port_held_by_an_outgoing_connection(lab: Lab, cluster: Cluster) -> None:
    """A NodePort inside ip_local_port_range, taken as the near end of somebody's connection."""
    hold = (
        "import socket, sys\n"
        f"there = socket.create_server(('{B}', 9999))\n"
        "near = socket.socket()\n"
        f"near.bind(('{B}', 7000))\n"
        f"near.connect(('{B}', 9999))\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    holder = lab.popen(
        "b", [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    cluster.start_agents()
    checked = cluster.run_check()
    lab.kill(holder)
    flow = checked.flow("a", "b", "tcp", 7000)
    assert (checked.exit_code, flow.verdict, flow.cause) == (3, Verdict.UNTESTED, Cause.PORT_IN_USE)
    assert "outgoing connection" in (flow.evidence.owner or "")
    assert checked.flow("a", "b", "tcp", 7001).verdict is Verdict.OPEN


def test_secrets_are_in_no_log(cluster: Cluster) -> None:
    cluster.start_agents(without=["b"])
    run_as(cluster, "b", [*serve(cluster), "--verbose"])
    checked = cluster.run_check("--output", str(cluster.folder / "run.jsonl"))
    assert checked.exit_code == 0
    lines = (cluster.folder / "cluster.key").read_text() + cluster.agent_key.read_text()
    secrets = [line for line in lines.splitlines() if len(line) > 40 and " " not in line]
    assert len(secrets) > 5
    said = checked.stdout + checked.stderr + (cluster.folder / "run.jsonl").read_text()
    said += "".join(cluster.log(name) for name in "abc")
    assert not [secret for secret in secrets if secret in said]
