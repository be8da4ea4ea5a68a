"""Instances whose clocks differ, with one Redis: what a breaker goes by is the order of things, not the clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.brokers.guard import SharedRedis, connect
from app.domain.outcome import Accepted, NotSent
from tests.fake_store import FakeClock
from tests.guard_desk import RESET_S, GuardDesk
from tests.integration.test_guard_redis import Instances
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


class Ahead(FakeClock):
    def __init__(self, of: FakeClock, seconds: float) -> None:
        self._of, self._by = of, timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._of.now() + self._by

    def monotonic(self) -> float:
        return self._of.monotonic()


def test_a_clock_that_is_ahead_closes_nothing_by_an_earlier_read(server: RedisServer) -> None:
    """It closed the breaker a moment before another instance, by whose clock that was later, opened it again."""
    three = Instances(server)
    ahead = Ahead(three.clock, 30)
    fast = GuardDesk(ahead, three.broker, SharedRedis(connect(server.url), three.clock.monotonic))
    slow = three.desks[0]
    three.trip(slow)
    three.clock.advance(RESET_S)
    fast.read()
    assert isinstance(slow.place(), Accepted)
    assert isinstance(fast.place(), Accepted)
    three.clock.advance(1)
    three.trip(slow)
    before = len(three.broker.ledger)
    for _ in range(3):
        for desk in (fast, slow):
            assert isinstance(desk.place(), NotSent), "no read has succeeded since"
    assert len(three.broker.ledger) == before
    three.clock.advance(30 + RESET_S)
    slow.read()
    assert isinstance(fast.place(), Accepted)
