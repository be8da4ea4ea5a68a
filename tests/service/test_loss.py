"""The day's loss turns the state to REDUCING by itself: at the limit, once, and never what stops an exit."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.domain.contract import ist_date
from app.domain.limits import Limits
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.control import Control
from app.service.health import BROKER_KEEP_S, OK, Parts, usual_checks
from app.service.loss import CANNOT, day_result
from tests.builders import SCOPE, a_policy
from tests.service.desk import TradingDesk


def after(profit: str | None, *, held: bool = True) -> TradingDesk:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, max_daily_loss=Decimal(1000))))
    if held:
        desk.held()
    else:
        desk.broker.by_hand(desk.contract.ticker, 65)
    desk.broker.profit = None if profit is None else Decimal(profit)
    desk.reconcile()
    desk.reconcile()
    return desk


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


@pytest.mark.parametrize(
    ("profit", "wanted"),
    [
        ("-999.95", TradingState.ACTIVE),
        ("-1000", TradingState.REDUCING),
        ("5000", TradingState.ACTIVE),
        (None, TradingState.ACTIVE),
    ],
)
def test_it_trips_at_the_limit(profit: str | None, wanted: TradingState) -> None:
    desk = after(profit)
    assert state(desk) is wanted
    assert desk.notifier.pages.count("daily_loss") == (wanted is TradingState.REDUCING)


def test_an_unknown_result_pages_once_an_hour_and_only_where_there_is_a_limit() -> None:
    desk = after(None)
    assert desk.notifier.pages.count("daily_loss_unknown") == 1
    desk.clock.advance(3599)
    desk.reconcile()
    assert desk.notifier.pages.count("daily_loss_unknown") == 1
    desk.clock.advance(1)
    desk.reconcile()
    assert desk.notifier.pages.count("daily_loss_unknown") == 2
    free = TradingDesk()
    free.held()
    free.reconcile()
    assert "daily_loss_unknown" not in free.notifier.pages


def test_what_traded_today_and_is_not_listed_is_unknown_and_never_nothing() -> None:
    desk = after("5000")
    with desk.store.read() as tx:
        assert day_result(tx, desk.desk, (), ist_date(tx.now())) is None


@pytest.mark.parametrize(("profit", "word"), [("-999", OK), (None, CANNOT)])
def test_the_check_says_whether_the_limit_is_watched(profit: str | None, word: str) -> None:
    desk = after(profit)
    parts = Parts(desk.clock, desk.store, desk.broker, desk.contracts, SCOPE, None, lambda: desk.desk)
    found = usual_checks(parts, {})(for_orders=True)
    assert (found.words["daily_loss"], found.orders) == (word, True)


def test_one_read_tells_of_the_broker_and_of_the_limit() -> None:
    desk = after("-999")
    parts = Parts(desk.clock, desk.store, desk.broker, desk.contracts, SCOPE, None, lambda: desk.desk)
    checks, before = usual_checks(parts, {}), len(desk.broker.calls)
    for _ in range(5):
        assert checks(for_orders=True).words["broker"] == OK
    assert desk.broker.calls[before:] == ["positions"]
    desk.clock.advance(BROKER_KEEP_S)
    desk.broker.fail.add("positions")
    found = checks(for_orders=True)
    assert (found.words["broker"] == OK, found.words["daily_loss"] == OK, found.orders) == (
        False,
        False,
        False,
    )


def test_exits_pass_after_it_and_entries_do_not() -> None:
    desk = after("-2000")
    assert desk.alert("BUY").order.code == "trading_state"
    assert desk.alert("EXIT").order.status is Status.ACCEPTED


def test_a_hands_loss_elsewhere_is_not_ours() -> None:
    assert state(after("-2000", held=False)) is TradingState.ACTIVE


def test_after_a_resume_it_trips_again_and_says_so_again() -> None:
    desk = after("-2000")
    Control(desk.desk).set_state(TradingState.ACTIVE, "me", "one more try")
    desk.reconcile()
    assert state(desk) is TradingState.REDUCING
    assert desk.notifier.pages.count("daily_loss") == 2


def test_a_halt_is_not_softened_by_it() -> None:
    desk = after("-999")
    Control(desk.desk).set_state(TradingState.HALTED, "me", "enough of it")
    desk.broker.profit = Decimal(-2000)
    desk.reconcile()
    assert state(desk) is TradingState.HALTED
    assert "daily_loss" not in desk.notifier.pages
