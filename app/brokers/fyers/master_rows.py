"""Rows of Fyers' symbol master, checked one by one (fyers-api.md section 4).

A row that breaks a rule is not used: `Bad` says which rule, and the builder counts it. Standard library only: the
child process that builds the index loads this and nothing of the web.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache

from app.domain.alert import IST

COLUMNS = 21
STRIKE_UNITS = 10_000
"""Strikes are stored as whole units of 0.0001 rupee: exact, and a key that compares as a number."""
MAX_STRIKE = 100_000_000
EXCHANGES = {"10": "NSE", "12": "BSE"}
FUTURES = frozenset({"11", "13"})
INDEX_OPTION, STOCK_OPTION = "14", "15"
CASH, DERIVATIVES = "10", "11"
NO_EXPIRY = "000000"


class Kind(StrEnum):
    """What a source file is, told by its name: `NSE_FO.csv`, `BSE_CM.csv`, `NSE_FO_sym_master.json`."""

    OPTIONS = "options"
    CASH = "cash"
    TWIN = "twin"


class Bad(Exception):
    """One row that is not used; its text is the rule it broke, without the row's values, so that it counts."""


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option as listed. Strike in STRIKE_UNITS, lot in contracts, session end as epoch seconds."""

    exchange: str
    underlying: str
    expiry: str
    strike: int
    option_type: str
    ticker: str
    fy_token: str
    session_end: int
    lot: int
    tick: str
    is_stock: bool
    underlying_token: str
    dated: str


@dataclass(frozen=True, slots=True)
class CashRow:
    """An index or a share: what an option's underlying is quoted as. `dated` is None where Fyers has none."""

    fy_token: str
    ticker: str
    dated: str | None


def kind_of(name: str) -> Kind:
    """Raises ValueError for a file that is neither options, cash nor a JSON twin of options."""
    stem = name.upper()
    if "_FO" in stem and ("_SYM_MASTER" in stem or stem.endswith(".JSON")):
        return Kind.TWIN
    if "_FO" in stem:
        return Kind.OPTIONS
    if "_CM" in stem and "_SYM_MASTER" not in stem:
        return Kind.CASH
    raise ValueError(f"expected a symbol master like NSE_FO.csv, BSE_CM.csv, was {name!r}")


def rows(lines: Iterable[str]) -> Iterator[list[str]]:
    return csv.reader(lines)


def option(row: Sequence[str]) -> OptionRow | None:
    """The option of an FO row; None for a future. Raises Bad."""
    exchange = _place(row, DERIVATIVES)
    if row[2] in FUTURES:
        return None
    if row[2] not in (INDEX_OPTION, STOCK_OPTION):
        raise Bad("instrument type is neither a future nor an option")
    epoch = _whole(row[8], "expiry epoch")
    expiry, short = _expiry_of(epoch)
    if row[0] != f"{row[10]}{row[11]}{short}{row[12]}":
        raise Bad("fyToken is not exchange + segment + expiry + token")
    kind, ticker = row[16], row[9]
    if kind not in ("CE", "PE") or not ticker.endswith(kind):
        raise Bad("option type is not CE or PE, or not the ticker's")
    if not row[13]:
        raise Bad("no underlying")
    return OptionRow(
        exchange,
        row[13].upper(),
        expiry,
        _strike(row[15]),
        kind,
        ticker,
        row[0],
        epoch,
        _whole(row[3], "lot"),
        _tick(row[4]),
        row[2] == STOCK_OPTION,
        row[17],
        _dated(row[7]),
    )


def cash(row: Sequence[str]) -> CashRow:
    """The index or share of a CM row. Its expiry is empty or a blank, its lot may be 0. Raises Bad."""
    _place(row, CASH)
    if row[0] != f"{row[10]}{row[11]}{NO_EXPIRY}{row[12]}":
        raise Bad("fyToken is not exchange + segment + expiry + token")
    try:
        dated = _dated(row[7])
    except Bad:  # Fyers itself leaves `None` in some cash rows, and nothing depends on a cash row's date
        return CashRow(row[0], row[9], None)
    return CashRow(row[0], row[9], dated)


def strike_units(strike: Decimal) -> int | None:
    """A strike in STRIKE_UNITS; None when it is finer than that, or out of bounds, as no listed one is."""
    if not 0 < strike < MAX_STRIKE:
        return None
    units = int(strike * STRIKE_UNITS)
    return units if Decimal(units) / STRIKE_UNITS == strike else None


def strike_of(units: int) -> Decimal:
    """STRIKE_UNITS back to rupees, without trailing zeros: 24500, 407.5."""
    whole, rest = divmod(units, STRIKE_UNITS)
    return Decimal(whole) if not rest else (Decimal(units) / STRIKE_UNITS).normalize()


def _place(row: Sequence[str], segment: str) -> str:
    if len(row) != COLUMNS:
        raise Bad(f"not {COLUMNS} columns")
    exchange = EXCHANGES.get(row[10])
    if exchange is None or row[11] != segment:
        raise Bad("exchange or segment is not this file's")
    if not row[9].startswith(f"{exchange}:"):
        raise Bad("ticker is not of the row's exchange")
    return exchange


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) <= 0:
        raise Bad(f"{what} is not a positive whole number")
    return int(text)


@lru_cache(maxsize=1024)
def _expiry_of(epoch: int) -> tuple[str, str]:
    """The IST date of a session end, as YYYY-MM-DD and as YYMMDD."""
    try:
        day = datetime.fromtimestamp(epoch, UTC).astimezone(IST)
    except (ValueError, OverflowError, OSError) as exc:
        raise Bad("expiry epoch is not a time") from exc
    return day.date().isoformat(), day.strftime("%y%m%d")


@lru_cache(maxsize=16_384)
def _strike(text: str) -> int:
    try:
        units = strike_units(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError) as exc:
        raise Bad("strike is not a number") from exc
    if units is None:
        raise Bad("strike is not positive, or too fine")
    return units


@lru_cache(maxsize=64)
def _tick(text: str) -> str:
    try:
        tick = Decimal(text)
    except InvalidOperation as exc:
        raise Bad("tick is not a number") from exc
    if not tick.is_finite() or tick <= 0:
        raise Bad("tick is not positive")
    return text


@lru_cache(maxsize=256)
def _dated(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as exc:
        raise Bad("last update is not a date") from exc
