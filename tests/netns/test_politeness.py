"""What a run costs the network: never more than `plan` said, measured at the router."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preflight.lab import demonstration, faults
from preflight.lab.cluster import PREFLIGHT
from preflight.lab.demonstration import OBSERVER, VIP
from preflight.lab.faults import Traffic
from preflight.lab.network import Lab
from preflight.lab.topology import ROUTER, LabNode
from preflight.model.cluster import DEFAULT_CONTROL_PORT
from preflight.model.report import Cause, Verdict
from preflight.ports import count_ports
from tests.netns.harness import OPEN, Checked, Cluster, Told, ports_of, profile_of

RANGE = "30000-32767"
RANGE_PORTS = 2_768
TRACKS = "{ type filter hook forward priority filter; policy accept; ct state new counter; }"
"""A rule that makes the router keep a state table, as a firewall does."""
WRITES_COUNTS = """
while :; do cat /proc/sys/net/netfilter/nf_conntrack_count; sleep 0.05; done
"""
TIME_WAIT = "06"


def plan(cluster: Cluster, *options: str) -> dict[str, Any]:
    """What `preflight plan` says of it."""
    assert isinstance(cluster.site, Lab)
    argv = [*PREFLIGHT, "plan", "--cluster", str(cluster.file), "--format", "json", *options]
    told: dict[str, Any] = json.loads(cluster.site.run(cluster.where, argv).stdout)
    return told


@contextmanager
def watched_states(lab: Lab, file: Path) -> Iterator[list[int]]:
    """How many entries the router's state table had, from then on; there at the end."""
    counts: list[int] = []
    with file.open("wb") as lines:
        watching = lab.popen(ROUTER, ["sh", "-c", WRITES_COUNTS], stdout=lines)
    yield counts
    lab.end(watching)
    last = lab.run(ROUTER, ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).stdout
    counts += map(int, [*file.read_text().split(), last])


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[Lab, Cluster]]:
    """The demo's cluster, where every packet is lost behind the router, but for control."""
    nodes = demonstration.NODES
    everything = f"1-{DEFAULT_CONTROL_PORT - 1},{DEFAULT_CONTROL_PORT + 1}-65535"
    roles = {node.name: node.roles for node in nodes}
    with Lab(demonstration.lab_nodes()) as lab:
        demonstration.plant_vip(lab)
        lab.plant(ROUTER, TRACKS)
        for node in nodes:
            if not node.embedded:
                for protocol in ("tcp", "udp"):
                    # At its own host: what the router drops, its table does not keep.
                    traffic = Traffic(protocol, (), node.addresses, everything)
                    lab.plant(node.name, faults.drop(traffic, hook="input"))
        cluster = Cluster(lab, tmp_path, roles, profile="apinizer", vips=[VIP], embedded=[OBSERVER])
        cluster.where = OBSERVER
        cluster.start_agents()
        yield lab, cluster


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--max-half-open", "2000"),
        ("--sample", "200", "--max-half-open", "500", "--rate", "500"),
    ],
    ids=" ".join,
)
def test_a_silent_run_leaves_fewer_states_than_the_plan_says(
    silent: tuple[Lab, Cluster], tmp_path: Path, options: tuple[str, ...]
) -> None:
    lab, cluster = silent
    planned = plan(cluster, *options)
    counted = planned["count"]
    with watched_states(lab, tmp_path / "states") as states:
        checked = cluster.run_check(*options)
    assert {(flow.verdict, flow.cause) for flow in checked.all_flows} <= {
        (Verdict.BLOCKED, Cause.NO_ANSWER),
        (Verdict.UNTESTED, Cause.SKIPPED),
    }
    assert max(states) < counted["state_entries"]
    # Nobody answered: what isn't a datagram or a call of an agent was a SYN in vain.
    others = counted["most_datagrams"] // 24 + 5 * len(counted["control"])
    assert max(states) <= planned["limits"]["max_half_open"] + others
    tried = [flow for flow in checked.all_flows if flow.verdict is Verdict.BLOCKED]
    assert max(states) >= count_ports(ports_of(tried))


def count_connections(lab: Lab) -> int:
    """Different TCP connections that were begun through the router, since `WATCHED`."""
    listed = lab.run(ROUTER, ["nft", "-j", "list", "set", "inet", "watched", "begun"]).stdout
    return sum(len(one["set"]["elem"]) for one in json.loads(listed)["nftables"] if "set" in one)


WATCHED = f"""
table inet watched {{
    set begun {{
        type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 65535;
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        tcp dport != {DEFAULT_CONTROL_PORT} tcp flags & (syn | ack) == syn \
            add @begun {{ ip saddr . tcp sport . ip daddr . tcp dport }}
    }}
}}
"""


def test_new_connections_keep_to_the_rate(tmp_path: Path) -> None:
    # One with much to do, and others with little: together they are not faster.
    names = ("s1", "s2", "s3", "d1", "d2")
    nodes = [LabNode(name, (f"10.77.{n}.11",)) for n, name in enumerate(names, start=1)]
    few, many = "7000-7019", "8000-8599"
    profile = profile_of({"few": f"{few}/tcp"})
    profile += profile_of({"many": f"{many}/tcp"}).partition("\n")[2].replace('"source"', '"busy"')
    roles = {"s1": ["source", "busy"], "s2": ["source"], "s3": ["source"]}
    roles |= {"d1": ["destination"], "d2": ["destination"]}
    rate = 400
    with Lab(nodes) as lab:
        lab.run(ROUTER, ["nft", "-f", "-"], text=WATCHED)
        cluster = Cluster(lab, tmp_path, roles, profile=profile)
        cluster.start_agents()
        checked = cluster.run_check("--rate", str(rate))
        begun = count_connections(lab)
    assert {Told.by(flow) for flow in checked.all_flows} == {OPEN}
    assert checked.report is not None
    (seconds,) = (p.elapsed_ms / 1000 for p in checked.report.phases if p.name == "probe")
    assert begun >= 2 * (3 * 20 + 600)
    assert begun <= rate * seconds + len(nodes)


@pytest.fixture(scope="module")
def closing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Cluster]]:
    """A source with fewer ports of its own than there are connections to make."""
    few_ports = {"net.ipv4.ip_local_port_range": "40000 40999"}
    nodes = [
        LabNode("s1", ("10.77.1.11",), sysctls=few_ports),
        LabNode("d1", ("10.77.2.11",)),
        LabNode("d2", ("10.77.3.11",)),
    ]
    roles = {"s1": ["source"], "d1": ["destination"], "d2": ["destination"]}
    profile = profile_of({"nodeports": f"{RANGE}/tcp"})
    with Lab(nodes) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("closing"), roles, profile=profile)
        cluster.start_agents()
        yield lab, cluster


def time_waits(lab: Lab, where: str) -> int:
    """Connections from or to the range that a node keeps in TIME_WAIT (proc(5), net/tcp)."""
    rows = [row.split() for row in lab.run(where, ["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    ports = [
        {int(place.rpartition(":")[2], 16) for place in row[1:3]}
        for row in rows
        if row[3] == TIME_WAIT
    ]
    return sum(any(30_000 <= port <= 32_767 for port in ends) for ends in ports)


def count_resets(lab: Lab) -> int:
    """TCP resets from or to the range that the router saw, since `RESETS` was planted."""
    listed = json.loads(lab.run(ROUTER, ["nft", "-j", "list", "counters"]).stdout)["nftables"]
    return sum(one["counter"]["packets"] for one in listed if "counter" in one)


RESETS = f"""
table inet watched {{
    counter resets {{ }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        tcp flags & rst == rst tcp dport {RANGE} counter name resets
        tcp flags & rst == rst tcp sport {RANGE} counter name resets
    }}
}}
"""


def surplus(checked: Checked) -> int:
    """Connections beyond one a port: each of them may have ended with a reset of the kernel."""
    return sum(flow.evidence.attempts - count_ports(ports_of([flow])) for flow in checked.all_flows)


def test_resets_leave_no_time_wait_anywhere(closing: tuple[Lab, Cluster]) -> None:
    lab, cluster = closing
    checked = cluster.run_check("--rate", "max")
    assert {(flow.ports, Told.by(flow)) for flow in checked.all_flows} == {(RANGE, OPEN)}
    assert {time_waits(lab, where) for where in lab.nodes} == {0}


def test_an_orderly_close_leaves_time_wait_at_the_source_and_ports_do_not_run_out(
    closing: tuple[Lab, Cluster],
) -> None:
    lab, cluster = closing
    lab.run(ROUTER, ["nft", "-f", "-"], text=RESETS)
    # Again at once: listeners can bind while the source still waits, and its ports are enough.
    for turn in (1, 2):
        checked = cluster.run_check("--rate", "max", "--close", "fin")
        assert {(flow.ports, Told.by(flow)) for flow in checked.all_flows} == {(RANGE, OPEN)}
        assert count_resets(lab) <= turn * surplus(checked)
        assert time_waits(lab, "s1") >= 2 * RANGE_PORTS
        assert {time_waits(lab, where) for where in ("d1", "d2")} == {0}
