"""The contract index: Fyers' symbol master as a read-only SQLite file that all workers share.

`refresh` has a child process build it (index_build.py) and swaps it in by rename; `IndexedContracts` looks things
up in the newest one, and reopens when a newer one stands there.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.brokers.fyers.index_file import UNREADABLE, Chosen, OpenIndex, newest_index, open_index
from app.brokers.fyers.master_refresh import BuildReport, build_from_bytes, refresh
from app.brokers.fyers.master_rows import strike_of, strike_units
from app.domain.alert import Exchange, ExpiryRule, OptionType
from app.domain.contract import Contract, Expiry, ExpiryChoice, choose_expiry
from app.domain.risk import Denial
from app.errors import NoMaster
from app.service.ports import Clock, Contracts
from app.service.records import MasterAge, Resolved

__all__ = ["BuildReport", "IndexedContracts", "build_from_bytes", "refresh"]

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""A directory's time stamp is as coarse as the kernel's tick, so it is not trusted for longer than this."""
NEAREST = 6
SELECT = (
    "SELECT exchange, underlying, expiry, strike, option_type, ticker, session_end, lot, tick, freeze, is_stock,"
    " dated, circuit_low, circuit_high, tradable FROM options"
)
BY_KEY = f"{SELECT} WHERE exchange = ? AND underlying = ? AND expiry = ? AND strike = ? AND option_type = ?"
BY_TICKER = f"{SELECT} WHERE ticker = ?"


class IndexedContracts(Contracts):
    """The port, on the newest index file in `directory`. Safe to use from many threads."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._index: OpenIndex | None = None
        self._stamp = -1
        self._look_again = 0.0

    def resolve(
        self,
        symbol: str,
        strike: Decimal,
        option_type: OptionType,
        expiry: ExpiryRule | date,
        exchange: Exchange | None,
        now: datetime,
    ) -> Resolved | Denial:
        symbol = symbol.upper()
        with self._lock:
            index = self._newest()
            place = _choose_exchange(index, symbol, exchange)
            if isinstance(place, Denial):
                return place
            at, why = place
            choice = _choose_expiry(index, at, symbol, expiry, now)
            if isinstance(choice, str):
                return Denial("unknown_expiry", f"{symbol} on {at}: {choice}")
            found = _find(index, at, symbol, choice.expiry.on, strike, option_type)
        if isinstance(found, Denial):
            return found
        return Resolved(
            found, f"{why}; {choice.reason}; strike {strike_text(found.strike)} {option_type} as asked."
        )

    def by_ticker(self, ticker: str, now: datetime) -> Contract | None:
        """The option under Fyers' ticker; None when none is listed or its session has ended. Raises NoMaster."""
        with self._lock:
            index = self._newest()
            row = index.db.execute(BY_TICKER, (ticker,)).fetchone()
            found = None if row is None else _contract(index, row)
        return found if found is not None and found.session_end > now else None

    def next_expiry(self, symbol: str, now: datetime) -> date | None:
        """The nearest expiry of `symbol` at NSE, or where it is listed, that still trades. Raises NoMaster."""
        with self._lock:
            index = self._newest()
            place = _choose_exchange(index, symbol, None)
            if isinstance(place, Denial):
                return None
            return min((e.on for e in _listed(index, place[0], symbol) if e.session_end > now), default=None)

    def age(self) -> MasterAge:
        with self._lock:
            return self._newest().age

    def close(self) -> None:
        with self._lock:
            if self._index is not None and self._index.process == os.getpid():
                self._index.db.close()
            self._index = None

    def _newest(self) -> OpenIndex:
        """The open index, looked for anew when the directory has changed. Raises NoMaster."""
        try:
            stamp = self._directory.stat().st_mtime_ns
        except FileNotFoundError:
            raise NoMaster("no contract index yet: the symbol master has not been built") from None
        moment = self._clock.monotonic()
        index = self._index
        if (
            index is None
            or stamp != self._stamp
            or moment >= self._look_again
            or index.process != os.getpid()  # a forked worker must not use its parent's connection
        ):
            index = self._reopen()
            self._stamp, self._look_again = stamp, moment + LOOK_AGAIN_S
        return index

    def _reopen(self) -> OpenIndex:
        path = newest_index(self._directory)
        old = self._index
        if path is None:
            if old is not None and old.process == os.getpid():
                return old  # the file was removed by hand; what is open is still whole
            raise NoMaster("no contract index yet: the symbol master has not been built")
        if old is not None and old.path == path and old.process == os.getpid():
            return old
        try:
            fresh = open_index(path)
        except UNREADABLE as exc:
            if old is not None and old.process == os.getpid():
                log.warning(
                    "contract index %s is not readable (%s); the last one stays in use", path.name, exc
                )
                return old
            raise NoMaster(f"the contract index is not readable: {exc}") from exc
        if old is not None and old.process == os.getpid():
            old.db.close()
        self._index = fresh
        return fresh


def strike_text(strike: Decimal) -> str:
    return f"{strike:f}"


def _choose_exchange(index: OpenIndex, symbol: str, wanted: Exchange | None) -> tuple[Exchange, str] | Denial:
    """Raises NoMaster where the answer hangs on a list that the index lacks: an NSE that is not known is no reason for
    BSE, and passing trouble must not use up the alert's key.
    """
    lists = [e for e in Exchange if (e, symbol) in index.underlyings]
    for place in Exchange if wanted is None else (wanted,):
        if place in lists:
            break
        if (file := f"{place}_FO.csv") in index.lacking:
            mend = ", or name the exchange" if wanted is None and lists else ""
            raise NoMaster(
                f"{place}'s list of options is missing ({file} could not be had), so whether it lists {symbol} is not "
                f"known: wait for the next refresh{mend}"
            )
    if not lists:
        return Denial(
            "unknown_symbol", f"no exchange lists options on {symbol!r}: expected a name like NIFTY"
        )
    if wanted is None:
        other = " (BSE lists it too)" if len(lists) > 1 else ""
        why = "NSE as the default, since it lists" if lists[0] is Exchange.NSE else "BSE, since only it lists"
        return lists[0], f"{why} {symbol}{other}"
    if wanted not in lists:
        return Denial("unknown_symbol", f"{wanted} lists no options on {symbol}; {lists[0]} does")
    return wanted, f"{wanted} as asked"


def _choose_expiry(
    index: OpenIndex, exchange: Exchange, symbol: str, wanted: ExpiryRule | date, now: datetime
) -> ExpiryChoice | str:
    """`choose_expiry`, its answer for a rule kept until the next session end: half of a look-up's time."""
    listed = _listed(index, exchange, symbol)
    if not isinstance(wanted, ExpiryRule):
        return choose_expiry(wanted, listed, now)
    kept = index.chosen.get((exchange, symbol, wanted))
    if kept is not None and kept.since <= now < kept.until:
        return kept.choice
    choice = choose_expiry(wanted, listed, now)
    if not isinstance(choice, str):
        until = min(e.session_end for e in listed if e.session_end > now)
        index.chosen[exchange, symbol, wanted] = Chosen(now, until, choice)
    return choice


def _listed(index: OpenIndex, exchange: Exchange, symbol: str) -> tuple[Expiry, ...]:
    found = index.listed.get((exchange, symbol))
    if found is None:
        found = tuple(
            Expiry(date.fromisoformat(on), datetime.fromtimestamp(end, UTC))
            for on, end in index.db.execute(
                "SELECT expiry, session_end FROM expiries WHERE exchange = ? AND underlying = ? ORDER BY expiry",
                (exchange.value, symbol),
            )
        )
        index.listed[exchange, symbol] = found
    return found


def _find(
    index: OpenIndex, exchange: Exchange, symbol: str, expiry: date, strike: Decimal, option_type: OptionType
) -> Contract | Denial:
    key = (exchange.value, symbol, expiry.isoformat(), strike_units(strike), option_type.value)
    row = index.db.execute(BY_KEY, key).fetchone()
    if row is None:
        return _no_strike(index, exchange, symbol, expiry, strike, option_type)
    return _contract(index, row)


def _contract(index: OpenIndex, row: tuple[Any, ...]) -> Contract:
    exchange, symbol, expiry, units, option_type, ticker, end, lot, tick, freeze, is_stock, dated, *twin = row
    low, high, tradable = twin
    return Contract(
        exchange=Exchange(exchange),
        underlying=symbol,
        expiry=date.fromisoformat(expiry),
        session_end=datetime.fromtimestamp(end, UTC),
        strike=strike_of(units),
        option_type=OptionType(option_type),
        ticker=ticker,
        lot=lot,
        tick=Decimal(tick),
        freeze=freeze,
        underlying_ticker=index.underlyings[exchange, symbol],
        is_stock=bool(is_stock),
        master_date=date.fromisoformat(dated),
        circuit_low=None if low is None else Decimal(low),
        circuit_high=None if high is None else Decimal(high),
        tradable=None if tradable is None else bool(tradable),
    )


def _no_strike(
    index: OpenIndex, exchange: Exchange, symbol: str, expiry: date, strike: Decimal, option_type: OptionType
) -> Denial:
    listed = [
        strike_of(units)
        for (units,) in index.db.execute(
            "SELECT strike FROM options WHERE exchange = ? AND underlying = ? AND expiry = ? AND option_type = ?",
            (exchange.value, symbol, expiry.isoformat(), option_type.value),
        )
    ]
    nearest = sorted(sorted(listed, key=lambda s: abs(s - strike))[:NEAREST])
    names = ", ".join(strike_text(s) for s in nearest) or "none"
    return Denial(
        "unknown_strike",
        f"{symbol} {expiry.isoformat()} on {exchange} has no strike {strike_text(strike)} {option_type}; "
        f"the nearest listed are {names}",
    )
