"""Entries that reach the broker after their time: alarmed, adopted, and taken back while they still work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.outcome import Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.desk import Budget
from app.service.records import BookStatus
from app.service.send import record
from app.service.settle import Settle
from tests.builders import SCOPE, a_contract
from tests.service.desk import TradingDesk

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    desk = TradingDesk()
    desk.broker.fills = False
    return desk


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


def test_an_entry_whose_sender_says_that_it_was_late_is_taken_back(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("reset", sent_late=True)]
    order = desk.alert().order
    assert (order.status, order.code) == (Status.IN_DOUBT, "sent_late")
    desk.reconcile()
    assert desk.broker.book[-1].status == BookStatus.CANCELLED
    desk.reconcile()
    assert desk.row(order).status is Status.CANCELLED
    assert desk.notifier.pages == ["sent_late"]


def test_a_late_one_that_has_filled_is_kept(desk: TradingDesk) -> None:
    desk.broker.fills = True
    desk.broker.next_place = [Unknown("reset", sent_late=True)]
    order = desk.alert().order
    desk.reconcile()
    assert desk.row(order).status is Status.FILLED


def test_an_entry_in_time_is_not_taken_back(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("reset")]
    desk.alert()
    desk.reconcile()
    assert desk.broker.book[-1].status == BookStatus.PENDING


def test_an_arrival_after_a_no_of_ours_is_adopted_and_taken_back(desk: TradingDesk) -> None:
    desk.reconcile.settle = Settle(min_reads=1, min_seconds=0.01)
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    order = desk.alert().order
    desk.clock.advance(60)
    desk.broker.by_hand(TICKER, 65)
    desk.reconcile()
    desk.clock.advance(1)
    desk.reconcile()
    assert desk.row(order).status is Status.NOT_PLACED
    desk.clock.advance(61)
    late = replace(order, stop_distance=None, target_distance=None).ticket()
    desk.broker.take(late)
    desk.reconcile()
    assert desk.broker.book[-1].status == BookStatus.CANCELLED
    desk.reconcile()
    assert desk.row(order).status is Status.CANCELLED
    assert state(desk) is TradingState.REDUCING
    assert "wrong_verdict" in desk.notifier.pages


def test_what_was_refused_while_the_book_was_read_is_no_wrong_verdict(desk: TradingDesk) -> None:
    """The book still shows it at work: it is older than the refusal."""
    desk.broker.next_place = [Unknown("lost")]
    order = desk.alert("BUY").order
    assert order.status is Status.IN_DOUBT

    def refused_meanwhile() -> None:
        desk.clock.advance(1)
        record(
            desk.desk, order, Refused("-99", "RED:Margin Shortfall"), Budget.of(desk.clock.monotonic(), 2.0)
        )

    desk.broker.on["order_book"] = refused_meanwhile
    desk.reconcile()
    assert (desk.row(order).status, state(desk)) == (Status.REJECTED, TradingState.ACTIVE)
    desk.broker.on.clear()
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    desk.reconcile()
    assert (desk.row(order).status, state(desk)) == (Status.REJECTED, TradingState.ACTIVE)
