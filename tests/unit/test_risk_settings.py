"""From the environment to the limits: the defaults, what nothing means, and what is refused."""

from __future__ import annotations

from datetime import time
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.limits import Limits, PositionPolicy, Runaway
from app.domain.risk import CHECKS
from app.runtime import limits_of
from app.settings import Settings, SettingsError, load
from app.settings.risk import SYMBOL, RiskSettings
from app.web import schemas

DEFAULTS: dict[str, Any] = {
    "max_lots": 1,
    "qty_caps": {},
    "symbols": None,
    "position_policy": PositionPolicy.ANY,
    "repeat_seconds": None,
    "max_signal_age_s": 60,
    "max_exit_age_s": None,
    "max_order_value": Decimal(500_000),
    "max_order_risk": None,
    "max_open_lots": 50,
    "max_open_value": None,
    "max_orders_per_minute": 20,
    "max_orders_per_hour": 100,
    "max_orders_per_day": 300,
    "max_lots_per_day": None,
    "max_contracts_per_day": None,
    "runaway": Runaway(30, 60),
    "max_daily_loss": None,
    "price_band_percent": None,
    "max_spread_percent": Decimal(20),
    "min_premium": None,
    "enforce_hours": False,
    "intraday_cutoff": time(15, 10),
    "expiry_cutoff": None,
    "stock_expiry_days": 1,
}
SET: list[tuple[str, str, str, Any]] = [
    ("webhook_max_qty", "7", "max_lots", 7),
    ("qty_caps", '{"nifty:MARGIN": 2, "*:BO": 1}', "qty_caps", {"NIFTY:MARGIN": 2, "*:BO": 1}),
    ("qty_caps", '{" nifty : margin ": 2, "* :bo": 1}', "qty_caps", {"NIFTY:MARGIN": 2, "*:BO": 1}),
    ("enforce_market_hours", "true", "enforce_hours", True),
    ("risk_position_policy", "cover_only", "position_policy", PositionPolicy.COVER_ONLY),
    ("risk_repeat_seconds", "5", "repeat_seconds", 5),
    ("risk_max_signal_age_seconds", "30", "max_signal_age_s", 30),
    ("risk_max_exit_age_seconds", "90", "max_exit_age_s", 90),
    ("risk_max_order_value", "10000.5", "max_order_value", Decimal("10000.5")),
    ("risk_max_order_risk", "500", "max_order_risk", Decimal(500)),
    ("risk_max_open_lots", "4", "max_open_lots", 4),
    ("risk_max_open_value", "9", "max_open_value", Decimal(9)),
    ("risk_max_orders_per_minute", "2", "max_orders_per_minute", 2),
    ("risk_max_orders_per_hour", "3", "max_orders_per_hour", 3),
    ("risk_max_orders_per_day", "4", "max_orders_per_day", 4),
    ("risk_max_lots_per_day", "6", "max_lots_per_day", 6),
    ("risk_max_contracts_per_day", "390", "max_contracts_per_day", 390),
    ("risk_runaway", "10/30s", "runaway", Runaway(10, 30)),
    ("risk_runaway", " 10/30 ", "runaway", Runaway(10, 30)),
    ("risk_max_daily_loss", "1000", "max_daily_loss", Decimal(1000)),
    ("risk_price_band_percent", "5", "price_band_percent", Decimal(5)),
    ("risk_max_spread_percent", "3", "max_spread_percent", Decimal(3)),
    ("risk_min_premium", "1.5", "min_premium", Decimal("1.5")),
    ("risk_symbols", "nifty, BankNifty,", "symbols", frozenset({"NIFTY", "BANKNIFTY"})),
    ("risk_intraday_cutoff", "14:30", "intraday_cutoff", time(14, 30)),
    ("risk_expiry_cutoff", "12:00", "expiry_cutoff", time(12, 0)),
    ("risk_stock_expiry_days", "0", "stock_expiry_days", 0),
]
NOTHING: dict[str, Any] = {}
"""Given by hand: all comes from the environment."""
CAN_BE_OFF = [row for row in SET if row[0].startswith("risk_") and row[0] != "risk_position_policy"]


pytestmark = pytest.mark.usefixtures("bare_environment")


def limits(monkeypatch: pytest.MonkeyPatch, **env: str) -> Limits:
    for name, value in env.items():
        monkeypatch.setenv(name.upper(), value)
    return limits_of(Settings(**NOTHING))


def changed(found: Limits) -> dict[str, Any]:
    assert set(DEFAULTS) == set(Limits.__dataclass_fields__)
    return {n: getattr(found, n) for n in DEFAULTS if getattr(found, n) != DEFAULTS[n]}


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(limits(monkeypatch)) == {}


@pytest.mark.parametrize(("name", "text", "limit", "value"), SET)
def test_each_setting_sets_its_own_limit_and_no_other(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, limit: str, value: Any
) -> None:
    assert changed(limits(monkeypatch, **{name: text})) == {limit: value}


@pytest.mark.parametrize("row", CAN_BE_OFF, ids=lambda row: row[0])
def test_set_to_nothing_a_limit_is_off(
    monkeypatch: pytest.MonkeyPatch, row: tuple[str, str, str, Any]
) -> None:
    assert getattr(limits(monkeypatch, **{row[0]: ""}), row[2]) is None


@pytest.mark.parametrize(
    "name", ["webhook_max_qty", "qty_caps", "enforce_market_hours", "risk_position_policy"]
)
def test_what_cannot_be_off_keeps_its_default_then(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert changed(limits(monkeypatch, **{name: ""})) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("webhook_max_qty", "0"),
        ("qty_caps", '{"NIFTY": 0}'),
        ("qty_caps", "NIFTY=2"),
        ("qty_caps", "[2]"),
        ("qty_caps", '{"NIFTY:NOSUCH": 1}'),
        ("qty_caps", '{"*": 1}'),
        ("qty_caps", '{":MARGIN": 1}'),
        ("qty_caps", '{"NIFTY:": 1}'),
        ("qty_caps", '{"NIF TY": 1}'),
        ("qty_caps", '{"NIFTY, BANKNIFTY": 1}'),
        ("qty_caps", '{"NIFTY": 1, "nifty ": 5}'),
        ("risk_runaway", "30"),
        ("risk_runaway", "0/60s"),
        ("risk_runaway", "30/0s"),
        ("risk_max_order_value", "0"),
        ("risk_max_order_value", "NaN"),
        ("risk_max_order_value", "Infinity"),
        ("risk_max_orders_per_day", "0"),
        ("risk_intraday_cutoff", "25:00"),
        ("risk_stock_expiry_days", "-1"),
        ("risk_position_policy", "none"),
    ],
)
def test_what_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    with pytest.raises(ValidationError):
        limits(monkeypatch, **{name: text})


MOST: list[tuple[str, str, str, str]] = [
    ("webhook_max_qty", "10000", "10001", "10000 lots, was 10001"),
    ("qty_caps", '{"NIFTY": 10000}', '{"NIFTY": 10001}', "10000 lots, was 10001"),
    ("risk_repeat_seconds", "86400", "86401", "86400 seconds, was 86401"),
    ("risk_max_signal_age_seconds", "86400", "86401", "86400 seconds, was 86401"),
    ("risk_max_exit_age_seconds", "86400", "86401", "86400 seconds, was 86401"),
    ("risk_max_open_lots", "1000000", "1000001", "1000000, was 1000001"),
    ("risk_max_orders_per_minute", "1000000", "1000001", "1000000, was 1000001"),
    ("risk_max_orders_per_hour", "1000000", "1000001", "1000000, was 1000001"),
    ("risk_max_orders_per_day", "1000000", "1" + "0" * 30, "1000000, was 1" + "0" * 30),
    ("risk_max_lots_per_day", "1000000", "1000001", "1000000, was 1000001"),
    ("risk_max_contracts_per_day", "1000000000", "1000000001", "1000000000 contracts, was 1000000001"),
    ("risk_runaway", "1000000/86400s", "99/99999999999999s", "86400 seconds, was 99999999999999"),
    ("risk_runaway", "1000000/86400s", "1000001/60s", "1000000, was 1000001"),
    ("risk_stock_expiry_days", "366", "367", "366 days, was 367"),
    ("risk_max_order_value", "1000000000000", "1e999999", "1000000000000, was 1E+999999"),
    ("risk_max_order_risk", "1000000000000", "1e13", "1000000000000, was 1E+13"),
    ("risk_max_open_value", "1000000000000", "1e13", "1000000000000, was 1E+13"),
    ("risk_max_daily_loss", "1000000000000", "1e13", "1000000000000, was 1E+13"),
    ("tp_percent", "10000", "1e30", "10000, was 1E+30"),
    ("max_ltp_gap_percent", "10000", "1e30", "10000, was 1E+30"),
]


@pytest.mark.parametrize(("name", "text", "above", "words"), MOST)
def test_what_no_column_or_span_of_time_could_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, above: str, words: str
) -> None:
    limits(monkeypatch, **{name: text})
    monkeypatch.setenv(name.upper(), above)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"settings: {name.upper()}")
    assert str(caught.value).endswith(f"Value error, expected at most {words}")


def test_every_number_among_the_limits_has_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is accepted at any height until somebody has said what is too much."""
    numbers = {
        n for n, f in RiskSettings.model_fields.items() if any(t in repr(f) for t in ("int", "Decimal"))
    }
    assert numbers >= {row[0] for row in MOST if row[0] in RiskSettings.model_fields}
    for name in sorted(numbers):
        text = {"qty_caps": '{"NIFTY": %s}', "risk_runaway": "1/%s"}.get(name, "%s") % ("9" * 30)
        with pytest.raises(ValidationError, match="expected at most"):
            limits(monkeypatch, **{name: text})
        monkeypatch.delenv(name.upper())


def test_a_cap_s_symbol_is_what_an_alert_s_can_be() -> None:
    assert SYMBOL == schemas._SYMBOL


def test_every_check_names_settings_that_exist() -> None:
    named = [name for check in CHECKS for name in check.setting.split(", ") if name]
    assert {name.lower() for name in named} <= set(Settings.model_fields)
