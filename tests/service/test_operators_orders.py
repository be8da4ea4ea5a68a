"""The operator's EXIT is of all that is held; his BUY and SELL are about what is his own, like anybody's."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.alert import ADMIN_CLIENT
from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.check import CheckAlert
from app.service.control import Control
from tests.builders import LOT, a_policy, an_alert
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def operator(desk: TradingDesk, action: str, **more: Any) -> Order:
    order = desk.alert(action, client=ADMIN_CLIENT, **more).order
    desk.reconcile()
    return order


def test_his_sell_leaves_what_clients_hold(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    assert operator(desk, "SELL").status is Status.ACCEPTED
    assert desk.owned() == {"a": LOT}
    assert desk.alert("EXIT", client="a").order.status is Status.ACCEPTED
    assert desk.net() == 0


def test_his_sell_of_more_than_is_his_is_denied(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    assert (operator(desk, "SELL", lots=2).code, desk.net()) == ("exceeds_position", 2 * LOT)


def test_his_sell_cancels_no_clients_entry(desk: TradingDesk) -> None:
    operator(desk, "BUY")
    desk.broker.fills = False
    entry = desk.alert("BUY", client="a").order
    desk.broker.fills = True
    operator(desk, "SELL")
    assert desk.row(entry).status is Status.ACCEPTED


def test_he_gets_out_of_what_is_his_though_trading_is_halted(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    Control(desk.desk).set_state(TradingState.HALTED, "cli:me", "enough")
    assert desk.alert("SELL", client="a").order.code == "trading_state"
    assert operator(desk, "SELL").status is Status.ACCEPTED
    assert desk.owned() == {"a": LOT}


def test_the_check_says_what_the_order_will(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    asked = an_alert(action="SELL", client=ADMIN_CLIENT, lots=2)
    report = CheckAlert(desk.desk)(asked, "request", desk.clock.monotonic())
    assert report.denial is not None
    assert report.denial.code == "exceeds_position"


def test_his_exit_closes_all(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    operator(desk, "EXIT")
    assert (desk.net(), desk.owned()) == (0, {})


def test_his_sell_that_waits_is_still_about_what_is_his_own(desk: TradingDesk) -> None:
    desk.held(client="a")
    operator(desk, "BUY")
    shown = desk.positions_hidden()
    out = operator(desk, "SELL")
    assert desk.row(out).status is Status.EXIT_PENDING
    desk.broker.net.update(shown)
    desk.reconcile()  # it goes
    desk.reconcile()  # and has filled
    assert (desk.row(out).quantity, desk.row(out).client) == (LOT, ADMIN_CLIENT)
    assert desk.owned() == {"a": LOT}
