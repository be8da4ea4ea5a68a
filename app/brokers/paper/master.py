"""The paper exchange's own symbol master, in the files and the 21 columns that Fyers publishes.

Real-looking contracts around fixed base prices, so that the same strikes are listed from day to day. Format,
fyToken rule and naming rule: fyers-api.md section 4. Lot sizes, freeze quantities: there, section 5.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache

from app.domain.alert import IST, Exchange, OptionType
from app.domain.session import is_trading_day, previous_trading_day

WEEKLIES = 6
MONTHLIES = 3
SESSION = "0915-1540|1815-1915:"
CLOSE = time(15, 40)
TICK = Decimal("0.05")
WIDTH_PERCENT = 20
TUESDAY, THURSDAY = 1, 3
OPTION_INDEX, OPTION_STOCK, INDEX = 14, 15, 10
CODES = {Exchange.NSE: 10, Exchange.BSE: 12}
CASH, FUTURES_AND_OPTIONS = 10, 11


@dataclass(frozen=True, slots=True)
class Underlying:
    """What contracts are written on. `spot` is the base that prices move around, in rupees."""

    number: int
    symbol: str
    quote_name: str
    token: int
    spot: int
    step: int
    lot: int
    freeze: int
    volatility: float
    exchange: Exchange = Exchange.NSE
    weekday: int = TUESDAY
    weekly: bool = False
    isin: str = ""

    @property
    def is_stock(self) -> bool:
        return bool(self.isin)

    @property
    def ticker(self) -> str:
        return f"{self.exchange}:{self.quote_name}"


UNDERLYINGS: tuple[Underlying, ...] = (
    Underlying(1, "NIFTY", "NIFTY50-INDEX", 26000, 26000, 50, 65, 1800, 0.12, weekly=True),
    Underlying(2, "BANKNIFTY", "NIFTYBANK-INDEX", 26009, 59000, 100, 30, 600, 0.14),
    Underlying(3, "FINNIFTY", "FINNIFTY-INDEX", 26037, 27500, 50, 60, 1200, 0.14),
    Underlying(4, "MIDCPNIFTY", "MIDCPNIFTY-INDEX", 26074, 13800, 25, 120, 2800, 0.16),
    Underlying(5, "SENSEX", "SENSEX-INDEX", 1, 85000, 100, 20, 1000, 0.12, Exchange.BSE, THURSDAY, True),
    Underlying(6, "RELIANCE", "RELIANCE-EQ", 2885, 1500, 10, 500, 15000, 0.22, isin="INE002A01018"),
    Underlying(7, "SBIN", "SBIN-EQ", 3045, 950, 5, 750, 30000, 0.22, isin="INE062A01020"),
    Underlying(8, "HDFCBANK", "HDFCBANK-EQ", 1333, 1000, 5, 550, 22000, 0.2, isin="INE040A01034"),
    Underlying(9, "TCS", "TCS-EQ", 11536, 3100, 20, 175, 7000, 0.22, isin="INE467B01029"),
    Underlying(10, "INFY", "INFY-EQ", 1594, 1500, 20, 400, 16000, 0.24, isin="INE009A01021"),
    Underlying(11, "ICICIBANK", "ICICIBANK-EQ", 4963, 1400, 10, 700, 28000, 0.2, isin="INE090A01021"),
)
QUOTED = {u.ticker: u for u in UNDERLYINGS}


@dataclass(frozen=True, slots=True)
class Spec:
    """What the exchange knows of one listed option. Quantities in contracts, prices in rupees."""

    ticker: str
    underlying: Underlying
    strike: Decimal
    expiry: date
    session_end: datetime
    option_type: OptionType
    lot: int
    freeze: int | None
    monthly: bool
    tick: Decimal = TICK


def session_end(expiry: date) -> datetime:
    return datetime.combine(expiry, CLOSE, IST).astimezone(UTC)


def listed_expiries(underlying: Underlying, today: date) -> tuple[tuple[date, bool], ...]:
    """(expiry, is the last of its calendar month), ascending, from `today` on."""
    days: list[date] = []
    day = today.replace(day=1)
    while day < today + timedelta(days=32 * (MONTHLIES + 1)):
        if day.weekday() == underlying.weekday:
            days.append(day if is_trading_day(day) else previous_trading_day(day))
        day += timedelta(days=1)
    last = {(d.year, d.month): d for d in days}
    live = [d for d in days if d >= today]
    monthly = [d for d in live if last[d.year, d.month] == d][:MONTHLIES]
    wanted = {*monthly, *(live[:WEEKLIES] if underlying.weekly else ())}
    return tuple((d, last[d.year, d.month] == d) for d in sorted(wanted))


def _strikes(underlying: Underlying) -> range:
    reach = underlying.spot * WIDTH_PERCENT // 100 // underlying.step * underlying.step
    middle = underlying.spot // underlying.step * underlying.step
    return range(middle - reach, middle + reach + 1, underlying.step)


def _ticker(underlying: Underlying, expiry: date, monthly: bool, strike: int, kind: OptionType) -> str:
    month = expiry.strftime("%b").upper() if monthly else f"{'123456789OND'[expiry.month - 1]}{expiry:%d}"
    return f"{underlying.exchange}:{underlying.symbol}{expiry:%y}{month}{strike}{kind}"


@lru_cache(maxsize=2 * len(UNDERLYINGS))
def _listed(underlying: Underlying, today: date) -> dict[str, Spec]:
    found = {}
    for expiry, monthly in listed_expiries(underlying, today):
        end = session_end(expiry)
        for strike in _strikes(underlying):
            price = Decimal(strike)
            for kind in OptionType:
                ticker = _ticker(underlying, expiry, monthly, strike, kind)
                found[ticker] = Spec(
                    ticker, underlying, price, expiry, end, kind, underlying.lot, underlying.freeze, monthly
                )
    return found


def find_spec(ticker: str, today: date) -> Spec | None:
    """The option listed under `ticker` on the IST date `today`, or None."""
    for underlying in UNDERLYINGS:
        if ticker.startswith(f"{underlying.exchange}:{underlying.symbol}"):
            return _listed(underlying, today).get(ticker)
    return None


def paper_master(today: date) -> dict[str, bytes]:
    """Fyers' files by name, as fetched on the morning of `today`: rows dated the previous trading day."""
    dated = previous_trading_day(today).isoformat()
    files: dict[str, bytes] = {}
    for exchange in Exchange:
        own = [u for u in UNDERLYINGS if u.exchange is exchange]
        options = [(s, _option_row(s, dated)) for u in own for s in _listed(u, today).values()]
        files[f"{exchange}_FO.csv"] = _csv(row for _, row in options)
        files[f"{exchange}_CM.csv"] = _csv(_cash_row(u, dated) for u in own)
        twin = {spec.ticker: _json_row(spec, row) for spec, row in options}
        files[f"{exchange}_FO_sym_master.json"] = json.dumps(twin).encode()
    return files


def _csv(rows: Iterator[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _underlying_token(u: Underlying) -> str:
    return f"{CODES[u.exchange]}{CASH}000000{u.token}"


def _option_row(spec: Spec, dated: str) -> list[str]:
    u = spec.underlying
    place = (int(spec.strike) - _strikes(u).start) // u.step * 2 + (spec.option_type is OptionType.PE)
    token = str((u.number * 400 + spec.expiry.toordinal() // 7 % 400) * 1000 + place)
    code = CODES[u.exchange]
    day = f"{spec.expiry:%d %b %y}" if u.exchange is Exchange.NSE else f"{spec.expiry:%y %b %d}"
    fields = [
        f"{code}{FUTURES_AND_OPTIONS}{spec.expiry:%y%m%d}{token}",
        f"{u.symbol} {day} {spec.strike} {spec.option_type}",
        OPTION_STOCK if u.is_stock else OPTION_INDEX,
        spec.lot,
        spec.tick,
        "",
        SESSION,
        dated,
        int(spec.session_end.timestamp()),
        spec.ticker,
        code,
        FUTURES_AND_OPTIONS,
        token,
        u.symbol,
        u.token,
        f"{spec.strike}.0",
        spec.option_type.value,
        _underlying_token(u),
        "None",
        0,
        "0.0",
    ]
    return [str(f) for f in fields]


def _cash_row(u: Underlying, dated: str) -> list[str]:
    code, token = CODES[u.exchange], _underlying_token(u)
    kind, lot = (0, 1) if u.is_stock else (INDEX, 0)
    fields = [token, u.quote_name if not u.is_stock else u.symbol, kind, lot, TICK, u.isin]
    fields += ["0915-1530|1815-1915:", dated, "", u.ticker, code, CASH, u.token, u.symbol, u.token]
    fields += ["-1.0", "XX", token, "None", 0, "0.0"]
    return [str(f) for f in fields]


def _json_row(spec: Spec, row: list[str]) -> dict[str, object]:
    return {
        "fyToken": row[0],
        "symTicker": spec.ticker,
        "underSym": spec.underlying.symbol,
        "underFyTok": row[17],
        "exToken": int(row[12]),
        "exInstType": int(row[2]),
        "minLotSize": spec.lot,
        "tickSize": float(spec.tick),
        "tradingSession": row[6],
        "lastUpdate": row[7],
        "expiryDate": row[8],
        "strikePrice": float(spec.strike),
        "optType": spec.option_type.value,
        "qtyFreeze": str(spec.freeze),
        "tradeStatus": 1,
    }
