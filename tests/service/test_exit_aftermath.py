"""Exits that end badly after they were accepted, and holdings that went while nobody looked."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Order, Protection, Side
from app.domain.outcome import Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.reconcile import Reconcile
from app.service.records import BookOrder, BookStatus
from app.service.watch import watch
from tests.builders import LOT, SCOPE, a_contract
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import position_id

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def refused_later(desk: TradingDesk, status: int = BookStatus.REJECTED) -> Order:
    """An exit that the broker has accepted and its risk desk has refused since."""
    desk.held()
    desk.reconcile()
    desk.broker.fills = False
    leaving = desk.alert("EXIT").order
    assert leaving.status is Status.ACCEPTED
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=status, message="RED:Margin Shortfall")
    return leaving


@pytest.mark.parametrize("status", [BookStatus.REJECTED, BookStatus.CANCELLED])
def test_the_legs_of_an_exit_that_was_refused_later_are_put_back(desk: TradingDesk, status: int) -> None:
    leaving = refused_later(desk, status)
    assert position_id() not in desk.broker.protected
    desk.reconcile()
    assert desk.broker.protected[position_id()][:2] == (Decimal("15.00"), Decimal("25.00"))
    assert Event.LEG_RESTORED in desk.events(leaving)
    assert desk.notifier.pages == []


def test_legs_that_cannot_be_put_back_page(desk: TradingDesk) -> None:
    leaving = refused_later(desk)
    desk.broker.next_protection = [Refused("-50", "no")]
    desk.reconcile()
    assert "unprotected" in desk.notifier.pages
    assert Event.LEG_UNPROTECTED in desk.events(leaving)


def test_after_a_stop_has_filled_no_legs_are_put_on_anything(desk: TradingDesk) -> None:
    refused_later(desk)
    desk.broker.by_hand(TICKER, -LOT)
    desk.reconcile()
    assert position_id() not in desk.broker.protected


def test_a_stop_that_was_seen_and_is_gone_pages_once(desk: TradingDesk) -> None:
    entry = desk.held()
    desk.reconcile()
    assert desk.row(entry).protection is Protection.SEEN
    desk.broker.protected.clear()
    desk.reconcile()
    desk.reconcile()
    assert desk.row(entry).protection is Protection.MISSING
    assert desk.notifier.pages == ["protection_missing"]


def test_an_exit_under_way_is_no_lost_protection(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.fills = False
    desk.alert("EXIT")
    desk.reconcile()
    assert desk.notifier.pages == []


@pytest.mark.parametrize("product", [Product.INTRADAY, Product.MARGIN])
def test_a_holding_that_went_while_nobody_looked_ends_after_some_minutes(
    desk: TradingDesk, product: Product
) -> None:
    desk.held(product=product)
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.net.clear()
    for _ in range(5):
        desk.reconcile()
        assert holdings(desk) == LOT
        desk.clock.advance(70)
    desk.reconcile()
    assert holdings(desk) == 0


def test_two_looks_that_lie_far_apart_do_not_show_that_it_was_gone_between(desk: TradingDesk) -> None:
    """Another instance looked meanwhile, and saw it: one empty morning list and one incomplete answer end nothing."""
    desk.held(product=Product.MARGIN)
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.net.clear()
    desk.reconcile()
    desk.clock.advance(600)
    desk.reconcile()
    assert holdings(desk) == LOT


def test_an_empty_morning_list_takes_nothing_away(desk: TradingDesk) -> None:
    desk.held(product=Product.MARGIN)
    desk.reconcile()
    carried = dict(desk.broker.net)
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.net.clear()
    desk.reconcile()
    desk.broker.net.update(carried)
    desk.clock.advance(400)
    desk.reconcile()
    assert holdings(desk) == LOT
    assert desk.alert("EXIT", product=Product.MARGIN).order.quantity == LOT


def holdings(desk: TradingDesk) -> int:
    with desk.store.read() as tx:
        return sum(h.net_quantity for h in tx.holdings(SCOPE, None))


def test_a_stop_of_an_order_without_an_id_is_none_of_the_rows_without_a_parent(desk: TradingDesk) -> None:
    """The broker took it and gave no id yet: rows that hang on nothing are not its legs."""
    entry = desk.held()
    row = desk.row(entry)
    desk.broker.protected.clear()
    filled = replace(row, broker_order_id=None, filled_quantity=LOT, filled_at=desk.clock.now())
    desk.store.data.orders[entry.id] = replace(filled, protection=Protection.REQUESTED)
    desk.clock.advance(15)
    with desk.store.write() as tx:
        watch(tx, desk.desk, desk.broker.order_book(), desk.broker.positions(), row.ist_date)
    assert desk.row(entry).protection is Protection.MISSING


@pytest.mark.parametrize(
    ("side", "quantity", "state"),
    [
        (Side.SELL, LOT, TradingState.ACTIVE),
        (Side.SELL, LOT + 1, TradingState.HALTED),
        (Side.BUY, LOT, TradingState.HALTED),
    ],
)
def test_a_leg_of_what_was_carried_over_is_no_stranger(
    desk: TradingDesk, side: Side, quantity: int, state: TradingState
) -> None:
    """Put on again today, by the API and without a parent. An order on the other side, or of more, fits nothing of ours."""
    entry = desk.held(product=Product.MARGIN)
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    leg = BookOrder(
        "00000000000099",
        TICKER,
        side,
        quantity,
        0,
        BookStatus.PENDING,
        "MARGIN",
        None,
        desk.clock.now(),
        source="API",
    )
    desk.broker.book.append(leg)
    Reconcile(desk.desk)()
    with desk.store.read() as tx:
        assert tx.trading_state(SCOPE) is state
    assert desk.row(entry).status is Status.FILLED


def test_a_fill_that_crossed_an_exits_cancel_pages_once(desk: TradingDesk) -> None:
    desk.broker.fills = False
    entry = desk.alert("BUY").order
    out = desk.alert("EXIT").order
    assert (out.code, desk.row(entry).status) == ("nothing_to_exit", Status.CANCELLED)
    desk.broker.fill(entry.broker_order_id or "")
    for _ in range(4):
        desk.clock.advance(5)
        desk.reconcile()
    assert (desk.row(entry).status, desk.notifier.pages) == (Status.FILLED, ["needs_review"])
    assert Event.PROTECTION_SEEN in desk.events(entry)
    desk.broker.fills = True
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.net() == 0


@pytest.mark.parametrize("lost", [True, False])
def test_an_exit_before_the_days_first_pass_waits_for_what_became_of_yesterdays_entry(
    desk: TradingDesk, *, lost: bool
) -> None:
    """The process ran over night, and nobody has looked into a book since the entry was sent."""
    if lost:
        desk.broker.next_place = [Unknown("lost")]
    entry = desk.alert(product=Product.MARGIN).order
    assert entry.status is (Status.IN_DOUBT if lost else Status.ACCEPTED)
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    out = desk.alert("EXIT", product=Product.MARGIN).order
    assert out.status is Status.EXIT_PENDING
    desk.reconcile()
    assert (desk.row(entry).status, desk.row(out).status) == (Status.NEEDS_REVIEW, Status.EXIT_PENDING)
