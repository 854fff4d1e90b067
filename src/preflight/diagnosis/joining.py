"""What the destination saw of each attempt: probe ids first, addresses and ports second."""

from collections import defaultdict
from collections.abc import Iterable
from enum import IntEnum

from preflight.columns import each_attempt
from preflight.diagnosis.index import Index, canonical
from preflight.model.observation import Attempt, Outcome, Sightings
from preflight.model.plan import Probe
from preflight.ports import Ranges, from_ports


class Seen(IntEnum):
    """How far an unanswered attempt came, as listeners tell it. The highest of a port counts."""

    NOTHING = 0
    """The listeners were asked about these attempts, and saw none."""
    ELSEWHERE = 1
    """Only another node's listener saw the challenge."""
    HANDSHAKE = 2
    """Nothing was accepted, but the SYN-ACK was repeated: what follows the SYN is lost."""
    CONNECTION = 3
    """A connection was accepted; no valid challenge came on it."""
    CHALLENGE = 4
    """The challenge arrived; no answer was sent."""
    ANSWERED = 5
    """The challenge arrived, and the answer left the destination's program."""


def ports_by_sight(probe: Probe, index: Index) -> tuple[tuple[Seen, Ranges], ...]:
    """The probe's ports with unanswered attempts, by what the listeners saw of them.

    A port whose attempts are not listed is in none of them: nothing is known of it.
    """
    best: dict[int, Seen] = {}
    for outcome in index.outcomes.get(probe.id, ()):
        for attempt in each_attempt(outcome.unanswered):
            seen = sight_of(attempt, probe, index)
            best[attempt.port] = max(best.get(attempt.port, Seen.NOTHING), seen)
    ports: dict[Seen, list[int]] = defaultdict(list)
    for port, seen in best.items():
        ports[seen].append(port)
    return tuple((seen, from_ports(ports[seen])) for seen in sorted(ports))


def sight_of(attempt: Attempt, probe: Probe, index: Index) -> Seen:
    """How far one attempt came."""
    challenged = [s for s in index.challenged.get(attempt.probe_id, ()) if _is_of(s, probe)]
    here = [sighting for sighting in challenged if sighting.node in probe.answerers]
    if here:
        return Seen.ANSWERED if any(s.answered for s in here) else Seen.CHALLENGE
    if probe.protocol == "tcp" and _accepted(attempt, probe, index):
        return Seen.CONNECTION
    if challenged:
        return Seen.ELSEWHERE
    return Seen.HANDSHAKE if attempt.unheard else Seen.NOTHING


def seen_elsewhere(outcomes: Iterable[Outcome], probe: Probe, index: Index) -> str | None:
    """The node, not one of the right ones, that saw a challenge of these outcomes."""
    nodes = {
        sighting.node
        for outcome in outcomes
        for attempts in outcome.unanswered
        for probe_id in attempts.probe_ids
        for sighting in index.challenged.get(probe_id, ())
        if sighting.node not in probe.answerers
    }
    return min(nodes, default=None)


def _is_of(sighting: Sightings, probe: Probe) -> bool:
    return sighting.protocol == probe.protocol


def _accepted(attempt: Attempt, probe: Probe, index: Index) -> bool:
    """Whether a connection without a challenge was this attempt's.

    A translator on the way may change the source's port as well as its address, so that any
    such connection from the translated address to the attempted port counts. Where nothing
    told how the source is translated, so does one that no node can have made by itself; where
    other connections show that it is not, that one is a bystander's (a health check's).
    """
    local = canonical(attempt.local_address)
    translated = index.translated.get((probe.source, probe.destination), frozenset())
    as_it_is = (probe.source, canonical(probe.address)) in index.untranslated
    anybodys = bool(translated) or not as_it_is
    for node in probe.answerers:
        for sighting in index.unchallenged.get((node, attempt.port), ()):
            source = canonical(sighting.source_address)
            if source in translated:
                return True
            if source == local and sighting.source_port == attempt.local_port:
                return True
            claimed = (source, sighting.source_port) in index.claimed
            if anybodys and not claimed and source not in index.node_addresses:
                return True
    return False
