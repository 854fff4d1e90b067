"""A run's bounds, shared out to its sources: together they never get more than the run may use.

How much a source has to do is the number of connections and first datagrams that it begins if
everything works.
"""

from collections.abc import Mapping

from preflight.errors import ConfigError
from preflight.model.plan import Limits

MOST_ATTEMPTS = 14
"""Connections that one TCP port can get: 12 SYNs, and two more where it is connected and no
answer comes."""
TRIES_OF_A_LOOK = 2
"""How often the second look tries a port: again after a longer quiet, where it was silent."""
_SECOND_LOOK = 10
"""One in so many of the unanswered SYNs is the second look's. It comes within seconds of the
first pass, and would find nothing left just where much was silent."""
_LEAST_EACH = 2
_SMALLEST_RATE = 50.0
"""Connections a second that every source may begin, as long as these are together at most a
tenth of the run's: a few flows must not wait behind the NodePorts of others."""
_FLOORS = 0.1


def first_pass_half_open(limits: Limits) -> int:
    """How many SYNs the first pass may leave without an answer."""
    return limits.max_half_open - _looked_at_again(limits)


def most_looks(limits: Limits) -> int:
    """How many ports the second look may try in the whole run, within all of its bounds."""
    looks = _looked_at_again(limits) // TRIES_OF_A_LOOK
    if limits.rate is None:
        return looks
    return min(looks, int(limits.rate * limits.second_look / TRIES_OF_A_LOOK))


def check_half_open(limits: Limits, sources: int) -> None:
    """Raises `ConfigError` where so many sources can't share the bound: one SYN each is needed."""
    least = _LEAST_EACH * sources
    if limits.max_half_open < least:
        raise ConfigError(
            f"{limits.max_half_open} is too few for the {sources} sources of this run: "
            f"it must be at least {least}",
            path="--max-half-open",
        )


def share_half_open(bound: int, work: Mapping[str, int]) -> dict[str, int]:
    """Each source's part of a bound on unanswered SYNs, never more than it can use.

    A source with few flows gets what it needs of an equal part first, so that it doesn't lose
    them, and its retries, to another one's NodePorts.
    """
    needs = {source: max(1, MOST_ATTEMPTS * part) for source, part in work.items()}
    equal = max(1, bound // (2 * max(1, len(work))))
    floors = {source: min(need, equal) for source, need in needs.items()}
    left = max(0, bound - sum(floors.values()))
    above = sum(needs.values()) - sum(floors.values())
    return {
        source: floors[source]
        + min(needs[source] - floors[source], left * (needs[source] - floors[source]) // above)
        if above
        else floors[source]
        for source in work
    }


def share_rate(rate: float | None, work: Mapping[str, int]) -> dict[str, float | None]:
    """Each source's part of the rate, by how much it has to do; None: no limit."""
    if rate is None:
        return dict.fromkeys(work)
    total = max(1, sum(work.values()))
    floor = min(_SMALLEST_RATE, rate * _FLOORS / max(1, len(work)))
    small = {source for source, part in work.items() if rate * part / total < floor}
    left, rest = rate - floor * len(small), total - sum(work[source] for source in small)
    return {
        source: floor if source in small else left * part / max(1, rest)
        for source, part in work.items()
    }


def _looked_at_again(limits: Limits) -> int:
    return limits.max_half_open // _SECOND_LOOK
