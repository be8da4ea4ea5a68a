"""A list of positions that is incomplete, on the days on which it is hardest to tell: a hand or a stop has traded too, an
order is at work, several clients hold.
"""

from __future__ import annotations

import pytest

from app.domain.alert import Product
from app.domain.limits import Limits
from app.domain.status import Status
from app.service.position import Place, Readings, look
from app.service.records import Position
from tests.builders import SCOPE, a_policy
from tests.service.desk import TradingDesk

LOT = 65


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def position(desk: TradingDesk) -> str:
    return f"{desk.contract.ticker}-INTRADAY"


def stopped_out_and_in_again(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.trigger_stop(position(desk))
    desk.clock.advance(10)
    desk.reconcile()
    assert desk.owned() == {}
    desk.held()
    desk.reconcile()


def test_a_stop_of_earlier_today_does_not_explain_what_is_missing_now(desk: TradingDesk) -> None:
    stopped_out_and_in_again(desk)
    shown = desk.positions_hidden()
    out = desk.alert("EXIT").order
    assert out.status is Status.EXIT_PENDING
    desk.broker.net.update(shown)
    desk.reconcile()
    assert (desk.row(out).quantity, desk.net()) == (LOT, 0)


def test_nor_for_an_ordinary_pass(desk: TradingDesk) -> None:
    stopped_out_and_in_again(desk)
    shown = desk.positions_hidden()
    desk.clock.advance(61)
    desk.reconcile()
    assert desk.owned() == {"default": LOT}
    desk.broker.net.update(shown)
    assert desk.alert("EXIT").order.quantity == LOT


def test_a_stop_that_has_just_filled_leaves_nothing_to_exit_at_once(desk: TradingDesk) -> None:
    stopped_out_and_in_again(desk)
    desk.broker.trigger_stop(position(desk))
    out = desk.alert("EXIT").order
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit")


def test_another_client_s_working_entry_does_not_end_the_exit(desk: TradingDesk) -> None:
    desk.held(client="anna")
    desk.reconcile()
    desk.broker.fills = False
    desk.alert("BUY", client="ben")
    desk.positions_hidden()
    assert desk.alert("EXIT", client="anna").order.status is Status.EXIT_PENDING


def test_an_exit_that_waits_is_not_ended_by_a_later_entry_at_work(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    shown = desk.positions_hidden()
    out = desk.alert("EXIT").order
    desk.clock.advance(1)
    desk.broker.fills = False
    later = desk.alert("BUY").order
    desk.clock.advance(1)
    desk.reconcile()
    assert desk.row(out).status is Status.EXIT_PENDING
    desk.broker.fills = True
    desk.broker.net.update(shown)
    desk.reconcile()
    assert (desk.row(out).quantity, desk.net()) == (LOT, 0)
    desk.broker.fill(later.broker_order_id or "")
    desk.reconcile()
    assert desk.owned() == {"default": LOT}


def test_what_a_later_exit_is_closing_is_not_the_older_one_s(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    shown = desk.positions_hidden()
    first = desk.alert("EXIT").order
    desk.broker.net.update(shown)
    desk.clock.advance(1)
    desk.held()
    desk.clock.advance(1)
    desk.broker.fills = False
    later = desk.alert("SELL", qty=LOT, lots=None).order
    desk.broker.fills = True
    desk.reconcile()
    assert desk.row(first).quantity == LOT
    desk.broker.fill(later.broker_order_id or "")
    desk.reconcile()
    assert (desk.net(), desk.owned()) == (0, {})


def test_a_stop_after_what_was_missing_for_minutes_is_explained(desk: TradingDesk) -> None:
    """A hand converted the position to another product; five minutes later it is nobody's. In again, and stopped out."""
    desk.held(client="anna")
    desk.reconcile()
    desk.positions_hidden()
    for _ in range(7):
        desk.clock.advance(60)
        desk.reconcile()
    assert desk.owned() == {}
    desk.held(client="anna")
    desk.reconcile()
    desk.broker.trigger_stop(position(desk))
    desk.reconcile()
    assert desk.owned() == {}
    desk.held(client="ben")
    desk.reconcile()
    out = desk.alert("EXIT", client="anna").order
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit")
    assert desk.owned() == {"ben": LOT}


def test_a_list_of_trades_that_lags_takes_nothing_away(desk: TradingDesk) -> None:
    for quantity in (LOT, -LOT):
        desk.broker.by_hand(desk.contract.ticker, quantity)
    seen = len(desk.broker.fills_of_today)
    desk.held()
    late = desk.broker.fills_of_today[seen:]
    del desk.broker.fills_of_today[seen:]
    desk.reconcile()
    assert desk.owned() == {"default": LOT}
    desk.broker.fills_of_today += late
    assert desk.alert("EXIT").order.quantity == LOT


def test_a_book_of_before_our_latest_fill_takes_nothing_away(desk: TradingDesk) -> None:
    """An exit has read it and the trades; the entry's fill is recorded by a pass meanwhile, before the exit's look."""
    first = desk.held()
    desk.reconcile()
    desk.broker.trigger_stop(position(desk))
    desk.clock.advance(10)
    desk.reconcile()
    assert desk.owned() == {}
    old_book, old_trades = tuple(desk.broker.book), tuple(desk.broker.fills_of_today)
    desk.clock.advance(60)
    again = desk.held()
    desk.reconcile()
    assert (desk.row(first).status, desk.row(again).status) == (Status.FILLED, Status.FILLED)
    ticker = desk.contract.ticker
    place = Place(SCOPE, ticker, Product.INTRADAY)
    for net in (0, LOT):
        readings = Readings(old_book, old_trades, Position(position(desk), ticker, "INTRADAY", net))
        with desk.store.write() as tx:
            seen = look(tx, place, None, readings, desk.row(again).ist_date)
        assert desk.owned() == {"default": LOT}
        assert seen.unexplained is (net == 0)


def test_a_hand_that_sold_more_than_its_own_leaves_what_is_shown(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.net[desk.contract.ticker, "INTRADAY"] += LOT  # a hand's, of before today
    desk.broker.by_hand(desk.contract.ticker, -100)
    out = desk.alert("EXIT").order
    assert (out.status, out.quantity, desk.net()) == (Status.ACCEPTED, 30, 0)


def test_what_others_entered_later_is_not_what_a_waiting_exit_misses(desk: TradingDesk) -> None:
    desk.held(client="anna")
    desk.reconcile()
    desk.positions_hidden()  # for good
    out = desk.alert("EXIT", client="anna").order
    assert out.status is Status.EXIT_PENDING
    desk.clock.advance(1)
    desk.held(client="ben")
    desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.EXIT_PENDING, LOT)
