"""The paper exchange's matching on an empty touch, and on contracts whose tick is not five paise."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from app.brokers.paper import engine
from app.brokers.paper.book import PaperOrder, PaperPosition
from app.brokers.paper.engine import Market
from app.brokers.paper.pricing import around
from app.domain.order import Side, Ticket
from app.domain.outcome import Refused
from app.service.records import BookStatus
from tests.unit.paper_desk import (
    CALL,
    NOON,
    bought,
    bracket,
    market,
    new_book,
    nothing,
    position,
    spec,
    ticket,
)


@pytest.mark.parametrize("depth", [0, -1])
@pytest.mark.parametrize("order", [ticket(stop_distance=Decimal(15)), bracket()])
def test_an_empty_touch_trades_nothing(order: Ticket, depth: int) -> None:
    book, waiting = bought(order, depth)
    assert (waiting.status, waiting.filled, book.trades, book.positions) == (BookStatus.PENDING, 0, [], {})
    engine.advance(book, market(second=1), nothing)
    assert waiting.status == BookStatus.FILLED


def test_a_stop_that_meets_an_empty_touch_leaves_once_it_is_there() -> None:
    book, _ = bought(ticket(stop_distance=Decimal(15)))
    engine.advance(book, market("85", second=1, depth=0), nothing)
    engine.advance(book, market("85", second=2, depth=0), nothing)
    assert (position(book).net, [o.quantity for o in book.working()]) == (65, [65])
    engine.advance(book, market("85", second=3), nothing)
    assert (position(book).net, book.working()) == (0, [])


COARSE = replace(spec(), tick=Decimal("0.25"))


def test_market_protection_stands_on_the_contracts_tick() -> None:
    for side, price in ((Side.BUY, "112.00"), (Side.SELL, "91.75")):  # 112.09 and 91.71 without a tick
        quote = around(CALL, Decimal("101.90"))
        order = engine.place(new_book(), ticket(side), COARSE, Market({CALL: quote}, NOON, 5000))
        assert order.limit_price == Decimal(price)


def test_legs_stand_on_the_contracts_tick() -> None:
    """The fill is at 100.15."""
    book = new_book()
    covered = ticket(stop_distance=Decimal(15), target_distance=Decimal(25))
    engine.place(book, covered, COARSE, market())
    parent = engine.place(book, bracket(), COARSE, market())
    assert (position(book).stop, position(book).target) == (Decimal("85.25"), Decimal("125.25"))
    stop, target = (book.orders[f"{parent.id}-BO-{n}"] for n in (2, 3))
    assert (stop.stop_price, target.limit_price) == (Decimal("85.25"), Decimal("125.25"))
    refused = engine.protect(book, f"{CALL}-INTRADAY", Decimal("15.05"), Decimal(0), None)
    assert refused == Refused("-50", "StopLoss not a multiple of tick size 0.2500")
    assert engine.protect(book, f"{CALL}-INTRADAY", Decimal(10), Decimal(20), None) is None
    assert (position(book).stop, position(book).target) == (Decimal("90.25"), Decimal("120.25"))


def test_the_order_that_a_leg_sends_keeps_the_contracts_tick() -> None:
    book = new_book()
    engine.place(book, ticket(stop_distance=Decimal(15)), COARSE, market())
    engine.advance(book, market("81.90", second=1), nothing)
    (leaving,) = (o for o in book.orders.values() if o.side is Side.SELL)
    assert leaving.limit_price == Decimal("73.75")  # 73.71 without a tick


def test_what_was_kept_before_ticks_were_goes_on_at_five_paise() -> None:
    book, order = bought()
    old = {k: v for k, v in json.loads(order.dump()).items() if k != "tick"}
    assert PaperOrder.load(json.dumps(old)).tick == Decimal("0.05")
    held = {k: v for k, v in json.loads(position(book).dump()).items() if k != "tick"}
    assert PaperPosition.load(json.dumps(held)).tick == Decimal("0.05")
