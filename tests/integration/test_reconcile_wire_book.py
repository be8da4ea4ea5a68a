"""What the broker's book proves and what it does not; following orders to their end. On the wire."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.audit import Event
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed
from app.service.settle import Settle
from tests.wire_desk import LOT, TICKER, Desks, WireDesk, seconds_to

pytestmark = pytest.mark.usefixtures("contract_caps")

QUICK = Settle(min_reads=1, min_seconds=0)
"""So that a verdict comes before a late order does."""
AT_2320_IST = datetime(2026, 9, 9, 17, 50, tzinfo=UTC)
RED = '{"s":"error","code":-99,"message":"RED:Margin Shortfall"}'


def sends(desk: WireDesk) -> int:
    return len(desk.sim.ledger.orders())


# --- a book that proves nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen_s", [5, 60, 130, 600, 7200])
@pytest.mark.parametrize("fault", ["reset_created", "reset"])
def test_a_frozen_book_proves_nothing(desk: WireDesk, fault: str, frozen_s: int) -> None:
    """The book stands still from before the send, with a row of that moment in it, and then shows the truth."""
    desk.witness()
    desk.sim.freeze_book()
    order = desk.in_doubt(fault)
    for _ in range(12):
        desk.pass_on(frozen_s / 12)
        desk.witness()  # trades go on, and the book does not show them
        assert desk.row(order).status is Status.IN_DOUBT
    desk.sim.unfreeze_book()
    desk.pass_on(1)
    arrived = fault == "reset_created"
    assert desk.row(order).status is (Status.FILLED if arrived else Status.IN_DOUBT)
    for _ in range(12):
        desk.pass_on(15, witness=True)
    assert desk.row(order).status is (Status.FILLED if arrived else Status.NOT_PLACED)
    assert sends(desk) == 1
    desk.assert_caps()


def test_a_book_frozen_after_the_send_with_rows_of_that_moment_proves_nothing(desk: WireDesk) -> None:
    """The order is late, the book shows others of the very second of the send, and stands still then."""
    order = desk.in_doubt("late_reset", appear_after=3)
    desk.witness()
    desk.sim.freeze_book()
    for _ in range(20):
        desk.pass_on(30)
        assert desk.row(order).status is Status.IN_DOUBT
    desk.sim.unfreeze_book()
    desk.pass_on(1)
    assert desk.row(order).status is Status.FILLED


def test_a_book_that_shows_one_late_witness_for_ever_is_not_alive_for_long_enough(desk: WireDesk) -> None:
    """A witness ten seconds after the send, and then a frozen book: an order may be 119 s late."""
    order = desk.in_doubt("late_reset", appear_after=119)
    desk.sim.advance(10)
    desk.witness()
    desk.sim.freeze_book()
    for _ in range(40):
        desk.pass_on(15)
        assert desk.row(order).status is Status.IN_DOUBT
    desk.sim.unfreeze_book()
    desk.pass_on(1)
    assert desk.row(order).status is Status.FILLED


@pytest.mark.parametrize("fault", ["reset_created", "reset"])
def test_an_empty_book_proves_nothing(desk: WireDesk, fault: str) -> None:
    desk.sim.faults.set("GET /orders", "empty")
    order = desk.in_doubt(fault)
    for _ in range(40):
        desk.pass_on(30, witness=True)
        assert desk.row(order).status is Status.IN_DOUBT
    assert sends(desk) == 1


def test_without_a_witness_nothing_is_proven_by_any_number_of_readings(desk: WireDesk) -> None:
    desk.witness()
    order = desk.in_doubt("reset")
    for _ in range(40):
        desk.pass_on(30)
        assert desk.row(order).status is Status.IN_DOUBT
    assert sends(desk) == 1


def test_four_fresh_readings_prove_nothing_and_five_in_a_minute_neither(desk: WireDesk) -> None:
    order = desk.in_doubt("reset")
    for _ in range(4):
        desk.pass_on(60, witness=True)
    assert desk.row(order).status is Status.IN_DOUBT
    desk.pass_on(1)
    assert desk.row(order).status is Status.NOT_PLACED
    hasty = desk.in_doubt("reset")
    for _ in range(10):
        desk.pass_on(7, witness=True)
    assert desk.row(hasty).status is Status.IN_DOUBT
    assert sends(desk) == 2


@pytest.mark.parametrize("fault", ["reset_created", "reset"])
def test_after_midnight_nothing_can_be_proven(desks: Desks, fault: str) -> None:
    """The book of the send is gone: absence from the new day's proves nothing, whatever rows are there."""
    desk = desks.start()
    desk.sim.advance(seconds_to(desks.clock, AT_2320_IST))
    desk.pass_on()
    order = desk.in_doubt(fault)
    for _ in range(4):
        desk.pass_on(60, witness=True)
    if fault == "reset":
        assert desk.row(order).status is Status.IN_DOUBT
        order = desk.row(order)
    else:
        assert desk.row(order).status is Status.FILLED
        return
    desk.pass_on(3600, witness=True)
    assert (desk.row(order).status, desk.row(order).code) == (Status.NEEDS_REVIEW, "day_over")
    for _ in range(10):
        desk.pass_on(60, witness=True)
    assert desk.row(order).status is Status.NEEDS_REVIEW
    assert (sends(desk), desk.notifier.pages.count("needs_review")) == (1, 1)
    desk.assert_caps()


def test_an_unseen_order_whose_day_is_over_is_a_persons(desks: Desks) -> None:
    desk = desks.start()
    desk.sim.advance(seconds_to(desks.clock, AT_2320_IST))
    desk.pass_on()
    desk.sim.faults.set("GET /orders", "http_500")
    order = desk.in_doubt("reset_created")
    with pytest.raises(BrokerReadFailed):
        desk.pass_on(60)
    desk.sim.faults.clear()
    desk.pass_on(3600, witness=True)
    assert desk.row(order).status is Status.NEEDS_REVIEW


# --- a wrong verdict, found out ---------------------------------------------------------------------------------


def test_a_late_arrival_after_not_placed_is_adopted(desks: Desks) -> None:
    desk = desks.start(settle=QUICK)
    desk.pass_on()
    order = desk.in_doubt("late_reset", appear_after=60)
    desk.pass_on(6, witness=True)
    assert desk.row(order).status is Status.NOT_PLACED
    desk.assert_caps()
    desk.pass_on(60)
    desk.pass_on(1)
    assert (desk.row(order).status, desk.row(order).filled_quantity) == (Status.FILLED, LOT)
    assert (desk.state(), desk.notifier.pages.count("wrong_verdict")) == (TradingState.REDUCING, 1)
    assert Event.ORDER_ADOPTED in desk.events(order)
    desk.assert_caps()
    assert desk.alert().code == "trading_state"
    assert desk.alert("EXIT").status is Status.ACCEPTED
    assert (desk.sold(), desk.net()) == ([(TICKER, LOT)], 0)


def test_a_rejected_order_that_the_book_shows_live_is_adopted(desk: WireDesk) -> None:
    desk.sim.faults.next_order("custom_created", status=400, body=RED)
    order = desk.alert()
    assert order.status is Status.REJECTED
    assert desk.caps("contracts") == 0
    desk.pass_on(60)
    desk.pass_on(1)
    assert desk.row(order).status is Status.FILLED
    assert desk.caps("contracts") == LOT
    assert (desk.state(), desk.notifier.pages.count("wrong_verdict")) == (TradingState.REDUCING, 1)
    desk.assert_caps()
    assert sends(desk) == 1


def test_an_order_that_came_long_after_its_senders_time_is_taken_back(desk: WireDesk) -> None:
    desk.sim.fill_mode = "rest"
    order = desk.in_doubt("late_reset", appear_after=30)
    row = desk.sim.exchange.orders[next(reversed(desk.sim.exchange.orders))]
    desk.sim.advance(30)
    row.at = desks_now(desk)
    desk.pass_on(1)
    desk.pass_on(1)
    assert (desk.row(order).status, desk.net()) == (Status.CANCELLED, 0)
    assert desk.notifier.pages.count("sent_late") == 1
    desk.assert_caps()


def desks_now(desk: WireDesk) -> datetime:
    return desk.clock.now()
