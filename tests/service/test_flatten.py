"""The kill switch: halted first, flat at the end, never short, and what a hand opened only when it is typed out."""

from __future__ import annotations

import pytest

from app.domain.alert import Product
from app.domain.limits import Limits
from app.domain.outcome import Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.flatten import KillSwitch
from tests.builders import LOT, SCOPE, a_policy
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


def test_flatten_closes_all_clients_and_leaves_a_hands_position(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b", lots=2)
    desk.held(client="b", product=Product.MARGIN)
    desk.broker.by_hand(desk.contract.ticker, LOT)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert (state(desk), done.problems) == (TradingState.HALTED, [])
    assert (desk.net(), desk.net(Product.MARGIN)) == (LOT, 0)
    assert desk.alert("BUY").order.code == "trading_state"


def test_all_positions_closes_the_hands_too(desk: TradingDesk) -> None:
    desk.broker.by_hand(desk.contract.ticker, LOT)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert (desk.net(), len(done.closed_by_hand)) == (0, 1)
    assert "closed_by_hand" in desk.notifier.pages


def test_above_the_freeze_quantity_it_exits_until_nothing_is_left(desk: TradingDesk) -> None:
    desk.held(lots=27)
    desk.held(lots=27)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert (desk.net(), [o.quantity for o in done.exits]) == (0, [1755, 1755])


def test_a_working_entry_is_cancelled(desk: TradingDesk) -> None:
    desk.broker.fills = False
    order = desk.alert("BUY").order
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    desk.reconcile()
    assert (done.cancelled, desk.row(order).status, desk.net()) == ([order.id], Status.CANCELLED, 0)


def test_cancel_takes_exits_that_do_not_fill_as_well(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.fills = False
    waiting = desk.alert("EXIT").order
    assert KillSwitch(desk.desk).cancel("cli:me", "enough").cancelled == [waiting.id]


def test_with_an_entry_in_doubt_the_exit_waits_and_runs_though_halted(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("timed out")]
    doubt = desk.alert("BUY").order
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert [o.status for o in done.exits] == [Status.EXIT_PENDING]
    assert desk.net() == LOT
    desk.reconcile()
    desk.reconcile()
    assert (desk.row(doubt).status, desk.net()) == (Status.FILLED, 0)
    desk.reconcile()
    assert desk.net() == 0


def test_an_exit_in_doubt_is_not_sold_again(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT").order.status is Status.IN_DOUBT
    KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    for _ in range(3):
        desk.reconcile()
    assert desk.net() == 0
