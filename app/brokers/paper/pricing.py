"""Prices that move and that every process agrees on: a pure function of (seed, underlying, time).

The spot is a random walk by midpoint displacement: noise on lattices of halving reach, smoothed in between, so
that any moment is computed directly and the walk stays within a few percent of its base (and of the listed
strikes). Options are Black-Scholes on it.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from app.brokers.paper.master import QUOTED, Spec, Underlying, find_spec
from app.domain.alert import IST, OptionType
from app.service.records import Quote

SCALES: tuple[tuple[int, float], ...] = (
    (432000, 0.025),
    (86400, 0.008),
    (14400, 0.004),
    (3600, 0.002),
    (900, 0.001),
    (180, 0.0005),
    (30, 0.0002),
    (5, 0.00008),
)
"""(seconds between two lattice points, greatest displacement as a fraction of the spot)."""

RATE = 0.065
YEAR_S = 365 * 86400.0
SMILE = 0.6
HALF_SPREAD = 0.0015
"""Of the last price; at least one tick."""
TICK = Decimal("0.05")


@lru_cache(maxsize=4096)
def _lattice(seed: int, symbol: str, period_s: int, index: int) -> float:
    """Uniform in -1..1."""
    digest = hashlib.blake2b(f"{seed}|{symbol}|{period_s}|{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**63 - 1.0


def spot(seed: int, underlying: Underlying, at: datetime) -> float:
    """The underlying's price in rupees at an aware moment."""
    seconds = at.timestamp()
    moved = 0.0
    for period_s, reach in SCALES:
        index, rest = divmod(seconds / period_s, 1.0)
        smooth = rest * rest * (3.0 - 2.0 * rest)
        before = _lattice(seed, underlying.symbol, period_s, int(index))
        after = _lattice(seed, underlying.symbol, period_s, int(index) + 1)
        moved += reach * (before + (after - before) * smooth)
    return underlying.spot * math.exp(moved)


def _normal(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def black_scholes(price: float, strike: float, years: float, volatility: float, kind: OptionType) -> float:
    """A European option's value; at or after expiry its intrinsic value."""
    sign = 1.0 if kind is OptionType.CE else -1.0
    if years <= 0:
        return max(0.0, sign * (price - strike))
    spread = volatility * math.sqrt(years)
    d1 = (math.log(price / strike) + (RATE + volatility * volatility / 2) * years) / spread
    discounted = strike * math.exp(-RATE * years)
    return sign * (price * _normal(sign * d1) - discounted * _normal(sign * (d1 - spread)))


def to_tick(value: float | Decimal, tick: Decimal = TICK) -> Decimal:
    """Rounded to the tick, at least one tick."""
    ticks = (Decimal(value) / tick).quantize(Decimal(1), ROUND_HALF_UP)
    return max(Decimal(1), ticks) * tick


def around(ticker: str, last: Decimal, tick: Decimal = TICK) -> Quote:
    """A quote with a bid and an ask at both sides of `last`."""
    half = max(tick, to_tick(last * Decimal(str(HALF_SPREAD)), tick))
    return Quote(ticker, last, max(tick, last - half), last + half)


def fair_value(seed: int, spec: Spec, at: datetime) -> float:
    price = spot(seed, spec.underlying, at)
    strike = float(spec.strike)
    years = (spec.session_end - at).total_seconds() / YEAR_S
    volatility = spec.underlying.volatility * (1.0 + SMILE * min(1.0, abs(math.log(strike / price)) * 4))
    return black_scholes(price, strike, years, volatility, spec.option_type)


def model_quote(seed: int, ticker: str, at: datetime) -> Quote | None:
    """The quote at `at` of a listed option or an underlying; None for any other ticker."""
    underlying = QUOTED.get(ticker)
    if underlying is not None:
        return around(ticker, to_tick(spot(seed, underlying, at)))
    spec = find_spec(ticker, ist_day(at))
    if spec is None:
        return None
    return around(ticker, to_tick(fair_value(seed, spec, at), spec.tick), spec.tick)


def settlement(seed: int, spec: Spec) -> Decimal:
    """What an expired option is worth: its intrinsic value at the end of its last session."""
    return Decimal(str(round(fair_value(seed, spec, spec.session_end), 2)))


def ist_day(at: datetime) -> date:
    return at.astimezone(IST).date()


def aware(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
