"""The rules that turn evidence into a verdict, in the order in which they are asked.

Each looks at one cell and answers, or leaves it to the next; the last always answers. The
order is the point: proof comes before everything, what could not be looked at comes before
what went wrong, and what came far tells more than what did not.
"""

from collections.abc import Callable
from typing import TypeAlias

from preflight.diagnosis.cells import Cell
from preflight.diagnosis.destination import STATE_CAUSES
from preflight.diagnosis.haste import HASTY
from preflight.diagnosis.icmp import cause_of
from preflight.diagnosis.joining import Seen, seen_elsewhere
from preflight.diagnosis.judgement import Case, Judgement, Scene, make_case
from preflight.diagnosis.notes import AT_SPEED, INTERRUPTED, agent_note, was_not_called
from preflight.diagnosis.places import BEYOND_SOURCE, EVERYWHERE, LEFT_BY_SIGHT, place_of
from preflight.diagnosis.ruling import (
    blocked,
    intercepted,
    loss_may_explain,
    too_lossy,
    untested,
    was_seen,
)
from preflight.model.observation import Failure
from preflight.model.report import Cause, Verdict, Where

Rule: TypeAlias = Callable[[Case], Judgement | None]

_CONNECTED = frozenset(
    {
        Failure.FOREIGN_ANSWER,
        Failure.CLOSED_AFTER_CONNECT,
        Failure.SILENT_AFTER_CONNECT,
        Failure.CONNECTED_ONLY,
    }
)
_TELL_NOTHING = frozenset({Failure.CLOSED_AFTER_CONNECT, Failure.SILENT_AFTER_CONNECT})
_OWN_KERNEL = {
    Failure.NO_ROUTE: Cause.NO_ROUTE,
    Failure.NO_NEIGHBOUR: Cause.NO_NEIGHBOUR,
    Failure.SEND_DENIED: Cause.SEND_DENIED,
}


def judge(scene: Scene, cell: Cell) -> Judgement:
    """What is true of a cell: the first rule that has an answer gives it."""
    case = make_case(scene, cell)
    for rule in RULES:
        judgement = rule(case)
        if judgement is not None:
            return judgement
    raise AssertionError("the last rule answers everything")


def stranger_answered(case: Case) -> Judgement | None:
    """Another agent, another port of the right one, or another program answered."""
    end = case.cell.end
    if not (end.held or (end.confirmed and end.owner is not None)):
        return None
    for answer in case.answers:
        if answer.kind == "other-node":
            return intercepted(Cause.WRONG_NODE, case, answered_by=answer.node)
        if answer.kind == "other-port":
            port = answer.outcome.answered_port
            note = f"it was led to port {port} of the same agent"
            return intercepted(Cause.IMPOSTOR, case, answered_by=answer.node, note=note)
    foreign = case.leading is not None and case.leading.failure is Failure.FOREIGN_ANSWER
    if foreign and end.owner is None and not (case.scene.vip and case.answers):
        return intercepted(Cause.IMPOSTOR, case)
    return None


def right_agent_answered(case: Case) -> Judgement | None:
    """Proof is proof, also when the agent was lost afterwards."""
    if any(answer.kind == "right" for answer in case.answers):
        return Judgement(verdict=Verdict.OPEN, proof="agent")
    return None


def another_life_answered(case: Case) -> Judgement | None:
    """The right name with another instance: the agent was restarted, and nobody vouches for it."""
    if not any(answer.kind == "restarted" for answer in case.answers):
        return None
    node = min(answer.node for answer in case.answers)
    return untested(Cause.AGENT_LOST, f"{node}'s agent was restarted during the run")


def nothing_was_tried(case: Case) -> Judgement | None:
    """No outcome, or one that says why there was no attempt."""
    failure = case.leading.failure if case.leading is not None else None
    if case.answers or failure not in {None, Failure.SKIPPED, Failure.LOCAL_LIMIT}:
        return None
    if failure is Failure.LOCAL_LIMIT:
        errno = case.leading.errno if case.leading is not None else None
        name = case.scene.probe.source
        return untested(Cause.SKIPPED, f"{name} ran out of resources of its own ({errno})")
    left_out = _is_left_out(case)
    if failure is Failure.SKIPPED and not left_out:
        return untested(Cause.SKIPPED, "the run's bounds or its deadline left no room for it")
    source = case.scene.source
    if was_not_called(source, case.scene.index):
        return untested(Cause.SKIPPED, f"{INTERRUPTED}{source.node} was not reached yet")
    if source.state != "ready":
        return untested(STATE_CAUSES[source.state], agent_note(source))
    if not case.cell.end.ready:
        return _not_confirmed(case)
    if left_out:
        return None
    if case.scene.index.interrupted:
        return untested(Cause.SKIPPED, f"{INTERRUPTED}the run was stopped before it was tried")
    return untested(Cause.SKIPPED, f"{source.node} told nothing of it")


def port_was_denied(case: Case) -> Judgement | None:
    """The destination's agent was not allowed to listen there."""
    end = case.cell.end
    if end.denied is None or end.held:
        return None
    why = f": {end.denied}" if end.denied else ""
    return untested(Cause.BIND_DENIED, f"{case.scene.probe.destination} could not listen{why}")


def port_was_occupied(case: Case) -> Judgement | None:
    """Another program holds the port: a connection is all the proof that can be had. One with
    a balancer in front of the backends is none.
    """
    end, leading = case.cell.end, case.leading
    if end.owner is None or end.held or end.in_front:
        return None
    owner = end.owner or "another program"
    if case.scene.probe.protocol == "tcp" and leading is not None:
        if leading.failure in _CONNECTED and end.owner_listens:
            return Judgement(verdict=Verdict.OPEN, proof="connection", owner=owner, held=False)
        if leading.failure not in {*_CONNECTED, Failure.RESET}:
            return None
    idle = case.scene.probe.protocol == "tcp" and not end.owner_listens
    doing = "holds the port, but does not listen" if idle else "holds the port there"
    return untested(Cause.PORT_IN_USE, f"{owner} {doing}", owner=owner)


def destination_did_not_confirm(case: Case) -> Judgement | None:
    """Nobody vouches for the destination's listener, so that a failure means nothing."""
    end = case.cell.end
    if not end.confirmed:
        return _not_confirmed(case)
    if end.held or (end.owner is not None and not end.in_front):
        return None
    name = case.scene.probe.destination
    if end.dropped:
        note = f"{name}'s agent had to drop attempts by its own limits, so silence proves nothing"
        return untested(Cause.SKIPPED, note)
    return untested(Cause.AGENT_LOST, f"{name}'s listener was not up all the time")


def connected_without_answer(case: Case) -> Judgement | None:
    """A handshake was completed. By whom, and what became of the connection?"""
    leading, cell, scene = case.leading, case.cell, case.scene
    if leading is None or leading.failure not in _CONNECTED:
        return None
    # Whoever balances and tells nothing of its own leads to the backends, which are confirmed.
    balancer = cell.end.in_front and cell.end.held and leading.failure in _TELL_NOTHING
    if (cell.end.owner is not None and not balancer) or leading.failure is Failure.CONNECTED_ONLY:
        owner = cell.end.owner or None
        note = "the connection that was made may be another program's"
        return untested(Cause.PORT_IN_USE, note, owner=owner)
    silent = leading.failure is Failure.SILENT_AFTER_CONNECT
    if silent and loss_may_explain(case):
        return too_lossy()
    if cell.seen is None:
        return untested(Cause.SKIPPED, "what the destination saw of it is not known")
    ending = Cause.STALLED if silent else Cause.CLOSED
    if cell.seen >= Seen.CONNECTION:
        return blocked(ending, case, possible=LEFT_BY_SIGHT[cell.seen], seen=True)
    other = seen_elsewhere(cell.outcomes, scene.probe, scene.index)
    if other is not None:
        return intercepted(Cause.WRONG_NODE, case, answered_by=other)
    if cell.seen is Seen.HANDSHAKE:
        return blocked(ending, case, possible=LEFT_BY_SIGHT[cell.seen], seen=False)
    if scene.vip:
        ending = Cause.STALLED if silent else Cause.NO_BACKEND
        return blocked(ending, case, possible=BEYOND_SOURCE, seen=False)
    return intercepted(Cause.IMPOSTOR, case)


def failed_for_the_pace(case: Case) -> Judgement | None:
    """Others that failed alike work when they are asked slowly."""
    failure = case.leading.failure if case.leading is not None else None
    if not case.cell.hasty or failure not in HASTY:
        return None
    note = (
        f"{AT_SPEED}: it failed in the sweep, as did others that worked when they were tried "
        "again, slowly (try --rate)"
    )
    return untested(Cause.LOSS, note)


def refused_by_icmp(case: Case) -> Judgement | None:
    """An ICMP error, its own or the one that its neighbours got."""
    failure = case.leading.failure if case.leading is not None else None
    icmp = case.leading.icmp if case.leading is not None else None
    denied = failure is Failure.SEND_DENIED and icmp is None
    if failure is Failure.NO_ANSWER or denied:
        icmp = case.cell.shared_icmp
    elif failure is not Failure.ICMP:
        return None
    if icmp is not None:
        where = place_of(icmp, case.scene)
        # Said of its neighbours by the source's own kernel, which told these nothing.
        own = failure is not Failure.ICMP and where is Where.SOURCE_EGRESS
        cause = Cause.SEND_DENIED if own else cause_of(icmp)
        return blocked(cause, case, where=where, icmp=icmp)
    if failure is Failure.ICMP:
        return blocked(Cause.ICMP_OTHER, case, possible=EVERYWHERE)
    return None


def refused_by_own_kernel(case: Case) -> Judgement | None:
    """The packet never left the source."""
    nobody = case.scene.no_neighbour
    if nobody is not None and case.leading and case.leading.failure is Failure.NO_ANSWER:
        # The kernel keeps a few packets for an address that it looks for, and drops the others
        # without a word (arp(7), unres_qlen): they share what was said of the few.
        return blocked(Cause.NO_NEIGHBOUR, case, where=Where.SOURCE_EGRESS, icmp=nobody.icmp)
    cause = _OWN_KERNEL.get(case.leading.failure or Failure.SKIPPED) if case.leading else None
    if cause is None or case.leading is None:
        return None
    if cause is Cause.NO_NEIGHBOUR and case.scene.heard:
        # Somebody is there, so the error was not of ARP or ND: the source's own firewall sent it.
        cause = Cause.SEND_DENIED
    return blocked(cause, case, where=Where.SOURCE_EGRESS, icmp=case.leading.icmp)


def reset_to_the_syn(case: Case) -> Judgement | None:
    """A RST although the listener was up: any firewall's, the source's own (on output) as well."""
    if case.leading is None or case.leading.failure is not Failure.RESET:
        return None
    return blocked(Cause.RESET, case, possible=LEFT_BY_SIGHT[Seen.NOTHING])


def silence(case: Case) -> Judgement:
    """Nothing came back."""
    if loss_may_explain(case):
        return too_lossy()
    sight, seen = case.cell.seen, was_seen(case)
    if case.scene.probe.protocol == "udp":
        if sight is Seen.CHALLENGE:
            # The listener's own kernel refused to send the answer.
            return blocked(Cause.NO_ANSWER, case, where=Where.DESTINATION_HOST, seen=seen)
        possible = EVERYWHERE if sight is None else LEFT_BY_SIGHT[sight]
        return blocked(Cause.NO_ANSWER, case, possible=possible, seen=seen)
    if sight is None or not seen:
        # The listener tells of every connection that it accepted, and had none of these. A SYN
        # may have come as far as its host all the same: only a whole handshake reaches it.
        unseen = False if case.cell.end.held else None
        return blocked(Cause.NO_ANSWER, case, possible=EVERYWHERE, seen=unseen)
    return blocked(Cause.NO_ANSWER, case, possible=LEFT_BY_SIGHT[sight], seen=seen)


RULES: tuple[Rule, ...] = (
    stranger_answered,
    right_agent_answered,
    another_life_answered,
    nothing_was_tried,
    port_was_denied,
    port_was_occupied,
    destination_did_not_confirm,
    connected_without_answer,
    failed_for_the_pace,
    refused_by_icmp,
    refused_by_own_kernel,
    reset_to_the_syn,
    silence,
)


def _is_left_out(case: Case) -> bool:
    """Whether nothing was sent because none of our agents could have answered: UDP knows no
    connecting alone, so no bound of the run was the reason.
    """
    end = case.cell.end
    if case.scene.probe.protocol != "udp" or end.held:
        return False
    return not end.ready or end.owner is not None


def _not_confirmed(case: Case) -> Judgement:
    scene, end = case.scene, case.cell.end
    if scene.no_neighbour is not None:
        note = f"nobody answers ARP or neighbour discovery for {scene.probe.address}"
        return untested(Cause.NO_NEIGHBOUR, note, icmp=scene.no_neighbour.icmp)
    if end.ready and scene.index.interrupted:
        note = f"{INTERRUPTED}{scene.probe.destination} was not asked any more"
        return untested(Cause.SKIPPED, note)
    agents = [scene.index.agents[n] for n in scene.probe.answerers if n in scene.index.agents]
    if agents and all(was_not_called(agent, scene.index) for agent in agents):
        note = f"{INTERRUPTED}{scene.probe.destination} was not reached yet"
        return untested(Cause.SKIPPED, note)
    note = "; ".join(agent_note(agent) for agent in agents)
    strangers = [answer.node for answer in case.answers if answer.kind == "other-node"]
    if strangers:
        note += f"; {min(strangers)} answered in its place"
    return untested(end.absence or Cause.AGENT_LOST, note)
