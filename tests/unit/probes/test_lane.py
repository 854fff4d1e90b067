"""The pace of a lane of the second look, by a clock that no machine is too slow for."""

import asyncio
import selectors
from typing import Any

from preflight.model.observation import Failure
from preflight.model.plan import (
    BRIEF_INTERVAL,
    BRIEF_PATIENCE,
    SECOND_LOOK_INTERVAL,
    SLOW_PATIENCE,
    SLOW_SECOND_LOOK_INTERVAL,
)
from preflight.net.prober import PortResult
from preflight.probes.lane import Lane

USUAL, SLOW = SECOND_LOOK_INTERVAL, SLOW_SECOND_LOOK_INTERVAL
A_BIT = 0.001


class Clock(selectors.SelectSelector):
    """Instead of waiting, the time to wait has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class ClockedLoop(asyncio.SelectorEventLoop):
    """An event loop that goes by a `Clock`."""

    def __init__(self) -> None:
        self._clock = Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class Router:
    """Refuses what comes after enough quiet, except for what it drops."""

    def __init__(self, needs: float, *dropped: int, takes: float = 0.0) -> None:
        self.needs = needs
        self.dropped = dropped
        self.takes = takes
        self.tried: list[tuple[int, float]] = []
        self.told: list[tuple[int, Failure | None]] = []
        self.ended = 0.0

    async def look(self, _index: int, port: int) -> PortResult:
        now = asyncio.get_running_loop().time()
        quiet = now - self.tried[-1][1] if self.tried else now
        self.tried.append((port, now))
        await asyncio.sleep(self.takes)
        refused = quiet >= self.needs - A_BIT and port not in self.dropped
        return PortResult(port=port, failure=Failure.ICMP if refused else Failure.NO_ANSWER)

    def tell(self, _index: int, result: PortResult) -> None:
        self.told.append((result.port, result.failure))

    def walk(self, *ports: int, deadline: float = 60.0, **kind: bool) -> None:
        async def run() -> None:
            turns = [(0, port) for port in ports]
            kinds = {"slow": False, **kind}
            await Lane(turns, self.look, self.tell, deadline=deadline, **kinds).run()
            self.ended = asyncio.get_running_loop().time()

        with asyncio.Runner(loop_factory=ClockedLoop) as runner:
            runner.run(run())

    @property
    def ports(self) -> list[int]:
        return [port for port, _ in self.tried]

    @property
    def times(self) -> list[float]:
        return [round(when, 2) for _, when in self.tried]


def test_a_usual_sender_is_asked_at_its_pace() -> None:
    router = Router(USUAL)
    router.walk(1, 2, 3)
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert router.ports == [1, 2, 3]
    assert router.times == [1.1, 2.2, 3.3]


def test_a_sender_that_needs_more_quiet_gets_it_and_no_port_is_called_silent() -> None:
    router = Router(SLOW)
    router.walk(1, 2, 3)
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert router.ports == [1, 1, 2, 3]
    assert router.times == [1.1, 3.3, 5.5, 7.7]


def test_a_dropped_port_gets_a_second_try_while_the_sender_may_be_slow() -> None:
    router = Router(USUAL, 1, 2)
    router.walk(1, 2, 3)
    assert router.told == [(1, Failure.NO_ANSWER), (2, Failure.NO_ANSWER), (3, Failure.ICMP)]
    assert router.ports == [1, 1, 2, 2, 3]


def test_after_two_errors_at_the_usual_pace_silence_is_silence() -> None:
    router = Router(USUAL, 3, 4)
    router.walk(1, 2, 3, 4, 5)
    silent = [(3, Failure.NO_ANSWER), (4, Failure.NO_ANSWER)]
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), *silent, (5, Failure.ICMP)]
    assert router.ports == [1, 2, 3, 4, 5]


def test_dropped_ports_do_not_make_a_lane_slow() -> None:
    router = Router(USUAL, 1)
    router.walk(1, 2, 3)
    assert router.ports == [1, 1, 2, 3]
    assert router.times == [1.1, 3.3, 4.4, 5.5]


def test_what_the_deadline_leaves_is_skipped_a_hasty_silence_with_it() -> None:
    router = Router(SLOW)
    router.walk(1, 2, 3, deadline=SLOW + USUAL + A_BIT)
    assert router.told[0] == (1, Failure.ICMP)
    assert {*router.told[1:]} == {(2, Failure.SKIPPED), (3, Failure.SKIPPED)}


def test_tries_that_take_long_overlap() -> None:
    router = Router(SLOW, takes=SLOW_PATIENCE)
    router.walk(1, 2, 3, slow=True)
    assert sorted(router.told) == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert round(router.ended, 2) == round(3 * SLOW + SLOW_PATIENCE, 2)


def test_a_slow_lane_begins_nothing_that_could_not_end() -> None:
    router = Router(SLOW, takes=SLOW_PATIENCE)
    router.walk(1, 2, deadline=SLOW + SLOW_PATIENCE + SLOW / 2, slow=True)
    assert router.told == [(2, Failure.SKIPPED), (1, Failure.ICMP)]


def test_a_brief_lane_tries_each_port_once_and_is_soon_over() -> None:
    router = Router(SLOW, takes=BRIEF_PATIENCE)
    router.walk(1, 2, 3, brief=True)
    assert sorted(router.told) == [(port, Failure.NO_ANSWER) for port in (1, 2, 3)]
    assert router.times == [0.2, 0.4, 0.6]
    assert round(router.ended, 2) == round(3 * BRIEF_INTERVAL + BRIEF_PATIENCE, 2)


def test_an_error_makes_no_brief_lane_slow() -> None:
    router = Router(0.0)
    router.walk(1, 2, 3, brief=True)
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert router.times == [0.2, 0.4, 0.6]
