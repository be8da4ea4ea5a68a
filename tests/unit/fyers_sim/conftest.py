from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fyers_sim import FyersSim, SimClock
from tests.unit.fyers_sim.client import OPEN, Client


@pytest.fixture
def clock() -> SimClock:
    return SimClock(OPEN, running=False)


@pytest.fixture
def sim(clock: SimClock) -> Iterator[FyersSim]:
    with FyersSim(clock=clock, rate_limits=False) as running:
        yield running


@pytest.fixture
def client(sim: FyersSim) -> Client:
    return Client(sim)


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()
