"""A strategy that fires without end, whichever check says no to it first."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest

from app.domain.experiment import Flag, Rollout
from app.domain.limits import Limits, Runaway
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.runaway import RUNAWAY
from tests.builders import SCOPE, a_policy
from tests.service.desk import TradingDesk

MOST = Runaway(5, 60)


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_open_lots": 2}, "open_lots"),
        ({"repeat_seconds": 30}, "repeat"),
        ({"max_orders_per_day": 2}, "cap_orders_day"),
        ({"symbols": frozenset({"SENSEX"})}, "symbol"),
        ({"enforce_hours": True, "intraday_cutoff": time(10, 30)}, "intraday_cutoff"),
    ],
)
def test_no_other_limit_hides_it(limits: dict[str, Any], code: str) -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, runaway=MOST, **limits)))
    codes = [desk.alert(strategy="loop").order.code for _ in range(MOST.orders)]
    assert codes[-1] == code
    assert (state(desk), desk.notifier.pages) == (TradingState.ACTIVE, [])
    desk.alert(strategy="loop")
    assert (state(desk), desk.notifier.pages) == (TradingState.REDUCING, [RUNAWAY])
    for _ in range(3):
        assert desk.alert(strategy="loop").order.status is Status.DENIED
    assert desk.notifier.pages == [RUNAWAY]


def test_an_alert_for_no_contract_counts_too() -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, runaway=MOST)))
    desk.contracts.contracts = []
    for _ in range(MOST.orders + 1):
        assert desk.alert(strategy="loop").order.status is Status.DENIED
    assert state(desk) is TradingState.REDUCING


def test_several_strategies_are_no_loop() -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, max_open_lots=2, runaway=MOST)))
    for number in range(3 * MOST.orders):
        desk.alert(strategy=f"s{number % 3}")
    assert state(desk) is TradingState.ACTIVE


def test_a_strategy_that_is_switched_off_stops_nobody_else() -> None:
    off = Rollout(Flag(100, {"loop": False}), ())
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, runaway=MOST), rollout=off))
    for _ in range(3 * MOST.orders):
        assert desk.alert(strategy="loop").order.status is Status.DENIED
    assert (state(desk), desk.notifier.pages) == (TradingState.ACTIVE, [])
    assert desk.alert(strategy="another").order.status is Status.ACCEPTED
