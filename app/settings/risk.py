"""The risk limits among the settings: on by default, and each off when it is set to nothing."""

from __future__ import annotations

import json
import re
from datetime import time
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from app.domain.alert import MAX_LOTS, Product
from app.domain.limits import PositionPolicy
from app.service.clients import symbols_of
from app.service.config_lists import listed

N = TypeVar("N", int, Decimal)


def at_most(most: N, unit: str = "") -> AfterValidator:
    """Refused where it is set: what a column or a timedelta cannot hold would only fail later, at every order."""

    def check(value: N) -> N:
        if value > most:
            raise ValueError(f"expected at most {most}{unit}, was {value}")
        return value

    return AfterValidator(check)


Lots = Annotated[int, Field(ge=1), at_most(MAX_LOTS, " lots")]
Count = Annotated[int, Field(ge=1), at_most(1_000_000)]
"""Orders, or lots of many: ten times the calls that Fyers takes in a day."""
Contracts = Annotated[int, Field(ge=1), at_most(1_000_000_000, " contracts")]
Seconds = Annotated[int, Field(ge=1), at_most(86_400, " seconds")]
"""A day: what is older is another day's."""
Days = Annotated[int, Field(ge=0), at_most(366, " days")]
Money = Annotated[Decimal, Field(gt=0), at_most(Decimal(10**12))]
PREFIX = "risk_"
SYMBOL = re.compile(r"[A-Z0-9&_-]{1,32}", re.ASCII)
"""An alert's underlying, as app/web/schemas.py takes it."""


class RiskSettings(BaseSettings):
    """Rupees, lots, seconds, percents; times are IST."""

    webhook_max_qty: Lots = 1
    qty_caps: Annotated[dict[str, Lots], NoDecode] = Field(default_factory=dict)
    """Lots in one order by name, as a JSON object."""
    enforce_market_hours: bool | None = None
    risk_position_policy: PositionPolicy = PositionPolicy.ANY
    risk_repeat_seconds: Seconds | None = None
    risk_max_signal_age_seconds: Seconds | None = 60
    risk_max_exit_age_seconds: Seconds | None = None
    risk_max_order_value: Money | None = Decimal(500_000)
    risk_max_order_risk: Money | None = None
    risk_max_open_lots: Count | None = 50
    risk_max_open_value: Money | None = None
    risk_max_orders_per_minute: Count | None = 20
    risk_max_orders_per_hour: Count | None = 100
    risk_max_orders_per_day: Count | None = 300
    risk_max_lots_per_day: Count | None = None
    risk_max_contracts_per_day: Contracts | None = None
    risk_runaway: Annotated[tuple[Count, Seconds] | None, NoDecode] = (30, 60)
    """Entries tried by one strategy, in so many seconds; written `30/60s`."""
    risk_max_daily_loss: Money | None = None
    risk_price_band_percent: Money | None = None
    risk_max_spread_percent: Money | None = Decimal(20)
    risk_min_premium: Money | None = None
    risk_symbols: Annotated[frozenset[str] | None, NoDecode] = None
    risk_intraday_cutoff: time | None = time(15, 10)
    risk_expiry_cutoff: time | None = None
    risk_stock_expiry_days: Days | None = 1

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        """Nothing means the default; for a risk limit that can be off it means off."""
        kept = {}
        for name, value in values.items():
            if value != "":
                kept[name] = value
            elif name.startswith(PREFIX) and name != "risk_position_policy":
                kept[name] = None
        return kept

    @field_validator("risk_runaway", mode="before")
    @classmethod
    def _runaway(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        if not isinstance(value, str):
            return value
        orders, slash, seconds = value.strip().removesuffix("s").partition("/")
        if not slash:
            raise ValueError("expected entries/seconds like 30/60s")
        return (orders, seconds)

    @field_validator("risk_symbols", mode="before")
    @classmethod
    def _symbols(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        if not isinstance(value, str):
            return value
        return symbols_of(listed(value))

    @field_validator("qty_caps", mode="before")
    @classmethod
    def _json(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment gives
        """Read here and not by the library, whose complaint is no line among the others."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('expected a JSON object like {"NIFTY": 2}') from None

    @field_validator("risk_intraday_cutoff", "risk_expiry_cutoff")
    @classmethod
    def _ist(cls, value: time | None) -> time | None:
        if value is not None and value.tzinfo is not None:
            raise ValueError("expected a time of day in IST without an offset, like 15:10")
        return value

    @field_validator("qty_caps")
    @classmethod
    def _caps(cls, value: dict[str, int]) -> dict[str, int]:
        """Names are `SYMBOL`, `SYMBOL:PRODUCT` or `*:PRODUCT`; one that no order has would be a cap on nothing."""
        found: dict[str, int] = {}
        for given, lots in value.items():
            symbol, colon, product = (part.strip().upper() for part in given.partition(":"))
            is_symbol = SYMBOL.fullmatch(symbol) or (symbol == "*" and colon)
            if not is_symbol or (colon and product not in Product.__members__):
                raise ValueError(f"expected SYMBOL, SYMBOL:PRODUCT or *:PRODUCT, was {given[:60]!r}")
            name = f"{symbol}{colon}{product}"
            if name in found:
                raise ValueError(f"expected each name once, was {name} twice")
            found[name] = lots
        return found
