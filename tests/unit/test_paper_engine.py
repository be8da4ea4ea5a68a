"""The paper exchange's matching, pure: a book, a market, one order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from app.brokers.paper import engine
from app.brokers.paper.book import Meta, PaperOrder, PaperPosition, PaperTrade
from app.brokers.paper.engine import Market
from app.brokers.paper.master import UNDERLYINGS
from app.brokers.paper.money import available
from app.brokers.paper.pricing import settlement, spot
from app.domain.alert import Product
from app.domain.order import OrderKind, Side
from app.domain.outcome import Refused
from app.service.records import BookStatus, Quote
from tests.unit.paper_desk import (
    CALL,
    HUNDRED,
    NOON,
    bought,
    bracket,
    limit,
    market,
    new_book,
    nothing,
    position,
    spec,
    ticket,
)


def test_a_market_order_fills_at_the_touch_behind_its_protection() -> None:
    book, order = bought()
    assert (order.status, order.filled, order.average) == (BookStatus.FILLED, 65, Decimal("100.15"))
    assert order.limit_price == Decimal(110)
    assert order.id == "26112500000001"
    assert (position(book).net, position(book).average) == (65, Decimal("100.15"))
    assert book.meta.cash == Decimal(5_000_000) - 65 * Decimal("100.15")


def test_a_market_order_rests_when_the_touch_is_outside_its_protection_and_without_a_quote() -> None:
    book = new_book()
    wide = Market({CALL: Quote(CALL, HUNDRED, Decimal(80), Decimal(120))}, NOON, 5000)
    order = engine.place(book, ticket(), spec(), wide)
    blind = engine.place(book, ticket(), spec(), Market({}, NOON, 5000))
    assert (order.status, order.filled) == (BookStatus.PENDING, 0)
    assert (blind.status, blind.filled) == (BookStatus.PENDING, 0)
    engine.advance(book, market("105", second=1), nothing)
    assert order.status == blind.status == BookStatus.FILLED


def test_a_limit_waits_for_its_price() -> None:
    book = new_book()
    order = engine.place(book, limit(Side.BUY, "95"), spec(), market())
    assert order.is_working
    engine.advance(book, market("94.80", second=1), nothing)
    assert order.average == Decimal("94.95")


def test_a_stop_limit_waits_for_its_trigger_then_for_its_limit() -> None:
    book = new_book()
    stop = ticket(kind=OrderKind.STOP_LIMIT, stop_price=Decimal(105), limit_price=Decimal(106))
    order = engine.place(book, stop, spec(), market())
    engine.advance(book, market("107", second=1), nothing)
    assert (order.triggered, order.filled) == (True, 0)
    engine.advance(book, market("104", second=2), nothing)
    assert order.status == BookStatus.FILLED


def test_a_quantity_above_the_depth_fills_in_parts_and_can_be_cancelled_in_between() -> None:
    book, order = bought(ticket(quantity=195), depth=65)
    assert (order.status, order.filled) == (BookStatus.PENDING, 65)
    engine.advance(book, market(depth=65), nothing)
    assert order.filled == 65, "the same moment shows no new depth"
    engine.advance(book, market("102", second=1, depth=65), nothing)
    assert order.filled == 130
    assert engine.cancel(book, order, market(second=2)) is None
    assert (order.status, order.filled, position(book).net) == (BookStatus.CANCELLED, 130, 130)
    refused = engine.cancel(book, order, market())
    assert refused is not None
    assert refused.code == "-161"


def test_too_little_money_is_a_rejection_after_the_acknowledgement() -> None:
    book = new_book()
    book.meta.cash = Decimal(5000)
    order = engine.place(book, ticket(), spec(), market())
    assert order.status == BookStatus.REJECTED
    assert order.message.startswith("RED:Margin Shortfall:INR 2,150.00 Available:INR 5,000.00 for C-paper")
    assert not book.positions


def test_a_short_lot_blocks_margin_and_closing_it_needs_none() -> None:
    book, order = bought(ticket(Side.SELL))
    assert (order.status, position(book).net) == (BookStatus.FILLED, -65)
    blocked = spec().strike * Decimal("0.15") * 65
    assert available(book) == book.meta.cash - blocked
    book.meta.cash = Decimal(0)
    back = engine.place(book, ticket(), spec(), market())
    assert (back.status, position(book).net) == (BookStatus.FILLED, 0)


def test_averages_over_adding_reducing_and_turning_over() -> None:
    book, _ = bought()
    engine.place(book, ticket(), spec(), market("110"))
    assert position(book).average == (Decimal("100.15") + Decimal("110.15")) / 2
    engine.place(book, ticket(Side.SELL), spec(), market("120"))
    assert position(book).average == (Decimal("100.15") + Decimal("110.15")) / 2
    engine.place(book, ticket(Side.SELL, 130), spec(), market("120"))
    assert (position(book).net, position(book).average) == (-65, Decimal("119.80"))


@pytest.mark.parametrize(
    ("side", "stop", "target", "fires"),
    [
        (Side.BUY, "85.15", "125.15", {"85.10": "stop", "125.20": "target"}),
        (Side.SELL, "114.85", "74.85", {"114.90": "stop", "74.80": "target"}),
    ],
)
def test_distances_become_levels_at_the_fill_and_a_touched_level_closes(
    side: Side, stop: str, target: str, fires: dict[str, str]
) -> None:
    for price, leg in fires.items():
        book, order = bought(ticket(side, stop_distance=Decimal(15), target_distance=Decimal(25)))
        held = position(book)
        assert (held.stop, held.target) == (Decimal(stop), Decimal(target))
        engine.advance(book, market("100.50", second=1), nothing)
        assert held.net == 65 * side.sign
        engine.advance(book, market(price, second=2), nothing)
        assert (held.net, held.stop, held.target) == (0, None, None)
        closing = next(o for o in book.orders.values() if o.id != order.id)
        assert (closing.source, closing.status, closing.tag) == ("LEG", BookStatus.FILLED, None)
        assert closing.message.startswith(leg)
        engine.advance(book, market(price, second=4), nothing)
        assert len(book.orders) == 2


def test_a_leg_never_doubles_an_exit_under_way() -> None:
    book, _ = bought(ticket(stop_distance=Decimal(15)))
    leaving = engine.place(book, limit(Side.SELL, "130"), spec(), market())
    engine.advance(book, market("80", second=1), nothing)
    assert (position(book).net, leaving.is_working) == (65, True)
    engine.cancel(book, leaving, market("80", second=2))
    engine.advance(book, market("80", second=3), nothing)
    assert position(book).net == 0


def test_protection_is_set_and_removed_by_distance() -> None:
    book, _ = bought()
    key = f"{CALL}-INTRADAY"
    assert engine.protect(book, key, Decimal(10), Decimal(0), None) is None
    assert (position(book).stop, position(book).target) == (Decimal("90.15"), None)
    assert engine.protect(book, key, Decimal(0), Decimal(0), None) is None
    assert not position(book).row("", None).has_stop
    codes = [
        engine.protect(book, *args)
        for args in (
            (key, Decimal("0.03"), Decimal(0), None),
            (key, Decimal(200), Decimal(0), None),
            ("nobody", Decimal(1), Decimal(0), None),
        )
    ]
    assert [c.code for c in codes if c] == ["-50", "-50", "-53"]


def test_a_bracket_has_children_and_one_leg_ends_the_other() -> None:
    book, parent = bought(bracket())
    stop, target = (book.orders[f"{parent.id}-BO-{n}"] for n in (2, 3))
    assert stop.row().parent_id == target.row().parent_id == parent.id
    assert (stop.stop_price, target.limit_price) == (Decimal("85.15"), Decimal("125.15"))
    engine.advance(book, market("126", second=1), nothing)
    assert (target.status, stop.status, position(book, "BO").net) == (
        BookStatus.FILLED,
        BookStatus.CANCELLED,
        0,
    )


def test_children_follow_partial_fills_of_parent_and_sibling() -> None:
    book, parent = bought(bracket(quantity=130), depth=65)
    stop, target = (book.orders[f"{parent.id}-BO-{n}"] for n in (2, 3))
    assert (stop.quantity, target.quantity) == (65, 65)
    engine.advance(book, market(second=1, depth=65), nothing)
    assert (stop.quantity, target.quantity) == (130, 130)
    engine.advance(book, market("126", second=2, depth=65), nothing)
    assert (target.filled, stop.remaining, position(book, "BO").net) == (65, 65, 65)
    engine.advance(book, market("80", second=3, depth=65), nothing)
    assert (position(book, "BO").net, book.working()) == (0, [])


def test_cancelling_a_leg_leaves_through_it() -> None:
    book, parent = bought(bracket(product=Product.CO, target_distance=None))
    leg = book.orders[f"{parent.id}-CO-2"]
    engine.cancel(book, leg, market(second=1))
    assert (leg.status, position(book, "CO").net) == (BookStatus.FILLED, 0)


def test_closing_a_bracket_position_ends_its_legs() -> None:
    book, _ = bought(bracket())
    closing = engine.close(book, f"{CALL}-BO", market(second=1))
    assert isinstance(closing, PaperOrder)
    assert (position(book, "BO").net, book.working()) == (0, [])
    again = engine.close(book, f"{CALL}-BO", market())
    assert isinstance(again, Refused)
    assert again.code == "-352"


def test_a_day_order_ends_with_its_day_and_an_expired_position_is_settled() -> None:
    book, _ = bought(ticket(product=Product.MARGIN))
    waiting = engine.place(book, limit(Side.BUY, "50"), spec(), market())
    engine.advance(book, replace(market(), now=NOON + timedelta(days=1)), nothing)
    assert waiting.status == BookStatus.EXPIRED
    cash = book.meta.cash
    engine.advance(book, Market({}, spec().session_end, 5000), lambda _: Decimal(12))
    assert (position(book, "MARGIN").net, book.meta.cash - cash) == (0, Decimal(780))
    assert settlement(1, spec()) == pytest.approx(
        Decimal(max(0.0, spot(1, UNDERLYINGS[0], spec().session_end) - 26000)), abs=1
    )
    assert book.orders[waiting.id].filled == 0


def test_documents_survive_their_json() -> None:
    book, order = bought(ticket(stop_distance=Decimal(15)))
    assert PaperOrder.load(order.dump()) == order
    assert [PaperTrade.load(t.dump()) for t in book.trades] == book.trades
    assert PaperPosition.load(position(book).dump()) == position(book)
    assert Meta.load(book.meta.dump()) == book.meta
