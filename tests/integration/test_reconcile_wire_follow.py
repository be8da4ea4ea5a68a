"""Accepted orders, followed to their end by the book; what they count for. On the wire."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.domain.order import Order, Side
from app.domain.status import Status
from tests.simulator.book import CANCELLED, EXPIRED, PENDING, REJECTED
from tests.wire_desk import LOT, WireDesk

pytestmark = pytest.mark.usefixtures("contract_caps")


def resting(desk: WireDesk, lots: int = 2) -> Order:
    desk.sim.fill_mode = "rest"
    order = desk.alert(lots=lots)
    assert order.status is Status.ACCEPTED
    return order


def the_id(order: Order) -> str:
    assert order.broker_order_id is not None
    return order.broker_order_id


def test_a_fill_at_another_price_moves_the_levels(desk: WireDesk) -> None:
    order = resting(desk)
    assert (order.stop_loss, order.take_profit) == (Decimal("85.00"), Decimal("125.00"))
    desk.sim.fill(the_id(order), LOT, 110)
    desk.pass_on(1)
    row = desk.row(order)
    assert (row.status, row.filled_quantity, row.fill_price) == (Status.PARTIALLY_FILLED, LOT, Decimal(110))
    assert (row.stop_loss, row.take_profit) == (Decimal(95), Decimal(135))
    desk.sim.fill(the_id(order), LOT, 112)
    desk.pass_on(1)
    row = desk.row(order)
    assert (row.status, row.filled_quantity, row.fill_price) == (Status.FILLED, 2 * LOT, Decimal(111))
    assert (row.stop_loss, row.take_profit) == (Decimal(96), Decimal(136))
    assert row.side is Side.BUY
    desk.assert_caps()


@pytest.mark.parametrize("part", [0, LOT])
@pytest.mark.parametrize(
    ("ending", "status"),
    [("cancel", Status.CANCELLED), ("expire", Status.EXPIRED), ("reject", Status.REJECTED)],
)
def test_the_unfilled_part_is_given_back_once(desk: WireDesk, ending: str, status: Status, part: int) -> None:
    order = resting(desk)
    if part:
        desk.sim.fill(the_id(order), part)
        desk.pass_on(1)
    if ending == "reject":
        desk.sim.reject(the_id(order), "RED:Margin Shortfall")
    else:
        getattr(desk.sim, ending)(the_id(order))
    for _ in range(3):
        desk.pass_on(1)
        row = desk.row(order)
        assert (row.status, row.filled_quantity) == (status, part)
        assert desk.caps("contracts") == part
    desk.assert_caps()
    if ending == "reject":
        assert (row.code, row.reason) == ("rejected_by_exchange", "RED:Margin Shortfall")


def test_an_order_refused_by_the_exchange_afterwards_gives_everything_back(desk: WireDesk) -> None:
    desk.sim.fill_mode = "reject_async"
    order = desk.alert()
    assert order.status is Status.ACCEPTED
    desk.pass_on(1)
    assert desk.row(order).status is Status.REJECTED
    assert "Margin" in (desk.row(order).reason or "")
    assert (desk.caps("contracts"), desk.caps("orders")) == (0, 1)


@pytest.mark.parametrize("filled", [LOT, 2 * LOT])
def test_a_fill_that_crossed_the_cancel_counts_again(desk: WireDesk, filled: int) -> None:
    order = resting(desk)
    desk.sim.cancel(the_id(order))
    desk.pass_on(1)
    assert (desk.row(order).status, desk.caps("contracts")) == (Status.CANCELLED, 0)
    desk.sim.exchange.orders[the_id(order)].status = PENDING
    desk.sim.fill(the_id(order), filled)
    if filled == LOT:
        desk.sim.cancel(the_id(order))
    desk.pass_on(60)
    row = desk.row(order)
    assert row.filled_quantity == filled
    assert row.status is (Status.FILLED if filled == 2 * LOT else Status.CANCELLED)
    desk.assert_caps()
    desk.sim.fill_mode = "instant"
    out = desk.alert("EXIT")
    assert (out.quantity, desk.net()) == (filled, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [(CANCELLED, EXPIRED), (CANCELLED, REJECTED), (EXPIRED, CANCELLED), (EXPIRED, REJECTED)],
)
def test_a_fill_under_another_end_than_ours_is_held_and_stops_no_pass(
    desk: WireDesk, first: int, second: int
) -> None:
    order = resting(desk)
    at_broker = desk.sim.exchange.orders[the_id(order)]
    at_broker.status = first
    desk.pass_on(1)
    ours = desk.row(order).status
    at_broker.status = PENDING
    desk.sim.fill(the_id(order), LOT)
    at_broker.status = second
    desk.sim.fill_mode = "instant"
    other = desk.bought(strike=24600)
    for _ in range(3):
        desk.pass_on(60)
    row = desk.row(order)
    assert (row.status, row.filled_quantity, row.code) == (ours, LOT, "traded_more")
    assert (desk.row(other).status, desk.notifier.pages.count("needs_review")) == (Status.FILLED, 1)
    desk.assert_caps()
    assert (desk.alert("EXIT").quantity, desk.net()) == (LOT, 0)


def test_yesterdays_working_order_is_a_persons(desk: WireDesk) -> None:
    order = resting(desk)
    desk.pass_on(20 * 3600)
    row = desk.row(order)
    assert (row.status, row.code) == (Status.NEEDS_REVIEW, "day_over")
    desk.assert_caps()
