"""One plain sentence for each record, for the engineer who has to act on it."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from preflight.diagnosis.grading import Grade
from preflight.diagnosis.judgement import Judgement
from preflight.diagnosis.tally import Tally
from preflight.model.plan import Flow, Limits
from preflight.model.report import Cause, Verdict, Where
from preflight.ports import Ranges, count_ports, format_ports


class Story(Struct, frozen=True, kw_only=True):
    """A record to be: everything that its sentence may mention."""

    flow: Flow
    ports: Ranges
    judgement: Judgement
    tally: Tally
    grade: Grade | None
    limits: Limits
    vip: bool = False

    @property
    def place(self) -> str:
        """`10.0.1.11:6443`, `[fd00::11]:6443`, or `10.0.1.11 on 81 ports`."""
        address = self.flow.destination_address
        count = count_ports(self.ports)
        if count > 1:
            return f"{address} on {count} ports"
        host = f"[{address}]" if self.flow.family == IPV6 else address
        return f"{host}:{format_ports(self.ports)}"


IPV6 = 6

Sentence: TypeAlias = Callable[[Story], str]


def explain(story: Story) -> str:
    """The sentence of one record."""
    judgement = story.judgement
    if judgement.verdict is Verdict.UNTESTED:
        return judgement.note
    if judgement.cause is None:
        return _proven(story)
    said = _SENTENCES.get(judgement.cause, _refused)(story)
    if judgement.own_doing:
        said += f"; {story.flow.source}'s own firewall denies UDP to there, and may be why"
    return said


def _proven(story: Story) -> str:
    flow = story.flow
    if story.judgement.proof == "connection":
        return f"{flow.source} connected to {story.place}, held by {story.judgement.owner}"
    if story.tally.backends:
        counts = ", ".join(f"{node} {count}" for node, count in story.tally.backends.items())
        return f"{flow.destination} led {flow.source} to its backends (answers: {counts})"
    return f"{flow.destination} answered {flow.source}'s challenge at {story.place}"


def _loss(story: Story) -> str:
    tries = story.grade.tries if story.grade is not None else None
    lost, tried = (tries.lost, tries.tried) if tries is not None else (0, 0)
    late = story.grade.late if story.grade is not None else 0
    if late:
        which = "" if count_ports(story.ports) == 1 else f"on {late} of them "
        return f"{_proven(story)}, but {which}only when it was tried again, slowly"
    if story.flow.protocol == "udp":
        return f"{_proven(story)}, but {lost} of {tried} datagrams stayed unanswered"
    return f"{_proven(story)}, but {lost} of {tried} connections took more than one attempt"


def _path_mtu(story: Story) -> str:
    size = story.limits.full_size
    return (
        f"{_proven(story)} with small data, but {size:,} bytes do not pass: full packets are lost"
    )


def _silence(story: Story) -> str:
    flow, tally, seen = story.flow, story.tally, story.judgement.seen
    tries = _times(tally.attempts, "attempt" if flow.protocol == "tcp" else "datagram")
    what = "SYNs" if flow.protocol == "tcp" else "datagrams"
    waited = round(tally.waited or story.limits.patience, 1)
    said = f"{flow.source}'s {what} to {story.place} got no answer in {waited:g} s ({tries})"
    if not story.judgement.held:
        return f"{said}; {story.judgement.owner or 'another program'} holds the port there"
    if story.vip:
        return f"{said}; no backend of {flow.destination} told of them"
    if seen is None:
        return f"{said}; {flow.destination} was listening"
    if not seen:
        return f"{said}; {flow.destination} was listening and saw nothing"
    if story.judgement.where is Where.DESTINATION_HOST:
        return f"{said}; {flow.destination} got them, and its own host let no answer out"
    if Where.FORWARD_PATH in story.judgement.where_possible:
        return f"{said}, although something of them arrived at {flow.destination}"
    return f"{said}; {flow.destination} got them and answered, and the answers were lost"


def _reset(story: Story) -> str:
    flow = story.flow
    if story.vip:
        return (
            f"{flow.source}'s connections to {story.place} were refused with a TCP reset: "
            f"{flow.destination} has no backend that it thinks alive, or a firewall sends it"
        )
    return (
        f"{flow.source}'s connections to {story.place} were refused with a TCP reset although "
        f"{flow.destination} was listening: a firewall sends it, or a redirect to a port that "
        "nobody holds"
    )


def _refused(story: Story) -> str:
    """All causes that are ICMP errors."""
    flow, judgement = story.flow, story.judgement
    cause = judgement.cause.value.removeprefix("icmp-").replace("-", " ") if judgement.cause else ""
    sender = judgement.reported_by or "an unknown sender"
    if judgement.where is Where.DESTINATION_HOST:
        sender = f"{flow.destination}'s own host ({sender})"
    said = f"{sender} refuses {flow.source}'s packets to {story.place}: ICMP {cause}"
    silent = count_ports(story.ports) - story.tally.icmp_seen
    if silent > 0 and flow.protocol == "tcp":
        said += (
            f" (seen on {story.tally.icmp_seen}; the others are silent, as ICMP is rate-limited)"
        )
    return said


def _no_route(story: Story) -> str:
    flow = story.flow
    return f"{flow.source}'s own kernel has no route to {flow.destination_address}"


def _no_neighbour(story: Story) -> str:
    flow = story.flow
    asked = "neighbour discovery" if flow.family == IPV6 else "ARP"
    return f"nobody answers {flow.source}'s {asked} for {flow.destination_address}"


def _send_denied(story: Story) -> str:
    return f"{story.flow.source}'s own firewall or routing policy forbids sending to {story.place}"


def _stalled(story: Story) -> str:
    flow = story.flow
    met = f"{flow.source} connected to {story.place}, then nothing came"
    if not story.judgement.seen and story.vip:
        return f"{met}; none of the backends saw the connection"
    if not story.judgement.seen:
        return f"{met}; the SYN-ACK was repeated, so what follows the SYN does not arrive there"
    if Where.RETURN_PATH in story.judgement.where_possible:
        return f"{met}; {flow.destination} got the challenge"
    return f"{met}; {flow.destination} accepted the connection, and the challenge did not arrive"


def _closed(story: Story) -> str:
    flow = story.flow
    how = f" ({story.tally.errno})" if story.tally.errno else ""
    return (
        f"{flow.source} connected to {story.place}, {flow.destination} saw it, and the "
        f"connection was cut{how}"
    )


def _no_backend(story: Story) -> str:
    return f"{story.place} accepts and closes at once; none of the backends saw the connection"


def _wrong_node(story: Story) -> str:
    flow = story.flow
    return f"{story.judgement.answered_by} answered at {story.place} in {flow.destination}'s place"


def _impostor(story: Story) -> str:
    flow, judgement = story.flow, story.judgement
    if judgement.note:
        return f"{flow.source} asked {story.place}, but {judgement.note}"
    if story.tally.first_bytes:
        said = f"another program answered at {story.place} (first bytes {story.tally.first_bytes})"
    else:
        said = f"something completed {flow.source}'s connection to {story.place}"
    if judgement.seen:
        return said
    return f"{said}; {flow.destination} was listening and saw nothing of it"


def _times(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


_SENTENCES: dict[Cause, Sentence] = {
    Cause.LOSS: _loss,
    Cause.PATH_MTU: _path_mtu,
    Cause.NO_ANSWER: _silence,
    Cause.RESET: _reset,
    Cause.NO_ROUTE: _no_route,
    Cause.NO_NEIGHBOUR: _no_neighbour,
    Cause.SEND_DENIED: _send_denied,
    Cause.STALLED: _stalled,
    Cause.CLOSED: _closed,
    Cause.NO_BACKEND: _no_backend,
    Cause.WRONG_NODE: _wrong_node,
    Cause.IMPOSTOR: _impostor,
}
