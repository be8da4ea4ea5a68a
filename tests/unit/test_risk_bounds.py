"""Every check on both sides of its limit, what it then says, and when it has nothing to say."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import IST, Product
from app.domain.limits import Limits, PositionPolicy, Runaway
from app.domain.proposal import Exposure, Finding, Proposal, Stage, TradingState
from app.domain.risk import CHECKS, first_denial, judge
from tests.unit import risk_price_cases, risk_shape_cases, risk_time_cases
from tests.unit.risk_proposals import (
    BASE,
    COVER,
    CUTOFF,
    HOURS,
    STOCK,
    Case,
    at,
    exposed,
    fired,
    price,
)
from tests.unit.test_risk import CONTRACT

CHECK = {check.code: check for check in CHECKS}
CASES = risk_shape_cases.CASES + risk_time_cases.CASES + risk_price_cases.CASES


def look(code: str, limits: dict[str, Any], change: dict[str, Any]) -> Finding | None:
    return CHECK[code].look(replace(BASE, **change), Limits(**{"max_lots": 3} | limits))


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_within_and_beyond(case: Case) -> None:
    code, limits, within, beyond, limit, value, words = case
    fine = look(code, limits, within)
    assert fine is None or fine.reason is None
    found = look(code, limits, beyond)
    assert found is not None
    assert (found.limit, found.value) == (limit, value)
    assert found.reason is not None
    assert words in found.reason


def test_no_check_is_without_a_case() -> None:
    assert {c.code for c in CHECKS} == {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("code", "limits", "change"),
    [
        ("market_closed", {}, {"now": at("02:00", 29)}),
        ("signal_age", {}, fired(9999)),
        ("signal_age", {"max_signal_age_s": 60}, {"fired_at": None}),
        ("signal_age", {"max_signal_age_s": 60}, fired(9999, is_exit=True)),
        ("signal_age", {"max_exit_age_s": 60}, fired(9999)),
        ("position_policy", {}, {}),
        ("symbol", {}, {}),
        ("delayed_feed", {}, {"delayed_feed": True, "live": False}),
        ("intraday_cutoff", HOURS, {"now": at("15:30")}),
        ("intraday_cutoff", {"intraday_cutoff": time(9, 0)}, {}),
        ("intraday_cutoff", CUTOFF, {"now": at("15:30"), "product": Product.MARGIN}),
        ("expiry_cutoff", {}, {"now": at("15:00", 1, 12)}),
        ("expiry_cutoff", {"expiry_cutoff": time(0, 0)}, {"now": at("23:59", 30)}),
        ("expiry_cutoff", {"expiry_cutoff": time(0, 0)}, {"now": at("00:00", 2, 12)}),
        ("stock_expiry", {}, {"contract": STOCK, "now": at("10:00", 1, 12)}),
        ("stock_expiry", {"stock_expiry_days": 1}, {"now": at("10:00", 1, 12)}),
        ("freeze_quantity", {}, {"contract": replace(CONTRACT, freeze=None), "quantity": 65_000}),
        ("order_value", {}, price("9999999")),
        ("order_value", {"max_order_value": Decimal(1)}, {"price": None}),
        ("order_risk", {}, price(stop="9999999")),
        ("order_risk", {"max_order_risk": Decimal(1)}, {"price": None}),
        ("order_risk", {"max_order_risk": Decimal(1)}, price(stop=None)),
        ("price_band", {}, price(ask="9999")),
        ("price_band", {"price_band_percent": Decimal(1)}, {"price": None}),
        ("spread", {}, price(bid="1")),
        ("spread", {"max_spread_percent": Decimal(1)}, {"price": None}),
        ("min_premium", {}, price("0.05")),
        ("min_premium", {"min_premium": Decimal(1)}, {"price": None}),
        ("repeat", {}, exposed(since=0)),
        ("repeat", {"repeat_seconds": 30}, {"exposure": None}),
        ("open_lots", {}, exposed("9999")),
        ("open_lots", {"max_open_lots": 0}, {"exposure": None}),
        ("open_value", {}, exposed(value="99999999")),
        ("open_value", {"max_open_value": Decimal(1)}, {"exposure": None}),
        ("open_value", {"max_open_value": Decimal(1)}, {"price": None}),
        ("runaway", {}, exposed(tried=9999)),
        ("runaway", {"runaway": Runaway(1, 1)}, {"exposure": None}),
    ],
)
def test_off_or_not_applicable_says_nothing(
    code: str, limits: dict[str, Any], change: dict[str, Any]
) -> None:
    assert look(code, limits, change) is None


def test_the_first_of_its_kind_is_no_repeat() -> None:
    assert look("repeat", {"repeat_seconds": 30}, {}) == Finding("30 s", "none before", None)


def test_a_contract_that_trades_today_is_shown_as_such() -> None:
    assert look("not_tradable", {}, {"contract": replace(CONTRACT, tradable=True)}) == Finding(
        "trades", "trades", None
    )


def test_a_real_time_alert_with_real_money_is_shown_as_such() -> None:
    assert look("delayed_feed", {}, {}) == Finding("real time", "real time", None)


def test_the_brokers_word_that_the_market_is_open_is_shown_as_such() -> None:
    assert look("market_closed", {"enforce_hours": True}, {"broker_says_open": True}) == Finding(
        "open", "open", None
    )


STRICT = Limits(
    max_lots=1,
    symbols=frozenset({"SENSEX"}),
    position_policy=COVER,
    repeat_seconds=30,
    max_signal_age_s=60,
    max_exit_age_s=60,
    max_order_value=Decimal(1),
    max_order_risk=Decimal(1),
    max_open_lots=1,
    max_open_value=Decimal(1),
    runaway=Runaway(1, 60),
    price_band_percent=Decimal("0.1"),
    max_spread_percent=Decimal("0.1"),
    min_premium=Decimal(500),
    enforce_hours=True,
    intraday_cutoff=time(15, 10),
    expiry_cutoff=time(13, 0),
    stock_expiry_days=1,
)
WORST: Proposal = replace(
    BASE,
    contract=replace(STOCK, tradable=False, circuit_low=Decimal(1), circuit_high=Decimal(2)),
    quantity=999,
    state=TradingState.HALTED,
    master_not_before=date(2026, 12, 1),
    now=at("15:35", 1, 12),
    broker_says_open=False,
    delayed_feed=True,
    fired_at=at("09:00", 1, 12),
    exposure=Exposure(Decimal(9), Decimal(999), at("15:35", 1, 12), 9),
)
STAGES = {
    Stage.SHAPE: [
        "trading_state",
        "market_closed",
        "signal_age",
        "position_policy",
        "symbol",
        "stale_master",
        "delayed_feed",
        "intraday_cutoff",
        "expiry_cutoff",
        "stock_expiry",
        "lot_multiple",
        "max_lots",
        "freeze_quantity",
        "not_tradable",
    ],
    Stage.PRICE: ["order_value", "order_risk", "circuit", "price_band", "spread", "min_premium"],
    Stage.BOOKS: ["repeat", "open_lots", "open_value", "runaway"],
}


def denied(proposal: Proposal, *stages: Stage) -> list[str]:
    verdicts = judge(proposal, STRICT, stages or tuple(Stage))
    return [v.denial.code for v in verdicts if v.denial is not None]


def test_whoever_breaks_every_rule_is_told_by_every_check_in_the_tables_order() -> None:
    assert denied(WORST) == [code for codes in STAGES.values() for code in codes]


@pytest.mark.parametrize("stage", Stage)
def test_each_stage_asks_its_own_checks_and_no_others(stage: Stage) -> None:
    assert denied(WORST, stage) == STAGES[stage]
    first = first_denial(WORST, STRICT, (stage,))
    assert first is not None
    assert first.code == STAGES[stage][0]


def test_an_exit_meets_three_checks_at_most() -> None:
    assert denied(replace(WORST, is_exit=True)) == ["trading_state", "market_closed", "signal_age"]
    fine = replace(WORST, is_exit=True, state=TradingState.REDUCING, broker_says_open=True, fired_at=None)
    assert denied(fine) == []
    assert first_denial(fine, STRICT) is None


def test_with_every_limit_off_only_what_cannot_be_switched_off_is_looked_at() -> None:
    verdicts = judge(replace(BASE, live=False), Limits(max_lots=3))
    assert [v.check.code for v in verdicts] == [
        "trading_state",
        "stale_master",
        "lot_multiple",
        "max_lots",
        "freeze_quantity",
    ]
    assert all(v.denial is None for v in verdicts)


@pytest.mark.parametrize(
    ("caps", "symbol", "product", "lots"),
    [
        ({}, "NIFTY", "INTRADAY", 10),
        ({"NIFTY": 5}, "NIFTY", "INTRADAY", 5),
        ({"NIFTY": 5}, "BANKNIFTY", "INTRADAY", 10),
        ({"NIFTY:MARGIN": 7, "NIFTY": 5, "*:MARGIN": 3}, "NIFTY", "MARGIN", 7),
        ({"NIFTY:MARGIN": 7, "NIFTY": 5, "*:MARGIN": 3}, "NIFTY", "INTRADAY", 5),
        ({"NIFTY:MARGIN": 7, "NIFTY": 5, "*:MARGIN": 3}, "SENSEX", "MARGIN", 3),
        ({"NIFTY:MARGIN": 7, "NIFTY": 5, "*:MARGIN": 3}, "SENSEX", "BO", 10),
        ({"NIFTY": 5, "*:MARGIN": 3}, "NIFTY", "MARGIN", 5),
        ({"NIFTY": 11}, "NIFTY", "INTRADAY", 10),
    ],
)
def test_the_most_particular_cap_counts_and_none_is_wider_than_the_general_one(
    caps: dict[str, int], symbol: str, product: str, lots: int
) -> None:
    assert Limits(max_lots=10, qty_caps=caps).lots_for(symbol, product) == lots


def test_limits_are_off_unless_they_are_given() -> None:
    limits = Limits(max_lots=1)
    on = {n for n in Limits.__dataclass_fields__ if getattr(limits, n) not in (None, False, {})}
    assert on == {"max_lots", "position_policy"}
    assert limits.position_policy is PositionPolicy.ANY


@pytest.mark.parametrize(
    ("word", "on", "reason"), [(True, "20:00", None), (False, "10:00", "closed"), (None, "20:00", "closed")]
)
def test_the_brokers_word_goes_before_the_session(word: bool | None, on: str, reason: str | None) -> None:
    found = look("market_closed", HOURS, {"now": at(on), "broker_says_open": word})
    assert found is not None
    assert (found.reason is None) == (reason is None)
    assert (reason or "") in (found.reason or "")


def test_the_cutoff_ends_with_the_session() -> None:
    ends = CONTRACT.session_end.astimezone(IST)
    late = [look("intraday_cutoff", CUTOFF, {"now": ends + timedelta(minutes=m)}) for m in (-1, 0)]
    assert late[0] is not None
    assert (late[0].reason is None, late[1]) == (False, None)
