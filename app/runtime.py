"""From settings to what the verbs go by, and which of the settings may be changed while the service runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import time, timedelta
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from app.domain.limits import Limits, Runaway
from app.domain.order import Mode
from app.errors import FieldError, InvalidAlert
from app.service.config import Config, Effective
from app.service.desk import Policy
from app.settings import Settings
from app.settings.risk import PREFIX, RiskSettings
from app.settings.secret_manager import PREFIX as SECRET

BROKER_ORDERS_PER_SECOND = 10
"""Fyers' own limit (fyers-api.md 3)."""
OTHERS = (
    "sl_percent",
    "tp_percent",
    "max_ltp_gap_percent",
    "dedupe_window_seconds",
    "rate_limit_webhook",
    "ip_allowlist",
)
RUNTIME = tuple(sorted((*RiskSettings.model_fields, *OTHERS)))
"""All limits, the percents, the windows and who may post: nothing here is a secret."""
CAN_BE_OFF = frozenset(n for n in RUNTIME if n.startswith(PREFIX) and n != "risk_position_policy")


class SettingsRules:
    """service.config.Rules by the models that read the environment: the whole set is checked, as at a start."""

    names = tuple(name.upper() for name in RUNTIME)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._given = {name: getattr(settings, name) for name in Settings.model_fields}

    def effective(self, settings: Mapping[str, str]) -> Effective:
        made = self.settings(settings)
        values = {name.upper(): text_of(getattr(made, name)) for name in RUNTIME}
        return Effective(
            values=values | {"ENFORCE_MARKET_HOURS": text_of(made.hours_enforced)},
            policy=policy_of(made, ""),
            ip_allowlist=made.ip_allowlist,
            rate_limit_webhook=made.rate_limit_webhook,
        )

    def settings(self, settings: Mapping[str, str]) -> Settings:
        """A name that is none of ours is no reason to refuse here: `Config` looks at the names of a change."""
        wanted = {n.lower(): v for n, v in settings.items() if n in self.names}
        empty = [n for n, v in wanted.items() if not v.strip() and n not in CAN_BE_OFF]
        if empty:
            words = "expected a value; null gives it back to the environment"
            raise InvalidAlert(tuple(FieldError(n.upper(), words) for n in empty))
        secrets = [n for n, v in wanted.items() if v.strip().startswith(SECRET)]
        if secrets:  # it would be fetched by every instance, on the way of an order
            raise InvalidAlert(
                tuple(FieldError(n.upper(), "expected a value, was a reference") for n in secrets)
            )
        if not wanted:
            return self._settings
        # Off is said by "": blanks alone stay blanks, which no setting takes.
        texts = {n: v.strip() or v for n, v in wanted.items()}
        try:
            return Settings.model_validate({**self._given, **texts})
        except ValidationError as error:
            raise InvalidAlert(_problems(error)) from None


def in_force(settings: Settings, config: Config | None) -> Settings:
    """The settings as they are just now; the environment's where nothing else is known."""
    return settings if config is None else SettingsRules(settings).settings(config.known().document.settings)


def _problems(error: ValidationError) -> tuple[FieldError, ...]:
    found = []
    for one in error.errors(include_input=False, include_url=False):
        message = one["msg"].removeprefix("Value error, ")
        field = str(one["loc"][0]).upper() if one["loc"] else "settings"
        found.append(FieldError(field, message))
    return tuple(found)


def text_of(value: Any) -> str:  # noqa: ANN401 - any setting's value
    """As the environment would say it; empty: off, or not said."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case (int(orders), int(seconds)):
            return f"{orders}/{seconds}s"
        case frozenset():
            return ",".join(sorted(value))
        case dict():
            return json.dumps(value, sort_keys=True)
        case time():
            return f"{value:%H:%M}" if not value.second else f"{value:%H:%M:%S}"
        case _:
            return str(value)


def limits_of(settings: Settings) -> Limits:
    """The limits as the environment gives them."""
    s = settings
    orders, seconds = s.risk_runaway or (None, None)
    return Limits(
        max_lots=s.webhook_max_qty,
        qty_caps=s.qty_caps,
        symbols=s.risk_symbols,
        position_policy=s.risk_position_policy,
        repeat_seconds=s.risk_repeat_seconds,
        max_signal_age_s=s.risk_max_signal_age_seconds,
        max_exit_age_s=s.risk_max_exit_age_seconds,
        max_order_value=s.risk_max_order_value,
        max_order_risk=s.risk_max_order_risk,
        max_open_lots=s.risk_max_open_lots,
        max_open_value=s.risk_max_open_value,
        max_orders_per_minute=s.risk_max_orders_per_minute,
        max_orders_per_hour=s.risk_max_orders_per_hour,
        max_orders_per_day=s.risk_max_orders_per_day,
        max_lots_per_day=s.risk_max_lots_per_day,
        max_contracts_per_day=s.risk_max_contracts_per_day,
        runaway=Runaway(orders, seconds) if orders and seconds else None,
        max_daily_loss=s.risk_max_daily_loss,
        price_band_percent=s.risk_price_band_percent,
        max_spread_percent=s.risk_max_spread_percent,
        min_premium=s.risk_min_premium,
        enforce_hours=s.hours_enforced,
        intraday_cutoff=s.risk_intraday_cutoff,
        expiry_cutoff=s.risk_expiry_cutoff,
        stock_expiry_days=s.risk_stock_expiry_days,
    )


def slots_of(settings: Settings) -> int | None:
    """Slots of the order budget in the database. More than the broker takes is no budget: settings allow it on
    loopback only.
    """
    many = settings.fyers_orders_per_second
    return many if settings.trading_mode is Mode.LIVE and many <= BROKER_ORDERS_PER_SECOND else None


def policy_of(settings: Settings, tag_prefix: str) -> Policy:
    return Policy(
        sl_percent=settings.sl_percent,
        tp_percent=settings.tp_percent,
        max_ltp_gap_percent=settings.max_ltp_gap_percent,
        limits=limits_of(settings),
        dedupe_window=settings.dedupe_window,
        request_deadline_s=settings.request_deadline_seconds,
        tag_prefix=tag_prefix,
        orders_per_second=slots_of(settings),
        key_ttl=timedelta(seconds=settings.idempotency_ttl_seconds),
    )
