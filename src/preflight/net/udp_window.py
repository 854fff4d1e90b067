"""How many UDP ports may be asked at once: as many as their listeners answer without delay.

A datagram that waits in a busy listener's buffer looks like a lost one, and is followed by more
of them. So a source begins with few ports, asks more while answers come soon, and fewer when
they come late. Ports that stay silent leave after a while, and let further ones in.
"""

FIRST_ROOM = 16.0
LEAST_ROOM, MOST_ROOM = 4.0, 4_096.0
LATE = 0.1
"""Seconds above the shortest round trip: an answer that takes longer had to queue."""
_LATE_SHRINKS = 0.7
_GROWS, _GROWS_IN_SILENCE = 1.0, 3.0
"""By how much each port that leaves widens it: silent ones stay longer, and load nobody."""


class UdpWindow:
    """The ports of one prober that are being asked and have not been silent for long."""

    def __init__(self) -> None:
        self.room = FIRST_ROOM
        self._taken = 0
        self._shortest = float("inf")
        self._late = False
        self._shrunk_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more may come in."""
        return self._taken < int(self.room)

    def enter(self) -> None:
        """A port is going to be asked."""
        self._taken += 1

    def leave(self, *, silent: bool) -> None:
        """A port is through, or is set aside because it stays silent.

        Silence alone is no reason to hesitate: all ports of a range may be silent.
        """
        self._taken -= 1
        if not self._late:
            grown = self.room + (_GROWS_IN_SILENCE if silent else _GROWS)
            self.room = min(MOST_ROOM, grown)

    def note_answer(self, seconds: float, now: float) -> None:
        """A datagram was answered after so long. One that was sent before the window last
        shrank says nothing about its size now.
        """
        self._shortest = min(self._shortest, seconds)
        self._late = seconds > self._shortest + LATE
        if self._late and now - seconds >= self._shrunk_at:
            self._shrunk_at = now
            self.room = max(LEAST_ROOM, self.room * _LATE_SHRINKS)
