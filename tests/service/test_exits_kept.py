"""Exits that nobody sends again are not lost, and nothing that was to close a position opens one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.domain.limits import Limits
from app.domain.order import Order, Purpose
from app.domain.outcome import NotSent, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NotReconciled, StoreUnavailable
from app.service.flatten import KillSwitch
from app.service.records import BookStatus
from tests.builders import LOT, SCOPE, a_contract, a_policy
from tests.service.desk import TradingDesk

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def lost_after_one_write(desk: TradingDesk) -> Callable[[], None]:
    """From the moment it is called on: one more write is kept, the database is gone for all others."""

    def begin() -> None:
        base = desk.store.writes

        def before(number: int) -> None:
            if number > base + 1:
                raise StoreUnavailable("gone")

        desk.store.before_write = before

    return begin


def healed(desk: TradingDesk, out: Order) -> None:
    desk.broker.on.clear()
    desk.store.before_write = None
    assert desk.row(out).status is Status.NOT_SENT
    desk.clock.advance(300)  # long after any re-send
    desk.reconcile()
    desk.clock.advance(5)
    desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)
    assert "lost_alert" not in desk.notifier.pages


def test_a_waiting_exit_whose_try_was_not_sent_waits_on_when_the_database_goes_then(
    desk: TradingDesk,
) -> None:
    desk.broker.next_place = [Unknown("lost")]
    desk.alert("BUY")
    out = desk.alert("EXIT", key="x").order
    assert out.status is Status.EXIT_PENDING
    desk.broker.next_place = [NotSent("broker_unreachable", "no route")]
    desk.broker.on["place"] = lost_after_one_write(desk)
    with pytest.raises(StoreUnavailable):
        desk.reconcile()
    healed(desk, out)


def test_an_exit_answered_as_waiting_for_its_legs_waits_though_that_was_not_recorded(
    desk: TradingDesk,
) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.next_protection = [Unknown("lost")]
    desk.broker.on["set_protection"] = lost_after_one_write(desk)
    out = desk.alert("EXIT", key="x").order
    assert out.status is Status.EXIT_PENDING
    healed(desk, out)


def test_an_exit_that_was_told_to_come_again_and_does_not_is_a_lost_alert(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [NotSent("broker_unreachable", "no route")]
    out = desk.alert("EXIT", key="x").order
    desk.clock.advance(60)
    desk.reconcile()
    assert (desk.row(out).status, desk.notifier.pages[-1]) == (Status.EXPIRED, "lost_alert")


def review(desk: TradingDesk) -> Order:
    """A BUY that a person was asked about: it may have been placed, or not."""
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("lost")]
    entry = desk.alert("BUY").order
    desk.store.data.orders[entry.id] = replace(
        desk.row(entry), status=Status.NEEDS_REVIEW, purpose=Purpose.ENTRY
    )
    return entry


def test_a_sell_against_a_buy_under_review_waits_and_opens_no_short(desk: TradingDesk) -> None:
    entry = review(desk)
    out = desk.alert("SELL").order
    assert (out.status, out.purpose, desk.net()) == (Status.EXIT_PENDING, Purpose.EXIT, 0)
    desk.store.data.orders[entry.id] = replace(desk.row(entry), status=Status.NOT_PLACED)
    desk.reconcile()
    assert (desk.row(out).status, desk.row(out).code, desk.net()) == (Status.DENIED, "nothing_to_exit", 0)


@pytest.mark.parametrize("fills", [True, False])
def test_a_buy_that_waited_to_close_a_short_never_touches_what_the_next_buy_has_opened(
    desk: TradingDesk, *, fills: bool
) -> None:
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("lost")]
    short = desk.alert("SELL").order
    out = desk.alert("BUY").order
    assert (out.status, out.purpose) == (Status.EXIT_PENDING, Purpose.EXIT)
    desk.store.data.orders[short.id] = replace(desk.row(short), status=Status.NOT_PLACED)
    desk.broker.fills = fills
    assert desk.alert("BUY").order.purpose is Purpose.ENTRY
    desk.reconcile()
    assert (desk.row(out).status, desk.row(out).code) == (Status.DENIED, "nothing_to_exit")
    assert desk.sent() == [(TICKER, "BUY", LOT)]
    assert [row.is_working for row in desk.broker.book] == [not fills]


def test_a_sell_beside_an_own_short_is_an_entry_whatever_is_under_review(desk: TradingDesk) -> None:
    desk.held("SELL")
    desk.reconcile()
    review(desk)
    out = desk.alert("SELL").order
    assert (out.status, out.purpose, desk.net()) == (Status.ACCEPTED, Purpose.ENTRY, -2 * LOT)


@pytest.mark.parametrize("was", ["in doubt", "called rejected"])
def test_what_traded_before_the_rest_was_rejected_is_held(desk: TradingDesk, was: str) -> None:
    desk.broker.fills = False
    desk.broker.next_place = [Unknown("lost")]
    entry = desk.alert("BUY", lots=2).order
    if was == "called rejected":
        desk.store.data.orders[entry.id] = replace(desk.row(entry), status=Status.REJECTED)
    (row,) = desk.broker.book
    desk.broker.book[0] = replace(row, filled_quantity=LOT, status=BookStatus.REJECTED)
    desk.broker.net[TICKER, "INTRADAY"] = LOT
    for _ in range(3):
        desk.reconcile()
    assert (desk.row(entry).status, desk.row(entry).filled_quantity) == (Status.REJECTED, LOT)
    assert desk.notifier.pages.count("wrong_verdict") == (1 if was == "called rejected" else 0)
    desk.broker.fills = True
    assert desk.alert("EXIT").order.quantity == LOT
    assert desk.net() == 0


def test_what_traded_under_another_end_than_ours_is_told_though_an_exit_has_recorded_it(
    desk: TradingDesk,
) -> None:
    desk.broker.fills = False
    entry = desk.alert("BUY").order
    (row,) = desk.broker.book
    desk.broker.book[0] = replace(row, status=BookStatus.CANCELLED)
    desk.reconcile()
    desk.broker.fills = True
    desk.held()
    desk.broker.book[0] = replace(row, status=BookStatus.EXPIRED, filled_quantity=LOT)
    desk.broker.net[TICKER, "INTRADAY"] += LOT
    assert desk.alert("EXIT").order.quantity == 2 * LOT
    for _ in range(2):
        desk.reconcile()
    assert (desk.row(entry).status, desk.net()) == (Status.CANCELLED, 0)
    assert desk.notifier.pages.count("needs_review") == 1


def test_nothing_to_exit_is_not_said_before_the_first_pass(desk: TradingDesk) -> None:
    """A doubt of yesterday, and a start in the morning: no pass has made a question of it yet."""
    desk.broker.next_place = [Unknown("lost")]
    desk.alert("BUY")
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.service.desk = replace(desk.desk, reconciled=lambda _: False)
    with pytest.raises(NotReconciled):
        desk.alert("EXIT")
    desk.reconcile()
    desk.service.desk = desk.desk
    assert desk.alert("EXIT").order.status is Status.EXIT_PENDING
    assert [o.status for o in desk.store.orders] == [Status.NEEDS_REVIEW, Status.EXIT_PENDING]


@pytest.mark.parametrize("recorded", [True, False])
def test_the_kill_switchs_exit_that_waits_for_its_legs_goes_on_under_the_halt(
    desk: TradingDesk, *, recorded: bool
) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.next_protection = [Unknown("lost")]
    if not recorded:
        desk.broker.on["set_protection"] = lost_after_one_write(desk)
    (out,) = KillSwitch(desk.desk).flatten("operator", "out of all").exits
    desk.broker.on.clear()
    desk.store.before_write = None
    assert out.status is Status.EXIT_PENDING
    for _ in range(4):
        desk.clock.advance(5)
        desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)
    assert desk.store.data.states[SCOPE] is TradingState.HALTED


def test_the_operators_waiting_exit_goes_on_under_the_halt_when_a_try_was_not_sent(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("lost")]
    desk.alert("BUY")
    (out,) = KillSwitch(desk.desk).flatten("operator", "out of all").exits
    assert out.status is Status.EXIT_PENDING
    desk.broker.next_place = [NotSent("broker_unreachable", "no route")]
    for _ in range(3):
        desk.clock.advance(5)
        desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)
