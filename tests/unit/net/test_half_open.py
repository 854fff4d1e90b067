from preflight.net.half_open import KEPT_SECONDS, HalfOpen

NOW = 1_000.0


def test_what_is_on_its_way_and_what_got_no_answer_is_bounded() -> None:
    half_open = HalfOpen(2)
    assert half_open.take(NOW)
    assert half_open.take(NOW)
    assert not half_open.take(NOW)
    half_open.leave(NOW)
    assert not half_open.take(NOW)
    half_open.give_back()
    assert half_open.take(NOW)


def test_room_may_be_left_for_others() -> None:
    half_open = HalfOpen(3)
    assert not half_open.take(NOW, leaving=3)
    assert half_open.take(NOW, leaving=2)
    assert not half_open.take(NOW, leaving=2)


def test_firewalls_forget_after_two_minutes() -> None:
    half_open = HalfOpen(1)
    assert half_open.wait(NOW) == 0.0
    assert half_open.take(NOW)
    assert half_open.wait(NOW) is None  # an answer may come at any time
    half_open.leave(NOW + 4.0)
    assert half_open.wait(NOW + 10.0) == KEPT_SECONDS - 6.0
    assert not half_open.take(NOW + 4.0 + KEPT_SECONDS - 0.01)
    assert half_open.take(NOW + 4.0 + KEPT_SECONDS)
