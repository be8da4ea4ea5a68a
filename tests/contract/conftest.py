"""The Fyers adapter on a simulator whose time stands still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.brokers.fyers.broker import FyersBroker
from tests.contract.brokers import OPEN, fyers_on
from tests.fyers_sim import FyersSim, SimClock


@pytest.fixture
def sim() -> Iterator[FyersSim]:
    with FyersSim(clock=SimClock(OPEN, running=False), rate_limits=False) as running:
        yield running


@pytest.fixture
def broker(sim: FyersSim) -> Iterator[FyersBroker]:
    with closing(fyers_on(sim)) as made:
        yield made
