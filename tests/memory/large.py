"""Large clusters in which every client sweeps every worker, and what is wrong in them."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from preflight.model.plan import Limits
from tests.memory.faults import Absent, Fault
from tests.memory.scripted import Fate, Truth
from tests.memory.setting import Machine, Setting

FIRST, LAST = 30_000, 32_767


class Planted(NamedTuple):
    """What is wrong with the network, or with the nodes."""

    fate: Callable[[int, int], Fate]
    """The pair's number and the NodePort -> what becomes of a connection."""
    faults: tuple[Fault, ...] = ()


SETTINGS = {
    "open": Planted(lambda _, __: "open"),
    "tenth": Planted(lambda pair, port: "silent" if (port + pair) % 10 == 0 else "open"),
    "missing": Planted(lambda _, __: "open", (Absent("worker-1"),)),
    "dropped": Planted(lambda _, __: "silent"),
    "stalled": Planted(lambda _, __: "stalled"),
    "closed": Planted(lambda _, __: "closed"),
}
"""tenth: every tenth port, another one for each pair, so that there are as many ranges as can be.
stalled, closed: every connection is made and the challenge arrives, then silence, or a reset."""


def plant(name: str, nodes: int, shape: str = "roles") -> tuple[Setting, Truth]:
    """A cluster of so many nodes with one of `SETTINGS`, for a `ScriptedCluster`.

    A few of the nodes have each other role and the rest are workers, or (`all`) every node is a
    worker and a client.
    """
    machines, planted = _machines(nodes, shape), SETTINGS[name]
    return Setting(name, machines, planted.faults, limits=Limits(rate=None)), _truth(
        planted, machines
    )


def _machines(nodes: int, shape: str) -> list[Machine]:
    roles: list[tuple[str, ...]]
    if shape == "all":
        roles = [("worker", "client")] * nodes
    else:
        few = 3 if nodes >= 50 else max(1, nodes // 10)
        clients = max(2, nodes // 10)
        workers = nodes - 3 * few - clients
        numbers = {"control-plane": few, "mongodb": few, "elasticsearch": few, "client": clients}
        roles = [(role,) for role, number in numbers.items() for _ in range(number)]
        roles += [("worker",)] * workers
    named: dict[str, int] = defaultdict(int)
    machines = []
    for number, own in enumerate(roles, start=1):
        named[own[0]] += 1
        address = f"10.77.{number // 200}.{number % 200 + 10}"
        machines.append(Machine(f"{own[0]}-{named[own[0]]}", (address,), own))
    return machines


def _truth(planted: Planted, machines: list[Machine]) -> Truth:
    """Only connections to NodePorts fare as planted; all others work."""
    number = {machine.name: place for place, machine in enumerate(machines)}

    def fate(source: str, destination: str, port: int) -> Fate:
        if not FIRST <= port <= LAST:
            return "open"
        return planted.fate(7 * number[source] + number[destination], port)

    return fate
