"""How a rule says what it found: judgements, made of what the case has in common with them."""

from preflight.diagnosis.confidence import loss_explains, round_trips_per_port
from preflight.diagnosis.joining import Seen
from preflight.diagnosis.judgement import Case, Judgement
from preflight.model.observation import Icmp
from preflight.model.report import Cause, Verdict, Where

_QUIET = frozenset({Cause.NO_ANSWER, Cause.RESET})
"""What the source's own output rules can do to TCP without a word of it."""


def untested(
    cause: Cause, note: str, *, owner: str | None = None, icmp: Icmp | None = None
) -> Judgement:
    """We could not look; `note` says why."""
    return Judgement(
        verdict=Verdict.UNTESTED,
        cause=cause,
        note=note,
        owner=owner,
        icmp=icmp,
        reported_by=icmp.sender if icmp is not None else None,
        held=False,
    )


def too_lossy() -> Judgement:
    """Untested: silence is what loss alone would give."""
    return untested(Cause.LOSS, "so many packets are lost there that silence proves nothing")


def blocked(
    cause: Cause,
    case: Case,
    *,
    where: Where = Where.UNKNOWN,
    possible: tuple[Where, ...] = (),
    icmp: Icmp | None = None,
    seen: bool | None = None,
) -> Judgement:
    """It does not work, and the evidence says so."""
    return Judgement(
        verdict=Verdict.BLOCKED,
        cause=cause,
        where=where,
        where_possible=possible,
        icmp=icmp,
        reported_by=icmp.sender if icmp is not None else None,
        owner=case.cell.end.owner if not case.cell.end.held else None,
        seen=seen,
        held=case.cell.end.held,
        own_doing=cause in _QUIET and case.cell.denied_alike,
    )


def intercepted(
    cause: Cause, case: Case, *, answered_by: str | None = None, note: str = ""
) -> Judgement:
    """Somebody else answered."""
    return Judgement(
        verdict=Verdict.INTERCEPTED,
        cause=cause,
        answered_by=answered_by,
        seen=was_seen(case),
        held=case.cell.end.held,
        note=note,
    )


def was_seen(case: Case) -> bool | None:
    """Whether the destination saw anything of the attempts; None: not known."""
    return None if case.cell.seen is None else case.cell.seen >= Seen.CONNECTION


def loss_may_explain(case: Case) -> bool:
    """Whether these ports may be open, and were unlucky."""
    silent = [o for o in case.cell.outcomes if o.failure is not None]
    protocol, patience = case.scene.probe.protocol, case.scene.plan.limits.patience
    tried = round_trips_per_port(silent, protocol, patience)
    return loss_explains(case.scene.loss, protocol, case.scene.silent, tried)
