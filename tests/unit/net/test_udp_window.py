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
            window.note_answer(seconds)
        window.leave()
    return asked


@pytest.mark.parametrize("seconds", [0.001, 0.3, None], ids=["near", "far", "silent"])
def test_it_doubles_where_nothing_queues(seconds: float | None) -> None:
    window = UdpWindow()
    assert [ask(window, seconds=seconds) for _ in range(7)] == [8, 16, 32, 64, 128, 256, 256]
    assert window.room == MOST_ROOM


def test_late_answers_shrink_it_and_it_never_closes() -> None:
    window = UdpWindow()
    ask(window, seconds=0.001)
    before = window.room
    window.note_answer(0.2)
    assert window.room < before
    for _ in range(100):
        window.note_answer(0.2)
    assert window.room == LEAST_ROOM
    assert window.has_room


def test_while_answers_come_late_silence_does_not_widen_it() -> None:
    window = UdpWindow()
    window.note_answer(0.001)
    window.note_answer(0.5)
    before = window.room
    assert before < FIRST_ROOM
    ask(window, seconds=None)
    assert window.room == before
    ask(window, seconds=0.001)
    assert window.room > before
