"""How many UDP ports are asked at once."""

import pytest

from preflight.net.udp_window import FIRST_ROOM, LEAST_ROOM, MOST_ROOM, UdpWindow


def ask(window: UdpWindow, *, seconds: float | None) -> int:
    """Fill the window, and let all of it be answered after so long (None: never)."""
    asked = 0
    while window.has_room:
        window.enter()
        asked += 1
    for _ in range(asked):
        if seconds is not None:
            window.note_answer(seconds, now=1.0)
        window.leave(silent=seconds is None)
    return asked


@pytest.mark.parametrize("seconds", [0.001, 0.3], ids=["near", "far"])
def test_it_doubles_where_nothing_queues(seconds: float) -> None:
    window = UdpWindow()
    asked = [ask(window, seconds=seconds) for _ in range(10)]
    assert asked == [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096]
    assert window.room == MOST_ROOM


def test_a_silent_range_is_soon_asked_whole() -> None:
    window = UdpWindow()
    assert [ask(window, seconds=None) for _ in range(5)] == [16, 64, 256, 1024, 4096]


def test_late_answers_shrink_it_once_a_round_trip_and_it_never_closes() -> None:
    window = UdpWindow()
    ask(window, seconds=0.001)
    before = window.room
    window.note_answer(0.2, now=2.0)
    shrunk = window.room
    assert shrunk < before
    window.note_answer(0.3, now=2.1)  # sent before that
    assert window.room == shrunk
    window.note_answer(0.3, now=2.4)
    assert window.room < shrunk
    for second in range(3, 40):
        window.note_answer(0.2, now=float(second))
    assert window.room == LEAST_ROOM
    assert window.has_room


def test_while_answers_come_late_silence_does_not_widen_it() -> None:
    window = UdpWindow()
    window.note_answer(0.001, now=1.0)
    window.note_answer(0.5, now=2.0)
    before = window.room
    assert before < FIRST_ROOM
    ask(window, seconds=None)
    assert window.room == before
    ask(window, seconds=0.001)
    assert window.room > before
