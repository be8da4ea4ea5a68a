"""A SELL or BUY of all that a chart counts, where less is held: it closes what there is, and never turns it over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from app.domain.alert import ADMIN_CLIENT
from app.domain.limits import Limits
from app.domain.order import Order, Purpose
from app.domain.outcome import NotSent, Refused
from app.domain.status import Status
from app.service.check import CheckAlert
from app.service.records import BookStatus
from tests.builders import LOT, a_policy, an_alert
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import TICKER


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=3)))


def part_filled(desk: TradingDesk, action: str = "BUY") -> Order:
    """Two lots asked for, one traded, one still working."""
    desk.broker.fills = False
    entry = desk.alert(action, lots=2).order
    row = desk.broker.book[-1]
    desk.broker.book[-1] = replace(row, filled_quantity=LOT, traded_price=Decimal(101))
    desk.broker.net[TICKER, "INTRADAY"] = row.side.sign * LOT
    desk.broker.fills = True
    return entry


@pytest.mark.parametrize(("action", "out"), [("BUY", "SELL"), ("SELL", "BUY")])
@pytest.mark.parametrize("known", [True, False])
def test_the_rest_of_the_entry_is_cancelled_and_what_has_filled_is_closed(
    desk: TradingDesk, action: str, out: str, *, known: bool
) -> None:
    entry = part_filled(desk, action)
    if known:
        desk.reconcile()
    order = desk.alert(out, lots=2).order
    assert (order.status, order.purpose, order.quantity) == (Status.ACCEPTED, Purpose.EXIT, LOT)
    assert order.warnings == (
        f"cancelled before it: {entry.id}",
        f"quantity {2 * LOT} is more than the {LOT} held: cut to {LOT}",
    )
    assert order.explanation == f"{out} closes what is held: {TICKER}, expiry 24 Nov 2026"
    assert (desk.row(entry).status, desk.net()) == (Status.CANCELLED, 0)


@pytest.mark.parametrize("known", [True, False])
def test_what_a_stop_or_a_hand_has_closed_of_it_is_left_out(desk: TradingDesk, *, known: bool) -> None:
    desk.held(lots=2)
    desk.reconcile()
    desk.broker.by_hand(TICKER, -LOT)
    if known:
        desk.reconcile()
    order = desk.alert("SELL", lots=2).order
    assert (order.status, order.quantity, desk.net()) == (Status.ACCEPTED, LOT, 0)


def refused(desk: TradingDesk) -> None:
    desk.broker.next_place = [Refused("margin", "not enough")]
    assert desk.alert("BUY").order.status is Status.REJECTED


def denied(desk: TradingDesk) -> None:
    assert desk.alert("BUY", lots=4).order.status is Status.DENIED


def never_sent_again(desk: TradingDesk) -> None:
    desk.broker.next_place = [NotSent("connect_failed", "no route")]
    entry = desk.alert("BUY").order
    desk.clock.advance(60)
    desk.reconcile()
    assert desk.row(entry).status is Status.EXPIRED


def refused_after_it_was_accepted(desk: TradingDesk) -> None:
    desk.broker.fills = False
    desk.alert("BUY")
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    desk.broker.fills = True


@pytest.mark.parametrize(
    ("nothing_came", "lots"),
    [(refused, 2), (denied, 5), (never_sent_again, 2), (refused_after_it_was_accepted, 2)],
)
def test_an_entry_of_which_nothing_came_counts(
    desk: TradingDesk, nothing_came: Callable[[TradingDesk], None], lots: int
) -> None:
    desk.held()
    nothing_came(desk)
    order = desk.alert("SELL", lots=lots).order
    assert (order.status, order.quantity, desk.net()) == (Status.ACCEPTED, LOT, 0)
    desk.reconcile()
    assert desk.net() == 0


def test_what_was_carried_counts_with_what_came_today(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    part_filled(desk)
    desk.broker.net[TICKER, "INTRADAY"] = 2 * LOT
    order = desk.alert("SELL", lots=3).order
    assert (order.status, order.quantity, desk.net()) == (Status.ACCEPTED, 2 * LOT, 0)


def too_much(desk: TradingDesk, lots: int, client: str = "default") -> None:
    before = desk.sent()
    order = desk.alert("SELL", lots=lots, client=client).order
    assert (order.status, order.code) == (Status.DENIED, "exceeds_position")
    assert "a reversal needs an exit and an entry" in (order.reason or "")
    assert desk.sent() == before


def test_more_than_all_entries_were_for_is_a_reversal_and_denied(desk: TradingDesk) -> None:
    part_filled(desk)
    too_much(desk, 3)


def test_what_an_exit_has_closed_does_not_count(desk: TradingDesk) -> None:
    desk.held(lots=3)
    assert desk.alert("EXIT", lots=1).order.status is Status.ACCEPTED
    too_much(desk, 3)
    desk.broker.fills = False
    assert desk.alert("EXIT", lots=1).order.status is Status.ACCEPTED  # on its way: it may close that much
    too_much(desk, 2)


def test_what_others_asked_for_on_other_days_and_on_the_other_side_does_not_count(desk: TradingDesk) -> None:
    desk.broker.fills = False
    desk.alert("SELL", lots=1)
    desk.alert("BUY", lots=2, client="another")
    desk.alert("BUY", lots=2, strike=Decimal(24600))
    for row in tuple(desk.broker.book):
        desk.broker.cancel(row.broker_order_id)
    desk.broker.fills = True
    desk.reconcile()
    desk.held()
    too_much(desk, 2)
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    too_much(desk, 2)


def test_what_the_operator_has_closed_of_it_is_left_out(desk: TradingDesk) -> None:
    desk.held(lots=3)
    out = desk.alert("EXIT", client=ADMIN_CLIENT, lots=1).order
    assert (out.status, out.client) == (Status.ACCEPTED, "default")
    too_much(desk, 3)  # it stands under the holder's name, who has been told of it
    desk.held(client="zoe")
    assert desk.alert("EXIT", client=ADMIN_CLIENT, lots=1).order.status is Status.ACCEPTED
    order = desk.alert("SELL", lots=2).order
    assert (order.status, order.quantity) == (Status.ACCEPTED, LOT)


@pytest.mark.parametrize(("lots", "code"), [(2, None), (3, "exceeds_position")])
def test_the_check_says_what_the_exit_does(lots: int, code: str | None) -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=3)))
    desk.broker.fills = False
    desk.alert("BUY", lots=2)
    desk.broker.book[-1] = replace(desk.broker.book[-1], filled_quantity=LOT, traded_price=Decimal(101))
    desk.broker.net[desk.contract.ticker, "INTRADAY"] = LOT
    desk.reconcile()
    alert = an_alert("SELL", lots=lots, received_at=desk.clock.now())
    denial = CheckAlert(desk.desk)(alert, "r", desk.clock.monotonic()).denial
    assert (denial.code if denial is not None else None) == code
