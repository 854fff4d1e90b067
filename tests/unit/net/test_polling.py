"""Timers that are set while others fire."""

from contextlib import closing

from preflight.net.polling import Polling


def test_what_a_timer_sets_for_now_has_its_turn_after_the_next_poll() -> None:
    fired: list[int] = []
    with closing(Polling[str]()) as loop:

        def again(number: int) -> None:
            fired.append(number)
            loop.at(loop.now, again, number + 1)

        loop.at(loop.now, again, 0)
        loop.fire_timers()
        assert fired == [0]
        assert list(loop.poll(0.0)) == []
        loop.fire_timers()
        assert fired == [0, 1]


def test_timers_fire_in_the_order_of_their_times() -> None:
    fired: list[str] = []
    with closing(Polling[str]()) as loop:
        loop.at(loop.now, fired.append, "second")
        loop.at(loop.now - 1, fired.append, "first")
        loop.at(loop.now + 60, fired.append, "never")
        loop.fire_timers()
    assert fired == ["first", "second"]
