"""An hour of three instances before one broker, through the guard, the client and the wire: what the broker's own
ledger says of it. The clock is the simulator's, so that the hour takes a minute or so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest

from app.brokers.fyers import sdk
from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import StaticTokens
from app.brokers.guard import CallBudget, Guard, GuardedExchanger, Rates, SharedRedis, connect
from app.domain.alert import Product
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import NotSent
from app.errors import BrokerReadFailed
from tests.fakes import FakeNotifier
from tests.fyers_sim import FyersSim, SimClock, nifty_ticker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

MORNING = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)  # a Wednesday, 10:00 IST
TICKER = nifty_ticker(ist_date(MORNING))
TICKET = Ticket(TICKER, Side.BUY, 65, Product.INTRADAY, "ABCD" + "A" * 16)
CALL_S = 5.0
OVER = ("rate_budget", "broker_rate_limited")
sdk.load()


class Clock:
    def __init__(self, sim_clock: SimClock) -> None:
        self._now = sim_clock

    def now(self) -> datetime:
        return self._now()

    def monotonic(self) -> float:
        return monotonic()


class Burst:
    """Each instance asks for all that it can get: an alert's price and order, an exit, the reconciler's pass."""

    def __init__(self, sim: FyersSim, clock: SimClock, redis: RedisServer, stack: ExitStack) -> None:
        self.sim, self.clock, self.random = sim, clock, random.Random(7)
        self.notifiers = [FakeNotifier() for _ in range(3)]
        self.guards = [self._instance(redis, notifier, stack) for notifier in self.notifiers]

    def _instance(self, redis: RedisServer, notifier: FakeNotifier, stack: ExitStack) -> Guard:
        clock = Clock(self.clock)
        client = FyersClient(
            self.sim.base_url, self.sim.data_url, connect_timeout_s=CALL_S, read_timeout_s=CALL_S
        )
        broker = FyersBroker(client, "X-200", StaticTokens("t", self.clock() + timedelta(days=2)), clock)
        stack.callback(broker.close)
        shared = SharedRedis(connect(redis.url), lambda: self.clock().timestamp())
        budget = CallBudget(Rates(processes=3), clock, notifier, shared)
        return Guard(
            broker, clock, notifier, budget, shared=shared, sleep=lambda _: None
        )  # its clock stands still

    def run(self, minutes: float) -> None:
        until = self.clock() + timedelta(minutes=minutes)
        while self.clock() < until:
            for guard in self.random.sample(self.guards, 3):
                for work in self.random.sample((alerts, an_exit, reconcile), 3):
                    with guard.exchange(Deadline(monotonic() + CALL_S)) as exchanger:
                        work(exchanger)
            self.clock.advance(self.random.uniform(0.3, 1.2))


def alerts(exchanger: GuardedExchanger) -> None:
    while in_budget(lambda: exchanger.quotes([TICKER])) and in_budget(
        lambda: exchanger.place(TICKET, lambda: None)
    ):
        pass


def an_exit(exchanger: GuardedExchanger) -> None:
    if in_budget(exchanger.positions):
        while in_budget(lambda: exchanger.place(TICKET, lambda: None, reduces=True)):
            pass


def reconcile(exchanger: GuardedExchanger) -> None:
    for read in (exchanger.order_book, exchanger.positions, exchanger.trades):
        if not in_budget(read):
            return


def in_budget(call: Callable[[], object]) -> bool:
    """False: the guard said that it is too much. Nothing else may go wrong."""
    try:
        found = call()
    except BrokerReadFailed as error:
        if error.code not in OVER:
            raise
        return False
    if isinstance(found, NotSent):
        assert found.code in OVER, found
    return not isinstance(found, NotSent)


@pytest.fixture
def burst(tmp_path: Path) -> Iterator[tuple[Burst, RedisServer]]:
    clock = SimClock(MORNING, running=False)
    with ExitStack() as stack:
        sim = stack.enter_context(
            FyersSim(ledger=tmp_path / "ledger.jsonl", clock=clock, fsync=False, log_reads=True)
        )
        sim.order_permission = False  # each order is received, counted and refused: the book stays small
        redis = stack.enter_context(RedisServer(tmp_path))
        yield Burst(sim, clock, redis, stack), redis


def most_within(times: list[float], seconds: float) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def judge(sim: FyersSim, minutes: float) -> None:
    lines = [x for x in sim.ledger.lines() if "master" not in str(x.get("endpoint"))]
    calls = [datetime.fromisoformat(x["at"]).timestamp() for x in lines]
    orders = [at for at, line in zip(calls, lines, strict=True) if line["kind"] != "read"]
    books = sum(n for path, n in sim.ledger.counts.items() if path in ("GET /orders", "GET /positions"))
    assert most_within(orders, 1) <= 10
    assert most_within(calls, 1) <= 10
    assert most_within(calls, 60) <= 200
    assert len(calls) == sum(sim.ledger.counts.values()), "the ledger has a line for each call"
    assert len(calls) > 100 * minutes, "the budget is used, not avoided"
    assert len(orders) > 20 * minutes
    assert books > 5 * minutes, "reconcile is included"


def test_an_hour_by_the_brokers_ledger_with_redis_killed_half_way(burst: tuple[Burst, RedisServer]) -> None:
    three, redis = burst
    three.run(30)
    redis.kill()
    three.run(30)
    judge(three.sim, 60)
    assert [n.pages for n in three.notifiers] == [[], [], []], "the broker never said 429"


@pytest.mark.parametrize("blow", ["hang", "flush"])
def test_some_minutes_by_the_brokers_ledger_with_redis_hung_or_emptied(
    burst: tuple[Burst, RedisServer], blow: str
) -> None:
    three, redis = burst
    three.run(2)
    getattr(redis, blow)()
    three.run(0.2)
    redis.resume()
    three.run(4)
    judge(three.sim, 6.2)
    assert [n.pages for n in three.notifiers] == [[], [], []]
