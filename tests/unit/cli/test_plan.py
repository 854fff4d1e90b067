"""`preflight plan`: all that would be done, in three forms, and no packet sent."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from preflight.cli.app import app
from preflight.errors import ConfigError

CLUSTER = """
name = "prod"
profile = "apinizer"
[nodes]
m1 = {address = "10.0.1.11", roles = ["control-plane"]}
m2 = {addresses = ["10.0.1.12", "fd00::12"], roles = ["control-plane"]}
w1 = {addresses = ["10.0.2.11", "fd00::211"], roles = ["worker"]}
w2 = {address = "10.0.2.12", roles = ["worker"]}
db1 = {address = "10.0.3.11", roles = ["mongodb"]}
es1 = {address = "10.0.3.12", roles = ["elasticsearch"]}
ops = {address = "10.0.9.5", roles = ["client"], embedded = true}
[vips.api]
address = "10.0.1.10"
port = 6443
backends = "control-plane"
"""


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plan touched the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(CLUSTER)
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(
        app, ["plan", *map(str, arguments)], catch_exceptions=False, color=False
    )
    assert result.exit_code == 0
    return result


def section(text: str, title: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(title))


def test_the_plan_for_people(file: Path) -> None:
    text = run("--cluster", file).stdout
    assert text.startswith("Plan for cluster prod, profile apinizer\n")
    flows = section(text, "Flows")
    assert "  etcd  2379-2380/tcp  (IPv4)" in flows
    assert "    m1, m2 → each other" in flows
    assert "    w1, w2 → db1" in flows
    assert "    ops → w1, w2" in flows
    assert "    m1, m2, w1, w2 → api" in flows
    assert "  kube-apiserver  6443/tcp  (IPv6)" in flows
    assert "flannel-udp  8285/udp  (IPv4, not required)" in flows
    cost = section(text, "Cost")
    assert "rate: at most 5,000 new connections a second" in cost
    assert "firewall state: at most " in cost
    control = section(text, "Control connections")
    assert "coordinator → m1  10.0.1.11:10888/tcp" in control
    assert "ops" not in control
    assert "flows of a node to itself" in section(text, "Notes")
    assert "VIP of m1, m2" in section(text, "Nodes")


def test_the_plan_for_programs(file: Path) -> None:
    document = json.loads(run("--cluster", file, "--format", "json").stdout)
    assert document["schema"] == "preflight.plan/1"
    nodeports = [flow for flow in document["flows"] if flow["rule"] == "nodeports"]
    assert [(flow["source"], flow["destination"], flow["ports"]) for flow in nodeports] == [
        ("ops", "w1", "30000-32767"),
        ("ops", "w2", "30000-32767"),
    ]
    assert document["count"]["control"][0] == {"node": "m1", "address": "10.0.1.11", "port": 10888}
    assert document["limits"]["rate"] == 5000


def test_a_narrowed_plan_at_another_rate(file: Path) -> None:
    arguments = ("--only", "worker:mongodb", "--port", "25080", "--rate", "10")
    text = run("--cluster", file, *arguments).stdout
    assert "2 probes (source, destination, protocol and port): 4 TCP connections" in text
    assert "at most 10 new connections" in text
    assert "narrowed: 2 of the cluster's " in text
    assert "es1" not in section(text, "Nodes")
    assert "rate: no limit" in run("--cluster", file, "--rate", "max").stdout


def test_commas_separate_what_a_run_is_narrowed_to(file: Path) -> None:
    by_commas = run("--cluster", file, "--from", "w1,ops", "--to", "db1, w2").stdout
    repeated = ("--from", "w1", "--from", "ops", "--to", "db1", "--to", "w2")
    assert by_commas == run("--cluster", file, *repeated).stdout
    pairs = run("--cluster", file, "--only", "worker:mongodb,client:w1").stdout
    assert "w1, w2 → db1" in pairs
    assert "ops → w1" in pairs


def test_a_gentler_plan_says_what_it_leaves_out(file: Path) -> None:
    options = ("--sample", "3", "--max-half-open", "500", "--close", "fin")
    text = run("--cluster", file, *options).stdout
    flows = section(text, "Flows")
    assert "nodeports  30000-32767/tcp  (IPv4, 3 of 2,768 ports tried)" in flows
    assert "tried: 30000, 31384, 32767" in flows
    assert "etcd  2379-2380/tcp  (IPv4)" in flows
    cost = section(text, "Cost")
    assert "at most 500 TCP connections in the whole run" in cost
    assert "sample: 3 ports of each range with more" in cost
    assert "in order (FIN), and keeps TIME_WAIT" in cost
    assert "--sample 3: of each range" in section(text, "Notes")


def test_a_sample_in_the_plan_for_programs(file: Path) -> None:
    whole = json.loads(run("--cluster", file, "--format", "json").stdout)
    assert all(flow["tried"] == flow["ports"] for flow in whole["flows"])
    options = ("--sample", "3", "--max-half-open", "500", "--close", "fin", "--format", "json")
    document = json.loads(run("--cluster", file, *options).stdout)
    nodeports = [flow for flow in document["flows"] if flow["rule"] == "nodeports"]
    assert {(flow["ports"], flow["tried"]) for flow in nodeports} == {
        ("30000-32767", "30000,31384,32767")
    }
    limits = document["limits"]
    assert (limits["sample"], limits["max_half_open"], limits["close"]) == (3, 500, "fin")
    # Three of the range's ports have a rule of their own, from ops to both workers.
    assert document["count"]["flows"] == whole["count"]["flows"] - 2 * (2_765 - 3)
    assert document["count"]["state_entries"] < whole["count"]["state_entries"]


def test_the_notice_of_a_gentler_run(file: Path) -> None:
    options = ("--sample", "30", "--max-half-open", "500", "--close", "fin")
    text = run("--cluster", file, "--notice", *options).stdout
    assert "at most 500 TCP connections without an answer" in text
    assert "only 30 ports are tried" in text
    assert "connections are ended in order, with FIN, by the source first" in text
    assert "RST" not in text
    ports = section(text, "--- nodeports: 30000-32767/tcp (30 of 2,768 ports)")
    assert "  30000, 30095, 30191," in ports
    assert "32767/tcp" in ports.splitlines()[-1]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_notice_has_all_that_a_security_team_asks(file: Path) -> None:
    text = run("--cluster", file, "--notice").stdout
    assert "f1 9e 50 46" in text
    assert "Name and telephone: ____" in text
    assert "at most 5,000 new connections a second" in text
    assert "nothing\n    stays open" in text
    assert "from: 10.0.9.5 (ops, which runs the test)" in text
    assert "to: 10.0.1.11:10888/tcp (m1)" in text
    said = " ".join(text.split())
    assert "will look like a port scan of 30000-32767/tcp: many ports" in said
    few = " ".join(run("--cluster", file, "--notice", "--port", "1-29999").stdout.split())
    assert "port scan" not in few
    assert "port scan" not in run("--cluster", file, "--notice", "--sample", "5").stdout
    assert "from: the machine that runs the test, ____" in few
    database = section(text, "--- mongodb: 25080/tcp")
    assert database.splitlines()[2:] == [
        "SOURCE:",
        "  10.0.2.11 (w1)",
        "  10.0.2.12 (w2)",
        "DESTINATION:",
        "  10.0.3.11 (db1)",
        "  25080/tcp",
    ]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_every_address_of_the_plan_is_in_the_notice(file: Path) -> None:
    document = json.loads(run("--cluster", file, "--format", "json").stdout)
    text = run("--cluster", file, "--notice").stdout
    for flow in document["flows"]:
        for address in (flow["source_address"], flow["destination_address"]):
            assert f"  {address} (" in text


def test_what_is_wrong_stops_it(file: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --format json"):
        run("--cluster", file, "--notice", "--format", "json")
    with pytest.raises(ConfigError, match="--max-half-open: 1 is too few for the "):
        run("--cluster", file, "--max-half-open", "1")
    with pytest.raises(ConfigError, match="--only"):
        run("--cluster", file, "--only", "wroker:mongodb")
    file.write_text(CLUSTER.replace("address =", "adress =", 1))
    with pytest.raises(ConfigError, match=r"nodes\.m1\.adress"):
        run("--cluster", file)


def test_many_nodes_are_named_by_their_role(file: Path) -> None:
    more = "\n".join(f'n{i} = {{address = "10.1.0.{i}", roles = ["worker"]}}' for i in range(1, 30))
    file.write_text(CLUSTER.replace("[vips.api]", f"{more}\n[vips.api]"))
    assert "all 31 nodes with role worker → db1" in run("--cluster", file).stdout
