"""How long a connection stays in its destination's part of the window."""

import pytest

from preflight.net.tcp_window import WINDOW, Window


def test_destinations_that_wait_have_equal_parts_and_never_none() -> None:
    window = Window()
    window.taken = WINDOW // 4
    assert window.has_room(3)
    assert not window.has_room(4)
    window.taken = 0
    assert window.has_room(10 * WINDOW)


def test_where_nothing_moves_connections_soon_leave_as_fast_as_silent_ones() -> None:
    window = Window()
    assert window.stay(asking=True) == 0.5
    for _ in range(60):
        window.note_stall()
    assert window.stay(asking=True) == window.stay(asking=False) == pytest.approx(0.03)


def test_answers_say_how_long_an_answer_takes() -> None:
    window = Window()
    for _ in range(60):
        window.note_answer(0.05)
    assert window.stay(asking=True) == pytest.approx(0.2, rel=0.01)
    for _ in range(60):
        window.note_answer(3.0)
    assert window.stay(asking=True) == pytest.approx(0.5, rel=0.01)


def test_a_distant_destination_is_waited_for_a_few_round_trips() -> None:
    window = Window()
    for _ in range(60):
        window.note_handshake(0.04)
    assert window.stay(asking=False) == pytest.approx(0.16, rel=0.01)
    for _ in range(200):
        window.note_stall()
    assert window.stay(asking=True) == window.stay(asking=False)
