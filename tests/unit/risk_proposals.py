"""An entry that every check lets pass, and what to change about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from app.domain.alert import IST
from app.domain.limits import PositionPolicy
from app.domain.proposal import Exposure, Price
from tests.unit.test_risk import CONTRACT, GOOD

PRICE = Price(ltp=Decimal(100), bid=Decimal(99), ask=Decimal(101), stop_distance=Decimal(15))
NONE_OPEN = Exposure(open_lots=Decimal(0), open_value=Decimal(0), last_same=None, tried=1)
BASE = replace(GOOD, price=PRICE, exposure=NONE_OPEN)
"""10:30 IST on Wednesday, 25 November 2026; one lot of 65, whose contract trades until 15:40 and ends on 1 December."""
STOCK = replace(CONTRACT, is_stock=True)


def at(clock: str, day: int = 25, month: int = 11) -> datetime:
    """An IST time, as UTC."""
    return datetime.combine(date(2026, month, day), time.fromisoformat(clock), IST).astimezone(UTC)


def price(ltp: str = "100", bid: str = "99", ask: str = "101", stop: str | None = "15") -> dict[str, Any]:
    return {"price": Price(Decimal(ltp), Decimal(bid), Decimal(ask), None if stop is None else Decimal(stop))}


def exposed(lots: str = "0", value: str = "0", since: float | None = None, tried: int = 1) -> dict[str, Any]:
    last = None if since is None else BASE.now - timedelta(seconds=since)
    return {"exposure": Exposure(Decimal(lots), Decimal(value), last, tried)}


def fired(seconds_ago: float, **more: Any) -> dict[str, Any]:
    return {"fired_at": BASE.now - timedelta(seconds=seconds_ago), **more}


Case = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str, str, str]
"""Code, limits, a proposal just within, one just beyond, and for the latter the finding's limit, value and words."""

HOURS, SHUT = {"enforce_hours": True}, "09:15-15:40 IST on trading days"
CUTOFF = {"enforce_hours": True, "intraday_cutoff": time(15, 10)}
LAST_DAY = {"expiry_cutoff": time(13, 0)}
COVER, NO_SHORT = PositionPolicy.COVER_ONLY, PositionPolicy.NO_NAKED_SHORT
ONLY = {"symbols": frozenset({"NIFTY", "BANKNIFTY"})}
