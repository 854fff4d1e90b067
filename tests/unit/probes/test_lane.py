"""The pace of a lane of the second look, with times made short."""

import asyncio
import time

import pytest

from preflight.model.observation import Failure
from preflight.net.prober import PortResult
from preflight.probes import lane as lane_module
from preflight.probes.lane import Lane

USUAL, SLOW, SLOW_PATIENCE = 0.05, 0.2, 0.3


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "SECOND_LOOK_INTERVAL", USUAL)
    monkeypatch.setattr(lane_module, "SLOW_SECOND_LOOK_INTERVAL", SLOW)
    monkeypatch.setattr(lane_module, "SLOW_PATIENCE", SLOW_PATIENCE)
    monkeypatch.setattr(lane_module, "SINGLE_PATIENCE", 0.0)


class Router:
    """Refuses what comes after enough quiet, except for what it drops."""

    def __init__(self, needs: float, *dropped: int, takes: float = 0.0) -> None:
        self.needs = needs
        self.dropped = dropped
        self.takes = takes
        self.tried: list[tuple[int, float]] = []
        self.told: list[tuple[int, Failure | None]] = []

    async def look(self, _index: int, port: int) -> PortResult:
        now = time.monotonic()
        quiet = now - self.tried[-1][1] if self.tried else self.needs
        self.tried.append((port, now))
        await asyncio.sleep(self.takes)
        # A tenth is forgiven: the clock of the loop is read a little later than its timer fires.
        refused = quiet >= self.needs * 0.9 and port not in self.dropped
        return PortResult(port=port, failure=Failure.ICMP if refused else Failure.NO_ANSWER)

    def tell(self, _index: int, result: PortResult) -> None:
        self.told.append((result.port, result.failure))

    async def walk(self, *ports: int, deadline: float = 60.0, slow: bool = False) -> None:
        turns = [(0, port) for port in ports]
        await Lane(turns, self.look, self.tell, deadline=deadline, slow=slow).run()


async def test_a_usual_sender_is_asked_at_its_pace() -> None:
    router = Router(USUAL)
    began = time.monotonic()
    await router.walk(1, 2, 3)
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert router.tried[0][1] - began >= USUAL * 0.9
    assert [port for port, _ in router.tried] == [1, 2, 3]


async def test_a_sender_that_needs_more_quiet_gets_it_and_no_port_is_called_silent() -> None:
    router = Router(SLOW)
    await router.walk(1, 2, 3)
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert [port for port, _ in router.tried] == [1, 2, 2, 3]


async def test_a_dropped_port_gets_a_second_try_while_the_sender_may_be_slow() -> None:
    router = Router(USUAL, 1, 2)
    await router.walk(1, 2, 3)
    assert router.told == [(1, Failure.NO_ANSWER), (2, Failure.NO_ANSWER), (3, Failure.ICMP)]
    assert [port for port, _ in router.tried] == [1, 1, 2, 2, 3]


async def test_after_two_errors_at_the_usual_pace_silence_is_silence() -> None:
    router = Router(USUAL, 3, 4)
    await router.walk(1, 2, 3, 4, 5)
    silent = [(3, Failure.NO_ANSWER), (4, Failure.NO_ANSWER)]
    assert router.told == [(1, Failure.ICMP), (2, Failure.ICMP), *silent, (5, Failure.ICMP)]
    assert [port for port, _ in router.tried] == [1, 2, 3, 4, 5]


async def test_dropped_ports_do_not_make_a_lane_slow() -> None:
    router = Router(USUAL, 1)
    await router.walk(1, 2, 3)
    times = [when for _, when in router.tried]
    assert times[1] - times[0] >= SLOW * 0.9
    assert times[2] - times[1] < SLOW * 0.9
    assert times[3] - times[2] < SLOW * 0.9


async def test_what_the_deadline_leaves_is_skipped_a_hasty_silence_with_it() -> None:
    router = Router(SLOW)
    await router.walk(1, 2, 3, deadline=USUAL * 2.5)
    assert router.told[0] == (1, Failure.ICMP)
    assert {*router.told[1:]} == {(2, Failure.SKIPPED), (3, Failure.SKIPPED)}


async def test_tries_that_take_long_overlap() -> None:
    router = Router(SLOW, takes=SLOW_PATIENCE)
    began = time.monotonic()
    await router.walk(1, 2, 3, slow=True)
    assert sorted(router.told) == [(1, Failure.ICMP), (2, Failure.ICMP), (3, Failure.ICMP)]
    assert time.monotonic() - began < 3 * (SLOW + SLOW_PATIENCE)


async def test_a_slow_lane_begins_nothing_that_could_not_end() -> None:
    router = Router(SLOW, takes=SLOW_PATIENCE)
    await router.walk(1, 2, deadline=SLOW + SLOW_PATIENCE + SLOW / 2, slow=True)
    assert router.told == [(2, Failure.SKIPPED), (1, Failure.ICMP)]
