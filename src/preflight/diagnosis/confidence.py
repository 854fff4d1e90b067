"""Packet loss: how much of it there is, and what it explains.

A silent port on a path that loses packets may be an open one that was unlucky. It is called
blocked only when that luck is out of the question.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from preflight.columns import each_attempt
from preflight.diagnosis.cells import Cell, held_ports
from preflight.diagnosis.index import Index, is_vip
from preflight.model.cluster import Protocol
from preflight.model.observation import Failure, Outcome
from preflight.model.plan import Plan, Probe
from preflight.ports import Ranges, count_ports, intersect, overlap, union

ENOUGH: dict[Protocol, int] = {"tcp": 50, "udp": 20}
"""Connections or datagrams from which a share of losses means something."""
DEGRADED_SHARE: dict[Protocol, float] = {"tcp": 0.02, "udp": 0.0}
"""TCP is degraded from this share on; UDP above it."""
BAD_LUCK = 1e-6
"""Chance below which silence is not put down to loss."""
_Z = 1.645
"""One-sided 95 % bound."""
_SILENT = frozenset({Failure.NO_ANSWER, Failure.SILENT_AFTER_CONNECT})


class Tries(Struct, frozen=True):
    """How many round trips were tried, and how many of them were lost at least once."""

    lost: int = 0
    tried: int = 0

    def plus(self, other: "Tries") -> "Tries":
        """Both together."""
        return Tries(self.lost + other.lost, self.tried + other.tried)

    def share(self) -> float:
        """Lost of tried; 0 where nothing was tried."""
        return self.lost / self.tried if self.tried else 0.0

    def upper_bound(self) -> float:
        """The loss that may well be there (Wilson score); 0 where nothing was lost."""
        if not self.lost:
            return 0.0
        share, square = self.share(), _Z * _Z / self.tried
        spread = _Z * math.sqrt(share * (1 - share) / self.tried + square / (4 * self.tried))
        return min(1.0, (share + square / 2 + spread) / (1 + square))


class PathLoss(Struct, frozen=True):
    """What was lost between two nodes, in either direction."""

    tcp: Tries = Tries()
    udp: Tries = Tries()

    def chance(self, protocol: Protocol) -> float:
        """Of losing one round trip of this protocol, estimated high.

        A path may treat the protocols differently: with enough tries of the same protocol
        these alone count, otherwise the worse of both.
        """
        same = self.tcp if protocol == "tcp" else self.udp
        if same.tried >= ENOUGH[protocol]:
            return same.upper_bound()
        return max(self.tcp.upper_bound(), self.udp.upper_bound())


def measure_paths(
    plan: Plan, index: Index, cells: Mapping[int, tuple[Cell, ...]]
) -> dict[frozenset[str], PathLoss]:
    """The loss between each two ends (nodes or VIPs) that probes ran between.

    `cells` are those of each `Probe.id`. An agent that was stopped in the middle leaves as much
    unanswered as a bad path does: only listeners that were up all the time count.
    """
    paths: dict[frozenset[str], PathLoss] = {}
    for probe in plan.probes:
        pair = frozenset({probe.source, probe.destination})
        tries = _tries_of_probe(probe, index, held_ports(cells[probe.id]))
        path = paths.get(pair, PathLoss())
        if probe.protocol == "tcp":
            paths[pair] = PathLoss(path.tcp.plus(tries), path.udp)
        else:
            paths[pair] = PathLoss(path.tcp, path.udp.plus(tries))
    return paths


def proven_tries(probe: Probe, outcomes: Iterable[Outcome]) -> Tries:
    """Round trips of outcomes that ended well: what the `loss` of a record is made of."""
    total = Tries()
    for outcome in outcomes:
        if outcome.failure is None or outcome.failure is Failure.CONNECTED_ONLY:
            total = total.plus(_tries(probe.protocol, outcome))
    return total


def late_tries(outcomes: Sequence[Outcome]) -> Tries:
    """Attempts that stayed silent on ports that answered another attempt."""
    answered = union(*(o.ports for o in outcomes if o.failure is None))
    total = Tries()
    for outcome in outcomes:
        if outcome.failure in _SILENT:
            late = count_ports(intersect(outcome.ports, answered))
            lost = round(attempts_per_port(outcome) * late)
            total = total.plus(Tries(lost, lost))
    return total


def attempts_per_port(outcome: Outcome) -> float:
    """How often each port of an outcome was tried; at least once, or it would be no outcome."""
    return max(1.0, outcome.attempts / max(1, count_ports(outcome.ports)))


def round_trips_per_port(outcomes: Iterable[Outcome], protocol: Protocol, patience: float) -> float:
    """How often loss had to strike for each port to stay silent. `patience` is in seconds.

    The kernel repeats what it sent on a connection 1, 3, 7, ... s later (RFC 6298, 2.1 and
    5.5), which counts like an attempt of ours.
    """
    outcomes = tuple(outcomes)
    counted = sum(o.syns / max(1, count_ports(o.ports)) for o in outcomes if o.syns)
    uncounted = [o for o in outcomes if not o.syns]
    repeats = math.floor(math.log2(patience + 1)) if uncounted and protocol == "tcp" else 0
    return counted + sum(map(attempts_per_port, uncounted)) + repeats


def loss_explains(path: PathLoss, protocol: Protocol, silent: Ranges, round_trips: float) -> bool:
    """Whether open ports may all the same have stayed silent, by loss alone."""
    chance = path.chance(protocol)
    return chance > 0 and count_ports(silent) * math.pow(chance, round_trips) >= BAD_LUCK


def _tries(protocol: Protocol, outcome: Outcome) -> Tries:
    if protocol == "udp":
        return Tries(max(0, outcome.attempts - outcome.answered), outcome.attempts)
    connections = outcome.answered or count_ports(outcome.ports)
    return Tries(min(outcome.retransmits, connections), connections)


def _tries_of_probe(probe: Probe, index: Index, held: Ranges) -> Tries:
    outcomes = _at(held, index.outcomes.get(probe.id, ()))
    total = proven_tries(probe, outcomes)
    if not is_vip(probe):
        # Behind a VIP, an answer beside a silence rather tells of one dead backend.
        total = total.plus(late_tries(outcomes))
    for outcome in outcomes:
        if outcome.failure in _SILENT:
            total = total.plus(_partly_through(probe, outcome, index))
    for outcome in (*outcomes, *_at(held, index.full_size.get(probe.id, ()))):
        if outcome.failure is Failure.SILENT_AFTER_CONNECT:
            total = total.plus(_handshakes(outcome))
    return total


def _at(ports: Ranges, outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    return tuple(outcome for outcome in outcomes if overlap(outcome.ports, ports))


def _handshakes(outcome: Outcome) -> Tries:
    """Of connections that fell silent: a network that loses nothing loses no SYN either."""
    made = [attempts for attempts in outcome.unanswered if attempts.connected]
    lost = sum(len(attempts.ports) for attempts in made if attempts.lost_syns)
    return Tries(lost, sum(len(attempts.ports) for attempts in made))


def _partly_through(probe: Probe, outcome: Outcome, index: Index) -> Tries:
    """Of a silent port: attempts that came some way beside others that did not."""
    if all(attempts.connected for attempts in outcome.unanswered):
        return Tries()
    through: dict[int, list[bool]] = {}
    for attempt in each_attempt(outcome.unanswered):
        sightings = index.challenged.get(attempt.probe_id, ())
        came = attempt.connected or any(s.node in probe.answerers for s in sightings)
        through.setdefault(attempt.port, []).append(came)
    total = Tries()
    for attempts in through.values():
        if any(attempts) and not all(attempts):
            total = total.plus(Tries(attempts.count(False), len(attempts)))
    return total
