"""Rows, a clock and a look-up for the tests of the symbol master."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from app.brokers.fyers.symbols import IndexedContracts
from app.domain.alert import ExpiryRule, OptionType
from app.service.records import Resolved
from tests.builders_master import option_row

NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)
EXPIRY = date(2026, 11, 24)


class StepClock:
    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.moment


def good(strike: int = 24500, *, lot: int = 65, token: int | None = None) -> list[str]:
    return option_row("NIFTY", EXPIRY, str(strike), "CE", monthly=True, token=token or strike, lot=lot)


def many(lot: int = 65) -> list[list[str]]:
    return [good(strike, lot=lot) for strike in range(20_000, 25_000, 50)]


def lot_of(contracts: IndexedContracts) -> int:
    found = contracts.resolve("NIFTY", Decimal(24500), OptionType.CE, ExpiryRule.WEEKLY, None, NOW)
    assert isinstance(found, Resolved)
    return found.contract.lot
