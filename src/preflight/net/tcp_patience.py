"""How many SYNs make a silence believable, by what was lost on the way. Arithmetic only.

Under loss many SYNs close together settle more than long patience does; without any, a few
suffice. What is "without any" depends on how many handshakes there were to lose: of three,
none may be lost although every third is.
"""

import functools
import math
from typing import NamedTuple

MOST_SYNS = 12
FEWEST_SYNS = 3
FRESH_SYN_INTERVAL = 0.55
"""Seconds between two sockets of one port. Beside the kernel's own repeat a second after each
SYN, two sockets send the third SYN after 1 s and the fourth after 1.55 s."""
LONGEST_SILENCE = 6.0
"""Seconds after its first SYN until a port is given up, whatever the loss."""

_FALSE_SILENCE = 1e-6
"""How probable one port wrongly called silent may be, over all ports of an order."""
_LAST_WAIT = 0.4
_ROUND_TRIPS = 3


class Persistence(NamedTuple):
    """How much is done about a port that stays silent."""

    syns: int
    """SYNs in all, the kernel's own included; 0: the kernel's own must do."""
    seconds: float
    """After the first SYN, how long further ones may begin."""
    asks_again: bool = True
    """A connection that stands still is followed by others."""
    last_wait: float | None = None
    """Seconds after the last of these SYNs until silence is believed; None: at the end of the
    port's patience."""
    heard_at: float = 0.0
    """When the newest SYN was sent that the destination answered on any port: what stays silent
    while the others answer is silent by itself, and not because the way was gone for a while."""


@functools.lru_cache(maxsize=64)
def needed_syns(ports: int, answered: int, lost: int) -> int:
    """How many SYNs a port needs so that loss does not explain its silence.

    `ports` may each be wrongly called silent; of all SYNs to them `answered` and `lost` are
    known. With a loss of p on the way and back, k SYNs of a port are lost with p^k. p is not
    known: taken is the worst one, each weighed by how likely it makes what was seen, compared
    with the most likely one (the likelihood ratio).
    """
    for syns in range(FEWEST_SYNS, MOST_SYNS + 1):
        if _log_chance(syns, answered, lost) + math.log(ports) < math.log(_FALSE_SILENCE):
            return syns
    return MOST_SYNS + 1


def last_wait(slowest: float) -> float:
    """Seconds that the last SYN is given, where the slowest handshake took so long."""
    return max(_LAST_WAIT, _ROUND_TRIPS * slowest)


def _log_chance(syns: int, answered: int, lost: int) -> float:
    """Log of the greatest p^syns * likelihood(p) / likelihood(the most likely p)."""
    if not answered:
        return 0.0
    worst = (lost + syns) / (lost + syns + answered)
    log = syns * math.log(worst) + answered * math.log1p(-worst)
    if lost:
        likely = lost / (lost + answered)
        log += lost * math.log(worst / likely) - answered * math.log1p(-likely)
    return log
