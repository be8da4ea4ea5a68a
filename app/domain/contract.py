"""An option contract, and the choice of its expiry.

Everything here comes from the exchange's symbol master: a ticker is looked up, never spelled by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.alert import IST, Exchange, ExpiryRule, OptionType


@dataclass(frozen=True, slots=True)
class Contract:
    """One option contract, as its row in the symbol master says. Quantities in contracts, prices in rupees."""

    exchange: Exchange
    underlying: str
    expiry: date
    """The IST date of the expiry."""
    session_end: datetime
    """Aware UTC: the end of trading on the expiry date. From then on the contract cannot be chosen."""
    strike: Decimal
    option_type: OptionType
    ticker: str
    """Fyers' symbol ticker, e.g. `NSE:NIFTY26NOV24500CE`."""
    lot: int
    tick: Decimal
    freeze: int | None
    """The largest quantity of one order, where the master says so."""
    underlying_ticker: str | None
    """The underlying's own quote ticker, e.g. `NSE:NIFTY50-INDEX`."""
    is_stock: bool
    """Options on shares settle physically (instrument type 15)."""
    master_date: date
    """The master row's inside date (lastUpdate): the trading day it was written on."""
    circuit_low: Decimal | None = None
    """The day's price limits and whether the exchange lets it trade, where the JSON twin of that day says so."""
    circuit_high: Decimal | None = None
    tradable: bool | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """A listed expiry of one underlying on one exchange."""

    on: date
    session_end: datetime


@dataclass(frozen=True, slots=True)
class ExpiryChoice:
    expiry: Expiry
    reason: str
    """One sentence for the trader: which rule picked what."""


def choose_expiry(wanted: ExpiryRule | date, listed: Sequence[Expiry], now: datetime) -> ExpiryChoice | str:
    """Pick the expiry that a rule or a date means, or say why none fits.

    `listed` are all expiries of one underlying on ONE exchange. An expiry whose session has ended at `now`
    is never chosen. A month's last listed expiry is its monthly one (true of all 6,660 rows checked, and of
    holiday-moved weeks too), judged over all listed expiries, the ended ones included.
    """
    everything = sorted(listed, key=lambda e: e.on)
    live = [e for e in everything if e.session_end > now]
    if not live:
        return "no listed expiry is still trading"
    names = ", ".join(e.on.isoformat() for e in live[:8])
    if isinstance(wanted, date):
        found = [e for e in live if e.on == wanted]
        if found:
            return ExpiryChoice(found[0], f"expiry {wanted.isoformat()} as asked")
        if any(e.on == wanted for e in everything):
            return f"the session of expiry {wanted.isoformat()} has ended; listed are {names}"
        return f"no expiry on {wanted.isoformat()}; listed are {names}"
    last_of_month = {(e.on.year, e.on.month): e.on for e in everything}
    monthly = [e for e in live if last_of_month[(e.on.year, e.on.month)] == e.on]
    pool, nth, word = {
        ExpiryRule.WEEKLY: (live, 0, "the nearest listed expiry"),
        ExpiryRule.NEXT_WEEKLY: (live, 1, "the second nearest listed expiry"),
        ExpiryRule.MONTHLY: (monthly, 0, "the nearest month's last listed expiry"),
        ExpiryRule.NEXT_MONTHLY: (monthly, 1, "the following month's last listed expiry"),
    }[wanted]
    if len(pool) <= nth:
        return f"{wanted.value} needs {nth + 1} listed expiries, there are {len(pool)}: {names}"
    chosen = pool[nth]
    day = chosen.on.strftime("%a %d %b %Y")
    return ExpiryChoice(chosen, f"{wanted.value} means {word}: {day}")


def ist_date(moment: datetime) -> date:
    """The Indian calendar date of an aware moment: what caps, keys and the broker's book go by."""
    return moment.astimezone(IST).date()
