"""Entries that reach the broker after their time: alarmed, adopted, and taken back while they still work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.audit import Event
from app.domain.order import Order
from app.domain.outcome import Accepted, Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed, StoreUnavailable
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


def five_passes(desk: TradingDesk) -> None:
    for _ in range(5):
        desk.clock.advance(5)
        desk.reconcile()


def taken_back(desk: TradingDesk, order: Order, ident: str) -> tuple[int, Status, int, int]:
    """What the book has of it, its row, how often a cancel was recorded and how many the broker got."""
    at_broker = next(row.status for row in desk.broker.book if row.broker_order_id == ident)
    said = desk.events(order).count(Event.ENTRY_CANCEL)
    return at_broker, desk.row(order).status, said, desk.broker.calls.count("cancel")


def refuse_once(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next cancel does not get to the broker, and is no answer either."""
    cancel = desk.broker.cancel

    def broken(_: str) -> object:
        monkeypatch.setattr(desk.broker, "cancel", cancel)
        raise BrokerReadFailed("cut off")

    monkeypatch.setattr(desk.broker, "cancel", broken)


def test_a_late_one_is_taken_back_though_the_pass_that_settled_it_failed(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("reset", sent_late=True), Unknown("reset")]
    late, other = desk.alert().order, desk.alert().order

    def gone_in_between(_: int) -> None:
        if desk.row(late).status is Status.ACCEPTED:
            raise StoreUnavailable("the database is gone")

    desk.store.before_write = gone_in_between
    with pytest.raises(StoreUnavailable):
        desk.reconcile()
    desk.store.before_write = None
    assert (desk.row(late).status, desk.row(late).code) == (Status.ACCEPTED, "sent_late")
    five_passes(desk)
    ident = desk.row(late).broker_order_id or ""
    assert taken_back(desk, late, ident) == (BookStatus.CANCELLED, Status.CANCELLED, 1, 1)
    assert desk.row(other).status is Status.ACCEPTED


def test_an_adopted_one_is_taken_back_though_the_pass_that_adopted_it_failed(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.reconcile.settle = Settle(min_reads=1, min_seconds=0.01)
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    order = desk.alert().order
    desk.proven_absent(order)
    ident = desk.broker.take(replace(order, stop_distance=None, target_distance=None).ticket())
    refuse_once(desk, monkeypatch)
    desk.clock.advance(61)
    with pytest.raises(BrokerReadFailed):
        desk.reconcile()
    assert (desk.row(order).status, desk.row(order).code) == (Status.ACCEPTED, "adopted")
    five_passes(desk)
    assert taken_back(desk, order, ident) == (BookStatus.CANCELLED, Status.CANCELLED, 1, 1)


def test_a_late_one_whose_sender_ended_before_it_took_it_back_is_taken_back(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.broker.next_place = [Accepted("00000000000001", sent_late=True)]
    refuse_once(desk, monkeypatch)
    order = desk.alert().order
    assert (order.status, order.code) == (Status.ACCEPTED, "sent_late")
    five_passes(desk)
    assert taken_back(desk, order, "00000000000001") == (BookStatus.CANCELLED, Status.CANCELLED, 1, 1)


def test_a_sender_that_is_about_to_take_its_own_back_is_left_to_it(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.broker.next_place = [Accepted("00000000000001", sent_late=True)]
    cancel = desk.broker.cancel

    def cancel_after_a_pass(broker_order_id: str) -> object:
        monkeypatch.setattr(desk.broker, "cancel", cancel)
        desk.reconcile()
        return cancel(broker_order_id)

    monkeypatch.setattr(desk.broker, "cancel", cancel_after_a_pass)
    order = desk.alert().order
    five_passes(desk)
    assert taken_back(desk, order, "00000000000001") == (BookStatus.CANCELLED, Status.CANCELLED, 1, 1)


def test_one_attempt_to_take_it_back_is_all(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.broker.next_place = [Unknown("reset", sent_late=True)]
    order = desk.alert().order
    asked: list[str] = []

    def refused(broker_order_id: str) -> object:
        asked.append(broker_order_id)
        return Refused("-50", "no")

    monkeypatch.setattr(desk.broker, "cancel", refused)
    desk.reconcile()
    five_passes(desk)
    assert (desk.row(order).status, len(asked)) == (Status.ACCEPTED, 1)
