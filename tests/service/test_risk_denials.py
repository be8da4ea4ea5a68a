"""Each "no" through the whole service: its code in the row, nothing at the broker, and what is held still gets out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.limits import Limits, PositionPolicy, Runaway
from app.domain.order import Mode, Scope
from app.domain.risk import CHECKS, TradingState
from app.domain.status import Status
from app.service.place_order import PlaceOrder
from tests.builders import LOT, NOW, TODAY, a_contract, a_policy
from tests.service.desk import TradingDesk

Prepare = Callable[[TradingDesk], object]


@dataclass
class Case:
    """`before`: entries that are accepted before the one that is not. `last`: what is special about that one."""

    code: str
    limits: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    prepare: Prepare = lambda _: None
    before: int = 0
    always_on: bool = False
    stops_exits: bool = False


def reducing(desk: TradingDesk) -> None:
    with desk.store.write() as tx:
        tx.set_trading_state(desk.desk.scope, TradingState.REDUCING, "test", "a test of it")


def trades(**changes: Any) -> Prepare:
    def prepare(desk: TradingDesk) -> None:
        desk.contract = a_contract(**changes)
        desk.contracts.contracts = [desk.contract]

    return prepare


def with_real_money(desk: TradingDesk) -> None:
    scope = Scope(Mode.LIVE, "XY1")
    desk.store.ensure_scope(scope)
    desk.desk = replace(desk.desk, scope=scope)
    desk.service = PlaceOrder(desk.desk)


def wait(hours: float) -> Prepare:
    return lambda desk: desk.clock.advance(hours * 3600)


OLD: dict[str, Any] = {"fired_at": NOW - timedelta(seconds=61)}
CASES = [
    Case("trading_state", prepare=reducing, always_on=True),
    Case("market_closed", {"enforce_hours": True}, prepare=wait(5), stops_exits=True),
    Case("signal_age", {"max_signal_age_s": 60}, OLD),
    Case("position_policy", {"position_policy": PositionPolicy.COVER_ONLY}),
    Case("symbol", {"symbols": frozenset({"SENSEX"})}),
    Case("stale_master", prepare=trades(master_date=date(2026, 11, 16)), always_on=True),
    Case("delayed_feed", {}, {"delayed_feed": True}, with_real_money, always_on=True),
    Case("intraday_cutoff", {"enforce_hours": True, "intraday_cutoff": time(10, 30)}),
    Case("expiry_cutoff", {"expiry_cutoff": time(10, 30)}, prepare=trades(expiry=TODAY)),
    Case("stock_expiry", {"stock_expiry_days": 1}, prepare=trades(expiry=date(2026, 11, 19), is_stock=True)),
    Case("lot_multiple", {}, {"qty": 66}, always_on=True),
    Case("max_lots", {"max_lots": 2}, {"lots": 3}),
    Case("freeze_quantity", {}, {"lots": 28}, always_on=True),
    Case("not_tradable", prepare=trades(tradable=False), always_on=True),
    Case("order_value", {"max_order_value": Decimal(6499)}),
    Case("order_risk", {"max_order_risk": Decimal(974)}),
    Case("circuit", prepare=trades(circuit_low=Decimal(90), circuit_high=Decimal(100)), always_on=True),
    Case("price_band", {"price_band_percent": Decimal("0.99")}),
    Case("spread", {"max_spread_percent": Decimal("1.99")}),
    Case("min_premium", {"min_premium": Decimal("100.05")}),
    Case("repeat", {"repeat_seconds": 30}, before=1),
    Case("open_lots", {"max_open_lots": 2}, before=2),
    Case("open_value", {"max_open_value": Decimal(13_500)}, before=2),
    Case("runaway", {"runaway": Runaway(2, 60)}, before=2),
    Case("cap_orders_minute", {"max_orders_per_minute": 2}, before=2),
    Case("cap_orders_hour", {"max_orders_per_hour": 2}, before=2),
    Case("cap_orders_day", {"max_orders_per_day": 2}, before=2),
    Case("cap_lots_day", {"max_lots_per_day": 2}, before=2),
    Case("cap_contracts_day", {"max_contracts_per_day": 3 * LOT - 1}, before=2),
]
IDS = [case.code for case in CASES]


def prepared(case: Case, limits: dict[str, Any]) -> TradingDesk:
    """After the entries that are within; the desk is then what makes the next one too much."""
    desk = TradingDesk(policy=a_policy(limits=Limits(**{"max_lots": 50, **limits})))
    for _ in range(case.before):
        assert desk.alert().order.status is Status.ACCEPTED
    case.prepare(desk)
    return desk


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_an_entry_is_denied_and_nothing_is_sent(case: Case) -> None:
    desk = prepared(case, case.limits)
    sent = len(desk.broker.ledger)
    order = desk.alert(**case.last).order
    assert (order.status, order.code) == (Status.DENIED, case.code)
    assert order.reason
    assert len(desk.broker.ledger) == sent == case.before
    assert desk.row(order).code == case.code


@pytest.mark.parametrize("case", [c for c in CASES if not c.always_on], ids=lambda c: c.code)
def test_without_the_limit_the_same_entry_is_sent(case: Case) -> None:
    """The denial above is that limit's and nothing else's."""
    desk = prepared(case, {})
    assert desk.alert(**case.last).order.status is Status.ACCEPTED
    assert len(desk.broker.ledger) == case.before + 1


COUNTED: dict[str, dict[str, Any]] = {
    "orders_minute": {"max_orders_per_minute": 2},
    "orders_hour": {"max_orders_per_hour": 2},
    "orders_day": {"max_orders_per_day": 2},
    "lots_day": {"max_lots_per_day": 2},
    "contracts_day": {"max_contracts_per_day": 3 * LOT - 1},
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_limit_that_is_set_at_noon_counts_what_was_sent_in_the_morning(name: str) -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))
    for _ in range(2):
        assert desk.alert().order.status is Status.ACCEPTED
    limits = Limits(**{"max_lots": 50, **COUNTED[name]})
    desk.service = PlaceOrder(replace(desk.desk, policy=a_policy(limits=limits)))
    order = desk.alert().order
    assert (order.status, order.code, len(desk.broker.ledger)) == (Status.DENIED, f"cap_{name}", 2)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_is_held_gets_out_though_no_entry_would(case: Case) -> None:
    """All but the market's hours: of the three that may stop an exit the other two are off, or let exits pass."""
    entered = TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))
    entered.held()
    entered.service = PlaceOrder(
        replace(entered.desk, policy=a_policy(limits=Limits(**{"max_lots": 50, **case.limits})))
    )
    if case.prepare is reducing or case.code == "market_closed":
        case.prepare(entered)
    last: dict[str, Any] = {k: v for k, v in case.last.items() if k in ("fired_at", "delayed_feed")}
    order = entered.alert("EXIT", **last).order
    assert (order.status, order.code) == (
        (Status.DENIED, case.code) if case.stops_exits else (Status.ACCEPTED, None)
    )
    assert entered.net() == (65 if case.stops_exits else 0)


def test_an_exit_that_is_too_old_is_denied_by_its_own_looser_limit() -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, max_signal_age_s=10, max_exit_age_s=60)))
    desk.held()
    assert desk.alert("EXIT", **OLD).order.code == "signal_age"
    assert desk.alert("EXIT", fired_at=NOW - timedelta(seconds=60)).order.status is Status.ACCEPTED


def test_no_check_is_without_a_case() -> None:
    assert [c.code for c in CHECKS] == [case.code for case in CASES if not case.code.startswith("cap_")]
