"""The exchange's hours: the broker's own word first, the contract's session where it does not say, and asked rarely."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from app.domain.limits import Limits
from app.domain.status import Status
from app.service.market import MarketHours
from app.service.place_order import PlaceOrder
from tests.builders import a_policy
from tests.service.desk import TradingDesk

EVENING = datetime(2026, 11, 18, 13, 0, tzinfo=UTC)
"""18:30 IST of a trading day."""


def a_desk(cutoff: time | None = time(15, 10)) -> TradingDesk:
    limits = Limits(max_lots=1, enforce_hours=True, intraday_cutoff=cutoff)
    desk = TradingDesk(policy=a_policy(limits=limits))
    desk.desk = replace(desk.desk, market=MarketHours(desk.broker, desk.clock))
    desk.service = PlaceOrder(desk.desk)
    return desk


@pytest.mark.parametrize(
    ("word", "at_night", "wanted"),
    [
        (True, False, None),
        (False, False, "market_closed"),
        (None, False, None),
        (True, True, None),
        (False, True, "market_closed"),
        (None, True, "market_closed"),
    ],
)
def test_the_brokers_word_goes_before_the_clock(
    word: bool | None, at_night: bool, wanted: str | None
) -> None:
    desk = a_desk()
    desk.broker.market = word
    if at_night:
        desk.clock.advance((EVENING - desk.clock.now()).total_seconds())
    assert desk.alert().order.code == wanted


def test_a_status_that_cannot_be_read_leaves_it_to_the_session() -> None:
    desk = a_desk()
    desk.broker.fail.add("market_open")
    assert desk.alert().order.status is Status.ACCEPTED


def test_it_is_asked_once_in_a_quarter_of_a_minute() -> None:
    desk = a_desk()
    desk.broker.market = True
    for _ in range(3):
        desk.alert()
    assert desk.broker.calls.count("market_open") == 1
    desk.clock.advance(15)
    desk.alert()
    assert desk.broker.calls.count("market_open") == 2


def test_the_cutoff_is_of_the_day_session_only() -> None:
    desk = a_desk(cutoff=time(10, 30))
    desk.broker.market = True
    assert desk.alert().order.code == "intraday_cutoff"
    desk.clock.advance((EVENING - desk.clock.now()).total_seconds())
    assert desk.alert().order.status is Status.ACCEPTED


def test_a_closed_market_stops_an_exit_as_well() -> None:
    desk = a_desk()
    desk.broker.market = True
    desk.held()
    desk.broker.market = False
    desk.clock.advance(15)
    assert desk.alert("EXIT").order.code == "market_closed"
