"""What every broker promises to the service, run over the Fyers adapter on the simulator and the paper exchange."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.domain.alert import Product
from app.domain.order import OrderKind, Side, Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused
from app.service.records import BookStatus
from tests.contract.brokers import BROKERS, World, fake

STOP, TARGET = Decimal("15.00"), Decimal("25.00")
TAG = "ABCD0123456789ABCDEF"


@pytest.fixture(params=list(BROKERS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with BROKERS[request.param](tmp_path) as made:
        yield made


def ticket(world: World, side: Side = Side.BUY, *, legs: bool = False) -> Ticket:
    stop, target = (STOP, TARGET) if legs else (None, None)
    return Ticket(world.ticker, side, 65, Product.INTRADAY, TAG, stop, target)


def place(world: World, order: Ticket) -> str:
    with world.talk() as exchanger:
        outcome = exchanger.place(order, lambda: None)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.broker_order_id
    assert not outcome.sent_late
    world.settle()
    return outcome.broker_order_id


def position_id(world: World) -> str:
    with world.talk() as exchanger:
        (position,) = [p for p in exchanger.positions() if p.net_quantity]
    return position.id


def protected(world: World) -> tuple[bool, bool]:
    with world.talk() as exchanger:
        (position,) = [p for p in exchanger.positions() if p.net_quantity]
    return position.has_stop, position.has_target


def test_it_is_ready_and_begins_empty(world: World) -> None:
    assert world.broker.ready() is None
    assert world.broker.name
    with world.talk() as exchanger:
        assert exchanger.order_book() == ()
        assert exchanger.positions() == ()
        assert exchanger.trades() == ()


def test_a_market_order_is_in_the_book_once_with_its_tag_and_fills(world: World) -> None:
    broker_order_id = place(world, ticket(world))
    with world.talk() as exchanger:
        (row,) = exchanger.order_book()
        (position,) = exchanger.positions()
    assert (row.broker_order_id, row.tag, row.ticker) == (broker_order_id, TAG, world.ticker)
    assert (row.side, row.quantity, row.filled_quantity) == (Side.BUY, 65, 65)
    assert (row.status, row.product, row.parent_id) == (BookStatus.FILLED, "INTRADAY", None)
    assert row.placed_at.tzinfo is not None
    assert row.traded_price is not None
    assert abs(row.traded_price - 100) < 5
    assert (position.ticker, position.product, position.net_quantity) == (world.ticker, "INTRADAY", 65)
    assert position.average_price == row.traded_price
    assert not position.has_stop


def test_the_trade_book_has_every_fill_in_its_order(world: World) -> None:
    """The order of the ids is not the order of the fills: the resting order came first and trades last."""
    resting = place(world, replace(ticket(world), kind=OrderKind.LIMIT, limit_price=Decimal(90)))
    bought = place(world, ticket(world, legs=True))
    bracket = place(world, Ticket(world.ticker, Side.BUY, 65, Product.BO, None, STOP, TARGET))
    world.price(Decimal(50))
    with world.talk() as exchanger:
        trades = exchanger.trades()
        book = {row.broker_order_id: row for row in exchanger.order_book()}
    assert [t.broker_order_id for t in trades[:2]] == [bought, bracket]
    later = [book[t.broker_order_id] for t in trades[2:]]
    stop_leg = next(
        row.broker_order_id for row in book.values() if row.parent_id == bracket and row.filled_quantity
    )
    ids = [row.broker_order_id for row in later]
    assert len(ids) == 3
    assert {resting, stop_leg} < set(ids)
    (overlay,) = (row for row in later if row.broker_order_id not in {resting, stop_leg})
    assert (overlay.side, overlay.tag, overlay.parent_id) == (Side.SELL, None, None)
    for trade in trades:
        row = book[trade.broker_order_id]
        assert (trade.ticker, trade.product, trade.side) == (row.ticker, row.product, row.side)
        assert (trade.quantity, trade.price, trade.tag) == (row.filled_quantity, row.traded_price, row.tag)
        assert trade.at.utcoffset() == timedelta(0)
        assert trade.at.microsecond == 0
    assert [t.at for t in trades] == sorted(t.at for t in trades)
    assert trades[0].tag == TAG
    assert trades[1].tag is None
    assert len({t.id for t in trades}) == len(trades)


def test_an_order_that_rests_is_in_no_trade_book(world: World) -> None:
    place(world, replace(ticket(world), kind=OrderKind.LIMIT, limit_price=Decimal(50)))
    with world.talk() as exchanger:
        assert exchanger.trades() == ()


def test_a_sale_makes_a_short_position(world: World) -> None:
    place(world, ticket(world, Side.SELL))
    with world.talk() as exchanger:
        (position,) = exchanger.positions()
    assert position.net_quantity == -65


def test_distances_become_protection(world: World) -> None:
    place(world, ticket(world, legs=True))
    assert protected(world) == (True, True)


@pytest.mark.parametrize("name", [*BROKERS, "fake"])
def test_an_order_that_rests_protects_nothing_yet(name: str, tmp_path: Path) -> None:
    """The fake too: a machine of chances that believes otherwise finds stops which cannot be there."""
    with (BROKERS | {"fake": fake})[name](tmp_path) as world:
        place(world, ticket(world))
        resting = replace(ticket(world, legs=True), kind=OrderKind.LIMIT, limit_price=Decimal(50))
        place(world, replace(resting, tag="ABCD0123456789ABCDEG"))
        with world.talk() as exchanger:
            assert [row.is_working for row in exchanger.order_book()] == [False, True]
        assert protected(world) == (False, False)


def test_protection_is_taken_off_and_put_on(world: World) -> None:
    place(world, ticket(world, legs=True))
    where = position_id(world)
    with world.talk() as exchanger:
        assert isinstance(exchanger.set_protection(where, Decimal(0), Decimal(0)), Accepted)
    assert protected(world) == (False, False)
    with world.talk() as exchanger:
        assert isinstance(exchanger.set_protection(where, STOP, Decimal(0)), Accepted)
    assert protected(world) == (True, False)


def test_protecting_or_closing_what_is_not_there_is_refused(world: World) -> None:
    with world.talk() as exchanger:
        assert isinstance(exchanger.set_protection(f"{world.ticker}-MARGIN", STOP, TARGET), Refused)
        assert isinstance(exchanger.close_position(f"{world.ticker}-MARGIN", lambda: None), Refused)


def test_a_position_is_closed_whole(world: World) -> None:
    place(world, ticket(world))
    where = position_id(world)
    with world.talk() as exchanger:
        assert isinstance(exchanger.close_position(where, lambda: None), Accepted)
    world.settle()
    with world.talk() as exchanger:
        assert [p.net_quantity for p in exchanger.positions()] == [0]


def test_a_resting_order_is_cancelled_and_then_cannot_be_again(world: World) -> None:
    low = replace(ticket(world), kind=OrderKind.LIMIT, limit_price=Decimal(50))
    broker_order_id = place(world, low)
    with world.talk() as exchanger:
        assert exchanger.order_book()[0].is_working
        assert exchanger.cancel(broker_order_id) == Accepted(
            broker_order_id, "Successfully cancelled order", sent_late=False
        )
        assert exchanger.order_book()[0].status == BookStatus.CANCELLED
        assert isinstance(exchanger.cancel(broker_order_id), Refused)


def test_cancelling_an_unknown_order_is_refused(world: World) -> None:
    with world.talk() as exchanger:
        assert isinstance(exchanger.cancel("26010100000001"), Refused)


def test_a_wrong_symbol_or_lot_is_refused(world: World) -> None:
    wrong = [
        Ticket("NSE:NOSUCH26DEC1CE", Side.BUY, 65, Product.INTRADAY, TAG),
        Ticket(world.ticker, Side.BUY, 66, Product.INTRADAY, TAG),
    ]
    for order in wrong:
        with world.talk() as exchanger:
            assert isinstance(exchanger.place(order, lambda: None), Refused)
            assert [o for o in exchanger.order_book() if o.is_working or o.filled_quantity] == []


def test_quotes_leave_out_what_is_unknown(world: World) -> None:
    with world.talk() as exchanger:
        found = exchanger.quotes([world.ticker, "NSE:NOSUCH26DEC1CE"])
        assert exchanger.quotes([]) == {}
    quote = found.get(world.ticker)
    assert list(found) == [world.ticker]
    assert quote is not None
    assert quote.ltp == 100
    assert quote.bid is not None
    assert quote.ask is not None
    assert quote.bid <= quote.ltp <= quote.ask


def test_before_send_stops_an_order_and_a_closing(world: World) -> None:
    stop = NotSent("trading_state", "halted")
    with world.talk() as exchanger:
        assert exchanger.place(ticket(world), lambda: stop) == stop
        assert exchanger.order_book() == ()
    place(world, ticket(world))
    where = position_id(world)
    with world.talk() as exchanger:
        assert exchanger.close_position(where, lambda: stop) == stop
        assert [p.net_quantity for p in exchanger.positions()] == [65]


def test_before_send_is_asked_once(world: World) -> None:
    asked: list[int] = []

    def check() -> NotSent | None:
        asked.append(1)
        return None

    with world.talk() as exchanger:
        outcome: Outcome = exchanger.place(ticket(world), check)
    assert isinstance(outcome, Accepted)
    assert asked == [1]


def test_a_bracket_order_goes_without_a_tag_and_is_left_by_closing(world: World) -> None:
    place(world, Ticket(world.ticker, Side.BUY, 65, Product.BO, None, STOP, TARGET))
    with world.talk() as exchanger:
        legs = [o for o in exchanger.order_book() if o.parent_id]
        assert len([leg for leg in legs if leg.is_working]) == 2
        assert all(o.tag is None for o in exchanger.order_book())
        (position,) = [p for p in exchanger.positions() if p.net_quantity]
        assert isinstance(exchanger.close_position(position.id, lambda: None), Accepted)
    world.settle()
    with world.talk() as exchanger:
        assert not any(o.is_working for o in exchanger.order_book())
        assert all(p.net_quantity == 0 for p in exchanger.positions())


def test_a_round_trip_shows_what_it_has_cost(world: World) -> None:
    """Bought at the ask and sold at the bid: the day's result of the position is what the trades say, and no profit."""
    place(world, ticket(world))
    with world.talk() as exchanger:
        (open_one,) = exchanger.positions()
    assert open_one.profit is not None
    sell = replace(ticket(world, Side.SELL), tag="ABCD0123456789ABCDEG")
    place(world, sell)
    with world.talk() as exchanger:
        (closed,) = exchanger.positions()
        trades = exchanger.trades()
    assert all(t.price is not None for t in trades)
    paid = sum((t.side.sign * t.quantity * (t.price or 0) for t in trades), Decimal(0))
    assert closed.profit == -paid
