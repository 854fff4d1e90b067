"""One destination's part of the window: how many connections to it may be making progress.

Each destination has a part of its own, so that one where everything stands still keeps
nothing from the others. A connection that makes no progress leaves after a while that is
learnt from those that do.
"""

WINDOW = 256
"""Connections of one prober that make progress, over all destinations: more of them only
overrun the listeners."""

_SHORTEST_STAY = 0.03
_LONGEST_CONNECTING, _LONGEST_ASKING = 0.25, 0.5
_ROUND_TRIPS = 4
_WEIGHT = 1 / 8
_STALL_SHRINKS = 0.95


class Window:
    """How many connections are in it now, and how long they stay. Times are in seconds."""

    __slots__ = ("_asking", "_connecting", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._connecting = _SHORTEST_STAY
        self._asking = _LONGEST_ASKING

    def has_room(self, sharers: int) -> bool:
        """Whether one more may come in, while so many destinations have work waiting."""
        return self.taken < max(1, WINDOW // max(1, sharers))

    def stay(self, *, asking: bool) -> float:
        """After its SYN, how long a connection stays without a SYN-ACK, or without an answer."""
        return max(self._asking, self._connecting) if asking else self._connecting

    def note_handshake(self, seconds: float) -> None:
        """A SYN was answered after so long."""
        self._connecting = _approach(self._connecting, seconds, _LONGEST_CONNECTING)

    def note_answer(self, seconds: float) -> None:
        """A challenge was answered so long after its SYN."""
        self._asking = _approach(self._asking, seconds, _LONGEST_ASKING)

    def note_stall(self) -> None:
        """A connection left without an answer: if that goes on, the next leave sooner."""
        self._asking = max(_SHORTEST_STAY, self._asking * _STALL_SHRINKS)


def _approach(stay: float, seconds: float, longest: float) -> float:
    wanted = min(longest, max(_SHORTEST_STAY, seconds * _ROUND_TRIPS))
    return stay + (wanted - stay) * _WEIGHT
