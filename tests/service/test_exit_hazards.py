"""Exits beside things that move: what was to be closed is gone, or was never there, and nothing opens the other side."""

from __future__ import annotations

import pytest

from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Purpose
from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.status import Status
from app.service.replay import replayed
from tests.builders import LOT, a_contract, a_policy
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import position_id, trade

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def test_what_went_while_nobody_looked_is_not_taken_from_a_hand_later() -> None:
    hand = trade(1, LOT, ours=False)

    left = replayed({"default": LOT}, {}, [hand], LOT)
    assert sum(left.values()) == 0


def test_a_position_squared_off_overnight_and_bought_by_hand_is_not_sold(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.net.clear()
    desk.broker.by_hand(TICKER, LOT)
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert desk.net() == LOT


def test_an_exit_sent_again_after_the_stop_has_filled_opens_nothing(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [NotSent("broker_unreachable", "no route")]
    first = desk.alert("SELL", key="s").order
    assert (first.status, first.purpose) == (Status.NOT_SENT, Purpose.EXIT)
    desk.broker.trigger_stop(position_id())
    again = desk.alert("SELL", key="s").order
    assert (again.id, again.status, again.code) == (first.id, Status.DENIED, "nothing_to_exit")
    assert desk.net() == 0


@pytest.mark.parametrize("shown", [True, False])
def test_a_stop_that_fills_while_the_legs_are_taken_off_ends_the_exit(
    desk: TradingDesk, *, shown: bool
) -> None:
    desk.held()
    if not shown:
        desk.broker.protected.clear()
        desk.broker.next_protection = [Refused("-53", "invalid position id")]
    desk.broker.on["set_protection"] = lambda: desk.broker.by_hand(TICKER, -LOT)
    row = desk.alert("EXIT", key="x").order
    assert (row.status, row.code) == (Status.NOT_SENT, "position_changed")
    del desk.broker.on["set_protection"]
    assert desk.alert("EXIT", key="x").order.code == "nothing_to_exit"
    assert desk.net() == 0


def test_a_sell_against_a_working_buy_cancels_it_and_opens_no_short(desk: TradingDesk) -> None:
    desk.broker.fills = False
    entry = desk.alert("BUY").order
    desk.broker.fills = True
    answer = desk.alert("SELL").order
    assert (answer.status, answer.purpose, answer.code) == (Status.DENIED, Purpose.EXIT, "nothing_to_exit")
    assert entry.id in (answer.reason or "")
    assert (desk.row(entry).status, desk.net()) == (Status.CANCELLED, 0)


def test_a_waiting_exit_is_cut_to_the_freeze_quantity_and_a_person_hears_of_the_rest(
    desk: TradingDesk,
) -> None:
    desk.held(lots=27)
    desk.broker.next_place = [Unknown("timed out")]
    desk.alert("BUY", lots=2)
    waiting = desk.alert("EXIT").order
    assert waiting.status is Status.EXIT_PENDING
    desk.reconcile()
    assert (desk.row(waiting).status, desk.row(waiting).quantity) == (Status.ACCEPTED, 1755)
    assert "exit_cut" in desk.notifier.pages


def test_our_legs_are_not_put_on_what_a_hand_holds_beside_ours(desk: TradingDesk) -> None:
    desk.broker.by_hand(TICKER, LOT)
    desk.held()
    row = desk.alert("EXIT").order
    assert row.status is Status.ACCEPTED
    assert position_id() not in desk.broker.protected
    assert "unprotected" in desk.notifier.pages


def test_a_refused_exit_gets_its_legs_back_over_what_is_ours(desk: TradingDesk) -> None:
    desk.broker.by_hand(TICKER, LOT)
    desk.held()
    desk.broker.next_place = [Refused("-50", "no")]
    row = desk.alert("EXIT").order
    assert row.status is Status.REJECTED
    assert desk.broker.protected[position_id()][2] == LOT
    assert Event.LEG_RESTORED in desk.events(row)


def test_legs_stay_on_where_the_exit_after_them_could_not_go() -> None:
    desk = TradingDesk()
    desk.held()
    desk.reconcile()
    legs = dict(desk.broker.protected)
    assert legs
    desk.broker.no_room = NotSent("rate_budget", "the share of a process is too small", 1)
    order = desk.alert("EXIT").order
    assert (order.status, order.code) == (Status.NOT_SENT, "rate_budget")
    assert (desk.broker.protected, desk.notifier.pages) == (legs, [])
