"""The operator's limits, as values. A limit that is None is off. Rupees and percents as `Decimal`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from decimal import Decimal
from enum import StrEnum


class PositionPolicy(StrEnum):
    """Which entries may open a position."""

    ANY = "any"
    COVER_ONLY = "cover_only"
    """Options are only written: a BUY closes a short, and never opens a long."""
    NO_NAKED_SHORT = "no_naked_short"
    """Options are only bought: a SELL closes a long, and never opens a short."""


@dataclass(frozen=True, slots=True)
class Runaway:
    """`orders` entries tried by one strategy within `seconds`, refused ones counted, is a strategy gone wild."""

    orders: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limits:
    max_lots: int
    """Lots in one order (WEBHOOK_MAX_QTY)."""
    qty_caps: Mapping[str, int] = field(default_factory=dict)
    """Lots in one order by `SYMBOL:PRODUCT`, `SYMBOL` or `*:PRODUCT`; the first that fits counts (QTY_CAPS)."""
    symbols: frozenset[str] | None = None
    position_policy: PositionPolicy = PositionPolicy.ANY
    repeat_seconds: int | None = None
    max_signal_age_s: int | None = None
    max_exit_age_s: int | None = None
    max_order_value: Decimal | None = None
    max_order_risk: Decimal | None = None
    max_open_lots: int | None = None
    max_open_value: Decimal | None = None
    max_orders_per_minute: int | None = None
    max_orders_per_hour: int | None = None
    max_orders_per_day: int | None = None
    max_lots_per_day: int | None = None
    max_contracts_per_day: int | None = None
    runaway: Runaway | None = None
    max_daily_loss: Decimal | None = None
    price_band_percent: Decimal | None = None
    max_spread_percent: Decimal | None = None
    min_premium: Decimal | None = None
    enforce_hours: bool = False
    intraday_cutoff: time | None = None
    """IST; later INTRADAY orders become carry-forward at the broker. Asked only where hours are enforced."""
    expiry_cutoff: time | None = None
    stock_expiry_days: int | None = None

    def lots_for(self, symbol: str, product: str) -> int:
        """Lots that one order in an underlying and product may have."""
        for name in (f"{symbol}:{product}", symbol, f"*:{product}"):
            if name in self.qty_caps:
                return min(self.max_lots, self.qty_caps[name])
        return self.max_lots
