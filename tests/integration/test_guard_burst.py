"""An hour of three instances that ask for all they can get: what the broker sees stays within its limits, whatever
happens to their Redis. The clock is the test's, so the hour takes seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.brokers.guard import CallBudget, Rates, SharedRedis, connect
from tests.fake_store import FakeClock
from tests.fakes import FakeNotifier
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

FYERS_ORDERS_A_SECOND, FYERS_CALLS_A_MINUTE, FYERS_CALLS_A_SECOND = 10, 200, 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


class Line(SharedRedis):
    """A connection that can be cut without a time-out, so that a long cut takes no real time."""

    cut = False

    def ask(self, work: Callable[[Any], Any]) -> tuple[Any] | None:
        return None if self.cut else super().ask(work)


class Burst:
    """The moments at which calls went out. `greedy` names the instances that ask; the others are idle."""

    def __init__(self, server: RedisServer, seed: int = 1) -> None:
        self.server, self.clock, self.random = server, FakeClock(), random.Random(seed)
        rates = Rates(processes=3)
        self.lines = [Line(connect(server.url), self.clock.monotonic) for _ in range(3)]
        self.budgets = [CallBudget(rates, self.clock, FakeNotifier(), line) for line in self.lines]
        self.calls: list[float] = []
        self.orders: list[float] = []

    def run(self, seconds: float, greedy: tuple[int, ...] = (0, 1, 2), step_s: float = 0.9) -> None:
        """Entries, exits and the reconciler's reads, each instance as often as it may."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            for number in self.random.sample(greedy, len(greedy)):
                budget, now = self.budgets[number], self.clock.monotonic()
                if budget.take_read(reserved=False) is None:
                    self.calls.append(now)
                for reserved in (False, True):
                    while budget.take_order(reserved=reserved) is None:
                        self.calls.append(now)
                        self.orders.append(now)
                if budget.take_read(reserved=True) is None:
                    self.calls.append(now)
            self.clock.advance(step_s * self.random.uniform(0.5, 1.5))

    def judge(self) -> None:
        assert most_within(self.orders, 1) <= FYERS_ORDERS_A_SECOND
        assert most_within(self.calls, 1) <= FYERS_CALLS_A_SECOND
        assert most_within(self.calls, 60) <= FYERS_CALLS_A_MINUTE

    def in_the_last(self, seconds: float) -> int:
        return sum(at > self.clock.monotonic() - seconds for at in self.calls)


def most_within(times: list[float], seconds: float) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_an_hour_with_redis_killed_half_way(server: RedisServer) -> None:
    burst = Burst(server)
    burst.run(1500)
    assert burst.in_the_last(60) > 120, "with Redis, nearly all of the minute is given out"
    server.kill()
    burst.run(600)
    assert burst.in_the_last(60) > 120, "without it, the shares of all three"
    server.start()
    burst.run(400)
    assert burst.in_the_last(60) > 120
    server.flush()
    burst.run(400)
    server.hang()
    burst.run(3, step_s=1)
    server.resume()
    burst.run(700)
    assert burst.in_the_last(60) > 120
    burst.judge()


@pytest.mark.parametrize("blow", ["kill", "flush"])
def test_one_spends_all_and_then_the_others_lose_redis(server: RedisServer, blow: str) -> None:
    """The worst moment: what the two idle ones think is free was spent by the third a moment ago."""
    burst = Burst(server)
    burst.run(200, greedy=(0, 1, 2))
    burst.run(61, greedy=())
    burst.clock.advance(61)
    burst.run(28, greedy=(0,))
    assert burst.in_the_last(60) > 120
    getattr(server, blow)()
    before = len(burst.calls)
    burst.run(30, greedy=(1, 2))
    assert len(burst.calls) > before, "nor does the loss stop everything for a minute"
    burst.run(170, greedy=(1, 2))
    burst.judge()


def test_back_from_a_kill_at_different_times(server: RedisServer) -> None:
    burst = Burst(server)
    burst.run(200)
    server.kill()
    burst.run(130)
    server.start()
    burst.run(30, greedy=(0,))
    burst.run(30, greedy=(1,))
    burst.run(200)
    burst.judge()


def test_all_cut_off_and_back_with_redis_unharmed(server: RedisServer) -> None:
    """It has not counted what went out meanwhile, and looks as trustworthy as ever."""
    burst = Burst(server)
    burst.run(200)
    for line in burst.lines:
        line.cut = True
    burst.run(70)
    burst.clock.advance(62)
    burst.run(8, greedy=(1, 2))
    for line in burst.lines:
        line.cut = False
    burst.run(100, greedy=(0,))
    burst.judge()


def test_one_process_alone_needs_no_redis(server: RedisServer) -> None:
    clock = FakeClock()
    budget = CallBudget(Rates(), clock, FakeNotifier(), SharedRedis(connect(server.url), clock.monotonic))
    times: list[float] = []
    for second in range(300):
        if second == 100:
            server.kill()
        times += [clock.monotonic() for _ in range(20) if budget.take_read(reserved=True) is None]
        clock.advance(1.1)
    assert most_within(times, 60) == FYERS_CALLS_A_MINUTE
