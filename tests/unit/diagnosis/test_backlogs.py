"""Nodes that let fewer connections wait than there are sources."""

import pytest

from preflight.diagnosis import diagnose
from preflight.model.observation import Backlog, Facts
from preflight.model.report import Finding
from tests.scenarios.world import World


def crowd(backlog: Backlog | None, *, sources: int = 8, ports: str = "30000-32767") -> World:
    world = World().node("m1", "10.0.1.11").node("m2", "10.0.1.12")
    for number in range(1, sources + 1):
        world.node(f"w{number}", f"10.0.2.{number}")
        for destination in ("m1", "m2"):
            world.flow(f"w{number}", destination, ports)
            world.proven(f"w{number}", destination, ports)
    for name in ("m1", "m2"):
        world.agent(name, facts=Facts(backlog=backlog))
    return world


def found_in(world: World) -> list[Finding]:
    report = diagnose(world.plan(), world.observations())
    return [finding for finding in report.findings if finding.code == "small-backlog"]


@pytest.mark.parametrize(
    "backlog",
    [
        None,
        Backlog(somaxconn=8, max_syn_backlog=4, syn_cookies=True),
        Backlog(somaxconn=4_096, max_syn_backlog=128, syn_cookies=False),
    ],
    ids=["unknown", "just-enough", "without-cookies"],
)
def test_room_for_every_source_is_nothing_to_tell(backlog: Backlog | None) -> None:
    assert found_in(crowd(backlog)) == []


def test_nodes_with_the_same_limit_are_one_finding() -> None:
    (found,) = found_in(crowd(Backlog(somaxconn=4, max_syn_backlog=4, syn_cookies=True)))
    assert found.title == "m1 and m2 may drop connections where 8 sources begin at once"
    assert found.detail.startswith("net.core.somaxconn is 4 there: 4 connections to one port")
    assert found.fix.startswith("On m1 and m2: sysctl -w net.core.somaxconn=4096 (")


def test_without_cookies_three_quarters_of_the_syn_backlog_count() -> None:
    (found,) = found_in(crowd(Backlog(somaxconn=4_096, max_syn_backlog=10, syn_cookies=False)))
    assert "net.ipv4.tcp_max_syn_backlog is 10 and net.ipv4.tcp_syncookies is 0" in found.detail
    assert "7 connections to one port" in found.detail
    assert "tcp_max_syn_backlog=4096 and sysctl -w net.ipv4.tcp_syncookies=1" in found.fix


def test_only_sources_of_one_port_come_together() -> None:
    backlog = Backlog(somaxconn=2, max_syn_backlog=128, syn_cookies=True)
    world = World().node("m1", "10.0.1.11").agent("m1", facts=Facts(backlog=backlog))
    for number in range(1, 6):
        world.node(f"w{number}", f"10.0.2.{number}")
        ports = f"{30_000 + 10 * number}-{30_010 + 10 * number}"  # each shares one with the next
        world.flow(f"w{number}", "m1", ports).proven(f"w{number}", "m1", ports)
    assert found_in(world) == []
