"""Nodes whose kernel lets fewer connections wait than there are sources that may begin at once.

A connection that finds no room is dropped by the destination's own kernel. Its agent counts
that, so that no verdict is wrong; but it is worth knowing before services are installed there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from preflight.diagnosis import catalog
from preflight.diagnosis.index import Index
from preflight.diagnosis.naming import listed
from preflight.model.observation import Backlog
from preflight.model.plan import Plan, Probe
from preflight.model.report import Finding

ROOM_WITHOUT_COOKIES = 0.75
"""Without SYN cookies, Linux drops SYNs when a quarter of tcp_max_syn_backlog is left."""
USUAL_ROOM = 4_096
"""What current kernels have by themselves: enough for every cluster that we know of."""


def small_backlogs(plan: Plan, index: Index) -> Iterator[Finding]:
    """One finding for all nodes that have the same limits, and too many sources for them."""
    crowds: dict[str, list[Probe]] = defaultdict(list)
    for probe in plan.probes:
        if probe.protocol == "tcp":
            for name in probe.answerers:
                crowds[name].append(probe)
    small: dict[Backlog, dict[str, int]] = defaultdict(dict)
    for node in plan.nodes:
        backlog = index.agents[node.name].facts.backlog
        sources = _most_at_once(crowds[node.name])
        if backlog is not None and sources > _room(backlog):
            small[backlog][node.name] = sources
    for backlog, nodes in small.items():
        sources = max(nodes.values())
        yield catalog.SMALL_BACKLOG.fill(
            nodes=listed(list(nodes)),
            sources=sources,
            room=_room(backlog),
            settings=listed([f"{name} is {value}" for name, value in _small(backlog, sources)]),
            commands=listed(_commands(backlog, sources)),
        )


def _room(backlog: Backlog) -> int:
    """How many may connect to one port at once without a loss."""
    if backlog.syn_cookies:
        return backlog.somaxconn
    return min(backlog.somaxconn, int(backlog.max_syn_backlog * ROOM_WITHOUT_COOKIES))


def _small(backlog: Backlog, sources: int) -> Iterator[tuple[str, int]]:
    """The settings that are too small, as sysctl knows them."""
    if backlog.somaxconn < sources:
        yield "net.core.somaxconn", backlog.somaxconn
    if not backlog.syn_cookies and backlog.max_syn_backlog * ROOM_WITHOUT_COOKIES < sources:
        yield "net.ipv4.tcp_max_syn_backlog", backlog.max_syn_backlog
        yield "net.ipv4.tcp_syncookies", 0


def _commands(backlog: Backlog, sources: int) -> list[str]:
    enough = max(USUAL_ROOM, 2 * sources)
    names = [name for name, _ in _small(backlog, sources)]
    return [f"sysctl -w {name}={1 if name.endswith('cookies') else enough}" for name in names]


def _most_at_once(probes: Iterable[Probe]) -> int:
    """How many connections of these probes may begin at one port at the same time."""
    changes: Counter[int] = Counter()
    for probe in probes:
        for first, last in probe.ports:
            changes[first] += probe.connections
            changes[last + 1] -= probe.connections
    most = now = 0
    for port in sorted(changes):
        now += changes[port]
        most = max(most, now)
    return most
