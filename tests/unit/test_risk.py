"""The table of checks: each at its boundary, and what may stop an exit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app.domain.alert import Exchange, OptionType, Product
from app.domain.contract import Contract
from app.domain.risk import CHECKS, Limits, Proposal, TradingState, first_denial

CONTRACT = Contract(
    exchange=Exchange.NSE,
    underlying="NIFTY",
    expiry=date(2026, 12, 1),
    session_end=datetime(2026, 12, 1, 10, 10, tzinfo=UTC),
    strike=Decimal(24500),
    option_type=OptionType.CE,
    ticker="NSE:NIFTY26D0124500CE",
    lot=65,
    tick=Decimal("0.05"),
    freeze=130,
    underlying_ticker="NSE:NIFTY50-INDEX",
    is_stock=False,
    master_date=date(2026, 11, 23),
)
GOOD = Proposal(
    contract=CONTRACT,
    quantity=65,
    product=Product.INTRADAY,
    is_exit=False,
    state=TradingState.ACTIVE,
    master_not_before=date(2026, 11, 23),
    now=datetime(2026, 11, 25, 5, 0, tzinfo=UTC),
    live=True,
)
LIMITS = Limits(max_lots=3)


def code_of(proposal: Proposal, limits: Limits = LIMITS) -> str | None:
    denial = first_denial(proposal, limits)
    return None if denial is None else denial.code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"quantity": 130}, None),
        ({"quantity": 195}, "freeze_quantity"),
        ({"quantity": 260}, "max_lots"),
        ({"quantity": 66}, "lot_multiple"),
        ({"quantity": 64}, "lot_multiple"),
        ({"delayed_feed": True}, "delayed_feed"),
        ({"delayed_feed": True, "live": False}, None),
        ({"master_not_before": date(2026, 11, 24)}, "stale_master"),
        ({"state": TradingState.REDUCING}, "trading_state"),
        ({"state": TradingState.HALTED}, "trading_state"),
        ({"contract": replace(CONTRACT, freeze=None), "quantity": 195}, None),
    ],
)
def test_each_limit_of_an_entry_at_its_boundary(change: dict[str, object], code: str | None) -> None:
    assert code_of(replace(GOOD, **change)) == code  # type: ignore[arg-type]


def test_a_denial_says_what_would_have_been_allowed() -> None:
    denial = first_denial(replace(GOOD, quantity=100), LIMITS)
    assert denial is not None
    assert "65 or 130" in denial.reason
    denial = first_denial(replace(GOOD, quantity=260), LIMITS)
    assert denial is not None
    assert "195" in denial.reason


def test_only_the_trading_state_stops_an_exit() -> None:
    worst = replace(GOOD, is_exit=True, quantity=6501, delayed_feed=True, master_not_before=date(2027, 1, 1))
    assert code_of(worst) is None
    assert code_of(replace(worst, state=TradingState.REDUCING)) is None
    assert code_of(replace(worst, state=TradingState.HALTED)) == "trading_state"


def test_codes_are_unique() -> None:
    codes = [check.code for check in CHECKS]
    assert len(set(codes)) == len(codes)
