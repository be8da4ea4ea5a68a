"""The paper exchange as a Broker, on a real SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.paper.broker import PaperBroker
from app.brokers.paper.pricing import model_quote
from app.domain.alert import Exchange, OptionType, Product
from app.domain.contract import Contract
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import Accepted, NotSent, Refused, Unknown
from app.errors import BrokerReadFailed, NoMaster
from app.service.ports import Broker
from app.service.records import BookStatus, Quote
from tests.unit.paper_desk import (
    CALL,
    LATE,
    NOON,
    Desk,
    limit,
    ticket,
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "paper.sqlite")


def test_an_order_its_book_row_and_its_position(desk: Desk) -> None:
    outcome = desk.place(ticket(stop_distance=Decimal(15), target_distance=Decimal(25)))
    assert isinstance(outcome, Accepted)
    with desk.broker.exchange(LATE) as exchange:
        (row,) = exchange.order_book()
        (held,) = exchange.positions()
        (trade,) = exchange.trades()
    assert (row.broker_order_id, row.tag, row.status, row.filled_quantity) == (
        outcome.broker_order_id,
        "ABCD1234",
        BookStatus.FILLED,
        65,
    )
    assert (row.placed_at, row.traded_price, row.has_stop, row.has_target) == (
        NOON,
        Decimal("100.15"),
        True,
        True,
    )
    assert (held.id, held.net_quantity, held.has_stop, held.has_target) == (
        f"{CALL}-INTRADAY",
        65,
        True,
        True,
    )
    assert (trade.quantity, trade.price) == (65, Decimal("100.15"))


def test_a_leg_fires_when_somebody_looks_and_another_process_sees_the_same(
    desk: Desk, tmp_path: Path
) -> None:
    desk.place(ticket(stop_distance=Decimal(15)))
    desk.price = Decimal(80)
    desk.wait()
    with desk.broker.exchange(LATE) as exchange:
        assert exchange.positions()[0].net_quantity == 0
    other = Desk(tmp_path / "paper.sqlite")
    with other.broker.exchange(LATE) as exchange:
        assert [o.source for o in exchange.order_book()] == ["API", "LEG"]
        assert exchange.positions()[0].net_quantity == 0


def test_refusals_leave_no_row(desk: Desk) -> None:
    assert desk.place(ticket(quantity=64)) == Refused("-50", "Quantity should be multiple of min lot size.")
    assert desk.place(ticket(ticker="NSE:NIFTY26XYZ1CE")) == Refused("-50", "The input symbol is invalid.")
    with desk.broker.exchange(LATE) as exchange:
        assert exchange.order_book() == ()
        assert exchange.positions() == ()


def test_a_no_right_before_the_commit_leaves_nothing_behind(desk: Desk) -> None:
    stop = NotSent("late", "the deadline has passed")
    asked = []

    def no() -> NotSent:
        asked.append(1)
        return stop

    with desk.broker.exchange(LATE) as exchange:
        assert exchange.place(ticket(), no) is stop
        assert exchange.order_book() == ()
        assert exchange.positions() == ()
    assert asked == [1]
    assert isinstance(desk.place(ticket()), Accepted)
    with desk.broker.exchange(LATE) as exchange:
        assert exchange.close_position(f"{CALL}-INTRADAY", no) is stop
        assert exchange.positions()[0].net_quantity == 65


def test_a_database_that_fails_is_not_sent_before_the_commit_unknown_after_it_and_never_flat(
    desk: Desk,
) -> None:
    desk.database.commit_fails = True
    assert isinstance(desk.place(ticket()), Unknown)
    desk.database.is_down = True
    assert isinstance(desk.place(ticket()), NotSent)
    with desk.broker.exchange(LATE) as exchange:
        with pytest.raises(BrokerReadFailed):
            exchange.order_book()
        with pytest.raises(BrokerReadFailed):
            exchange.positions()


def test_cancel_protect_and_close(desk: Desk) -> None:
    waiting = desk.place(limit(Side.BUY, "50"))
    assert isinstance(waiting, Accepted)
    desk.place(ticket())
    key = f"{CALL}-INTRADAY"
    with desk.broker.exchange(LATE) as exchange:
        assert isinstance(exchange.cancel(waiting.broker_order_id), Accepted)
        assert exchange.cancel(waiting.broker_order_id) == Refused("-161", "order is not pending: status 1")
        unknown = exchange.cancel("26112599999999")
        assert isinstance(unknown, Refused)
        assert unknown.code == "-51"
        assert isinstance(exchange.set_protection(key, Decimal(10), Decimal(0)), Accepted)
        assert exchange.positions()[0].has_stop
        closed = exchange.close_position(key, lambda: None)
        assert isinstance(closed, Accepted)
        assert exchange.positions()[0].net_quantity == 0
        filled = exchange.cancel(closed.broker_order_id)
        assert isinstance(filled, Refused)
        assert filled.code == "-162"


def test_partial_fills_end_as_somebody_looks(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "paper.sqlite", depth=65)
    desk.place(ticket(quantity=130))
    with desk.broker.exchange(LATE) as exchange:
        assert exchange.order_book()[0].filled_quantity == 65
        desk.wait()
        assert exchange.order_book()[0].filled_quantity == 130


def test_the_next_day_has_an_empty_book_and_the_position_still_open(desk: Desk) -> None:
    desk.place(limit(Side.BUY, "50"))
    desk.place(ticket(product=Product.MARGIN))
    desk.wait(86400)
    with desk.broker.exchange(LATE) as exchange:
        assert exchange.order_book() == ()
        assert [p.net_quantity for p in exchange.positions()] == [65]
    next_day = desk.place(ticket())
    assert isinstance(next_day, Accepted)
    assert next_day.broker_order_id.startswith("261126")


def test_accounts_do_not_see_each_other(desk: Desk) -> None:
    desk.place(ticket())
    other = PaperBroker(desk.database, desk.clock, "other")
    with other.exchange(LATE) as exchange:
        assert exchange.order_book() == ()
        assert exchange.positions() == ()


def test_without_an_override_the_model_prices_and_given_quotes_come_first(desk: Desk) -> None:
    model: Broker = PaperBroker(desk.database, desk.clock, "paper")
    assert model.ready() is None
    with model.exchange(LATE) as exchange:
        found = exchange.quotes([CALL, "NSE:NIFTY50-INDEX", "NSE:NOBODY-EQ"])
    assert found == {t: model_quote(1, t, NOON) for t in (CALL, "NSE:NIFTY50-INDEX")}
    real = Quote(CALL, Decimal(7), Decimal("6.95"), Decimal("7.05"))
    outside = PaperBroker(desk.database, desk.clock, "paper", quotes=lambda *_: {CALL: real})
    with outside.exchange(LATE) as exchange2:
        assert exchange2.quotes([CALL]) == {CALL: real}
        exchange2.place(ticket(), lambda: None)
        assert exchange2.order_book()[0].traded_price == Decimal("7.05")


def test_a_failing_source_of_prices_places_nothing_and_shows_nothing(desk: Desk) -> None:
    def fails(*_: object) -> dict[str, Quote]:
        raise BrokerReadFailed("no quotes")

    desk.place(limit(Side.BUY, "50"))
    broker = PaperBroker(desk.database, desk.clock, "paper", quotes=fails)
    with broker.exchange(LATE) as exchange:
        assert isinstance(exchange.place(ticket(), lambda: None), NotSent)
        with pytest.raises(BrokerReadFailed):
            exchange.order_book()


REAL = Contract(
    exchange=Exchange.NSE,
    underlying="NOMODEL",
    expiry=date(2026, 11, 26),
    session_end=datetime(2026, 11, 26, 10, 10, tzinfo=UTC),
    strike=Decimal(700),
    option_type=OptionType.CE,
    ticker="NSE:NOMODEL26NOV700CE",
    lot=40,
    tick=Decimal("0.05"),
    freeze=None,
    underlying_ticker=None,
    is_stock=True,
    master_date=date(2026, 11, 24),
)


class RealPrices:
    """A source of quotes that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.last: Decimal | None = Decimal(10)

    def __call__(self, tickers: Sequence[str], _: Deadline) -> dict[str, Quote]:
        self.asked += tickers
        return {t: Quote(t, self.last, self.last, self.last) for t in tickers}


def real_paper(desk: Desk, prices: RealPrices) -> PaperBroker:
    known = {REAL.ticker: REAL}
    return PaperBroker(
        desk.database,
        desk.clock,
        "real",
        quotes=prices,
        specs=lambda ticker, _: known.get(ticker),
        ready=lambda: "no token",
    )


def real_ticket(**changes: object) -> Ticket:
    return ticket(**{"ticker": REAL.ticker, "quantity": 40, **changes})  # type: ignore[arg-type]


def test_a_real_contract_needs_no_model(desk: Desk) -> None:
    prices = RealPrices()
    broker = real_paper(desk, prices)
    assert broker.ready() == "no token"
    with broker.exchange(LATE) as exchange:
        assert isinstance(exchange.place(real_ticket(), lambda: None), Accepted)
        assert exchange.order_book()[0].traded_price == 10
        wrong_lot = exchange.place(real_ticket(quantity=65), lambda: None)
        assert wrong_lot == Refused("-50", "Quantity should be multiple of min lot size.")
        assert isinstance(exchange.place(ticket(), lambda: None), Refused)
    assert CALL not in prices.asked


def test_without_a_usable_real_price_an_order_rests_until_there_is_one(desk: Desk) -> None:
    prices = RealPrices()
    prices.last = None
    with real_paper(desk, prices).exchange(LATE) as exchange:
        exchange.place(real_ticket(), lambda: None)
        assert exchange.order_book()[0].filled_quantity == 0
        prices.last = Decimal(9)
        assert exchange.order_book()[0].traded_price == 9


def test_an_expired_real_contract_leaves_at_its_cost_and_is_asked_for_no_more(desk: Desk) -> None:
    prices = RealPrices()
    with real_paper(desk, prices).exchange(LATE) as exchange:
        exchange.place(real_ticket(stop_distance=Decimal(2)), lambda: None)
        desk.clock.at = REAL.session_end
        prices.asked.clear()
        assert exchange.cancel("nobody") == Refused("-51", "invalid order id")
        assert [p.net_quantity for p in exchange.positions()] == [0]
        assert prices.asked == []


def test_without_a_contract_index_nothing_is_placed(desk: Desk) -> None:
    def missing(*_: object) -> Contract | None:
        raise NoMaster("no contract index yet")

    broker = PaperBroker(desk.database, desk.clock, "paper", specs=missing)
    with broker.exchange(LATE) as exchange:
        outcome = exchange.place(ticket(), lambda: None)
    assert isinstance(outcome, NotSent)
    assert "no contract index yet" in outcome.message


def test_orders_from_several_threads_are_all_kept_once(desk: Desk) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(desk.place, [ticket()] * 12))
    ids = {o.broker_order_id for o in outcomes if isinstance(o, Accepted)}
    with desk.broker.exchange(LATE) as exchange:
        assert {row.broker_order_id for row in exchange.order_book()} == ids
        assert exchange.positions()[0].net_quantity == 12 * 65
    assert len(ids) == 12
