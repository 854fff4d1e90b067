"""What a rule says of a cell, and everything that it may look at."""

from typing import Literal

from msgspec import Struct

from preflight.diagnosis.cells import Cell
from preflight.diagnosis.confidence import PathLoss
from preflight.diagnosis.destination import confirmation_of
from preflight.diagnosis.index import Index, addresses_of, canonical, is_vip
from preflight.model.observation import AgentObservation, Failure, Icmp, Outcome
from preflight.model.plan import Plan, Probe
from preflight.model.report import Cause, Verdict, Where
from preflight.ports import Ranges, union

Proof = Literal["agent", "connection"]


class Judgement(Struct, frozen=True, kw_only=True):
    """What is true of some ports. Ports with equal judgements share a record."""

    verdict: Verdict
    cause: Cause | None = None
    where: Where | None = None
    where_possible: tuple[Where, ...] = ()
    proof: Proof | None = None
    icmp: Icmp | None = None
    reported_by: str | None = None
    answered_by: str | None = None
    owner: str | None = None
    seen: bool | None = None
    """Whether the destination saw anything of the attempts."""
    held: bool = True
    """The destination's own listener was confirmed."""
    own_doing: bool = False
    """The source's own firewall may be why, so that nothing is known of the way."""
    note: str = ""
    """What the record's sentence adds, or says instead."""


class Scene(Struct, frozen=True, kw_only=True):
    """One probe with all that is known around it."""

    plan: Plan
    index: Index
    probe: Probe
    cells: tuple[Cell, ...]
    vip: bool
    source: AgentObservation
    source_addresses: frozenset[str]
    destination_addresses: frozenset[str]
    loss: PathLoss
    no_neighbour: Outcome | None
    """The source's kernel found nobody at the probe's address, on whichever port, and nothing
    was ever heard from there."""
    heard: bool
    """Something came back from the probe's address to this source, on whichever port."""
    silent: Ranges
    """The probe's ports that nothing was heard from."""


class Case(Struct, frozen=True, kw_only=True):
    """A cell in its scene, ready to be judged."""

    scene: Scene
    cell: Cell
    leading: Outcome | None
    """The outcome that tells most; None: nothing was tried."""
    answers: tuple["JudgedAnswer", ...]


class JudgedAnswer(Struct, frozen=True):
    """A valid answer, and whether it came from where it should."""

    outcome: Outcome
    kind: Literal["right", "restarted", "other-node", "other-port"]
    node: str
    """Who answered, by its instance id where that tells better than its name."""


_WEIGHT = (
    Failure.FOREIGN_ANSWER,
    Failure.CLOSED_AFTER_CONNECT,
    Failure.SILENT_AFTER_CONNECT,
    Failure.CONNECTED_ONLY,
    Failure.ICMP,
    Failure.RESET,
    Failure.NO_NEIGHBOUR,
    Failure.SEND_DENIED,
    Failure.NO_ROUTE,
    Failure.NO_ANSWER,
    Failure.LOCAL_LIMIT,
    Failure.SKIPPED,
)
"""Which of several failures of one port tells most: the one that came furthest."""


def make_scene(
    probe: Probe, cells: tuple[Cell, ...], index: Index, paths: dict[frozenset[str], PathLoss]
) -> Scene:
    """Gather what concerns one probe."""
    outcomes = index.outcomes.get(probe.id, ())
    source = index.agents.get(probe.source) or AgentObservation(
        node=probe.source, state="unreachable", detail="no conversation"
    )
    way = (probe.source, canonical(probe.address))
    heard = way in index.heard
    local = {canonical(o.local_address) for o in outcomes if o.local_address}
    return Scene(
        plan=index.plan,
        index=index,
        probe=probe,
        cells=cells,
        vip=is_vip(probe),
        source=source,
        source_addresses=addresses_of(index, (probe.source,)) | local,
        destination_addresses=addresses_of(index, probe.answerers) | {canonical(probe.address)},
        loss=paths.get(frozenset({probe.source, probe.destination}), PathLoss()),
        no_neighbour=None if heard else index.no_neighbour.get(way),
        heard=heard,
        silent=union(
            *(
                outcome.ports
                for outcome in outcomes
                if outcome.failure in {Failure.NO_ANSWER, Failure.SILENT_AFTER_CONNECT}
                and not outcome.second_look
            )
        ),
    )


def make_case(scene: Scene, cell: Cell) -> Case:
    """Look a cell over."""
    failed = [o for o in cell.outcomes if o.failure is not None]
    failed.sort(key=lambda outcome: _WEIGHT.index(outcome.failure or Failure.SKIPPED))
    return Case(
        scene=scene,
        cell=cell,
        leading=failed[0] if failed else None,
        answers=tuple(judge_answer(scene, o) for o in cell.outcomes if o.failure is None),
    )


def judge_answer(scene: Scene, outcome: Outcome) -> JudgedAnswer:
    """Whose valid answer this is. The right name is not enough: the instance has to be the
    one that greeted, and behind an address of a node's own the port has to be the one asked.
    """
    name = outcome.answered_by or "somebody"
    if name not in scene.probe.answerers:
        return JudgedAnswer(outcome, "other-node", name)
    agent = scene.index.agents.get(name)
    if agent is not None and agent.instance and outcome.answered_instance != agent.instance:
        owner = scene.index.instances.get(outcome.answered_instance or "")
        if owner is not None:
            return JudgedAnswer(outcome, "other-node", owner)
        confirmed = confirmation_of(agent) is not None
        return JudgedAnswer(outcome, "other-node" if confirmed else "restarted", name)
    if not scene.vip and outcome.answered_port is not None:
        return JudgedAnswer(outcome, "other-port", name)
    return JudgedAnswer(outcome, "right", name)
