"""Proven, but how well? Loss and full-size data turn `open` into `degraded`."""

from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from preflight.diagnosis.cells import Cell
from preflight.diagnosis.confidence import (
    DEGRADED_SHARE,
    ENOUGH,
    Tries,
    late_tries,
    proven_tries,
)
from preflight.diagnosis.judgement import Judgement, Scene
from preflight.model.observation import Failure, Operation, Outcome
from preflight.model.plan import Flow
from preflight.model.report import Cause, Verdict
from preflight.ports import Ranges, count_ports, intersect, overlap, union

_CUT_BY_SIZE = frozenset({Failure.SILENT_AFTER_CONNECT, Failure.CLOSED_AFTER_CONNECT, Failure.ICMP})
_HEAVY_LOSS = 0.2
"""From this share on, loss alone can stop a full-size challenge."""
_PROVEN = frozenset({None, Failure.CONNECTED_ONLY})


class Grade(Struct, frozen=True, kw_only=True):
    """How well the proven ports of one flow work."""

    tries: Tries
    loss: float | None
    """Share of lost round trips; None where too few were made to say."""
    lossy: bool
    cut_by_size: bool
    late: int = 0
    """Ports that failed in the whole first pass, and worked on the second look."""


def grade_flow(flow: Flow, scene: Scene, proven: Ranges) -> Grade:
    """Grade the proven ports of a flow, all together: loss is no property of a port."""
    outcomes = scene.index.outcomes.get(scene.probe.id, ())
    own = [o for o in outcomes if overlap(o.ports, proven)]
    tries = _tries(scene, own)
    if tries.tried < ENOUGH[flow.protocol]:
        tries = _tries(scene, outcomes)
    if not any(cell.end.held and overlap(cell.ports, proven) for cell in scene.cells):
        # An agent that was stopped in the middle looks like loss, and nobody says that it was up.
        loss = None if tries.lost else 0.0
        return Grade(tries=tries, loss=loss, lossy=False, cut_by_size=_cut_by_size(scene))
    enough = tries.tried >= ENOUGH[flow.protocol]
    late = 0 if scene.vip else _count_late(own, proven)
    share = tries.share()
    return Grade(
        tries=tries,
        loss=round(share, 4) if enough or late or not tries.lost else None,
        lossy=late > 0 or (enough and share > 0 and share >= DEGRADED_SHARE[flow.protocol]),
        cut_by_size=_cut_by_size(scene),
        late=late,
    )


def apply_grade(judgement: Judgement, grade: Grade) -> Judgement:
    """The judgement of proven ports, with their grade."""
    if grade.cut_by_size:
        return structs.replace(judgement, verdict=Verdict.DEGRADED, cause=Cause.PATH_MTU)
    if grade.lossy:
        return structs.replace(judgement, verdict=Verdict.DEGRADED, cause=Cause.LOSS)
    return judgement


def _tries(scene: Scene, outcomes: Iterable[Outcome]) -> Tries:
    outcomes = tuple(outcomes)
    tries = proven_tries(scene.probe, outcomes)
    return tries if scene.vip else tries.plus(late_tries(outcomes))


def _count_late(outcomes: Sequence[Outcome], proven: Ranges) -> int:
    """How many ports failed in the whole first pass, and worked on the second look."""
    first = [o for o in outcomes if not o.second_look and o.failure not in _PROVEN]
    late = [o for o in outcomes if o.second_look and o.failure in _PROVEN]
    failed, worked = (union(*(o.ports for o in some)) for some in (first, late))
    return count_ports(intersect(intersect(failed, worked), proven))


def _cut_by_size(scene: Scene) -> bool:
    """Whether large packets are lost on the way, whichever of the probe's ports showed it: what
    one link can carry is no matter of ports.
    """
    outcomes = scene.index.full_size.get(scene.probe.id, ())
    if any(outcome.failure is None for outcome in outcomes):
        return False
    if max(scene.loss.tcp.share(), scene.loss.udp.share()) >= _HEAVY_LOSS:
        return False
    return any(
        outcome.failure in _CUT_BY_SIZE
        # A second SYN that was refused says nothing of the size of what would have followed.
        and outcome.operation is not Operation.CONNECT
        and any(_vouched(cell, outcome) for cell in scene.cells)
        for outcome in outcomes
    )


def _vouched(cell: Cell, outcome: Outcome) -> bool:
    """A failure of the full size means something where the listener was up, as for any other."""
    return cell.end.held and overlap(cell.ports, outcome.ports)
