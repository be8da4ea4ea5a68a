"""Prices of the simulated market: a default for every ticker of the master, others as set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal

from tests.simulator.clock import IST, Clock, derivatives_open
from tests.simulator.masters import Instrument, Masters
from tests.simulator.money import ZERO, dec, num, to_tick
from tests.simulator.wire import JsonObject

Price = float | int | str | Decimal


@dataclass(frozen=True)
class Quote:
    """Last, bid and ask; `omit` names wire fields to leave out of the row."""

    lp: Decimal
    bid: Decimal
    ask: Decimal
    omit: frozenset[str] = frozenset()

    def touch(self, side: int) -> Decimal:
        """Where a market order of this side trades."""
        return self.ask if side == 1 else self.bid


@dataclass
class Quotes:
    """`market_open` None means: always, or with `by_clock` on weekdays and in session hours only."""

    clock: Clock
    masters: Masters
    default: Quote | None = field(default_factory=lambda: Quote(dec("100.00"), dec("99.95"), dec("100.05")))
    market_open: bool | None = None
    by_clock: bool = False
    _set: dict[str, Quote | None] = field(default_factory=dict)

    def find(self, ticker: str) -> Quote | None:
        """The quote of a ticker; None for an unknown ticker or a removed quote."""
        if ticker in self._set:
            return self._set[ticker]
        return self.default if self.masters.find(ticker) is not None else None

    def set(
        self,
        ticker: str,
        lp: Price | None = None,
        bid: Price | None = None,
        ask: Price | None = None,
        omit: Collection[str] = (),
    ) -> None:
        """A quote from now on. With `lp` alone, bid and ask are five paise below and above it."""
        old = self.find(ticker) or self.default or Quote(ZERO, ZERO, ZERO)
        last = old.lp if lp is None else dec(lp)
        moved = lp is not None and bid is None and ask is None and last > dec("0.05")
        below, above = (last - dec("0.05"), last + dec("0.05")) if moved else (old.bid, old.ask)
        self._set[ticker] = Quote(
            last, below if bid is None else dec(bid), above if ask is None else dec(ask), frozenset(omit)
        )

    def remove(self, ticker: str) -> None:
        """From now on this ticker has no quote: its row says error."""
        self._set[ticker] = None

    def is_open(self) -> bool:
        """Whether derivatives trade now."""
        if self.market_open is not None:
            return self.market_open
        return not self.by_clock or derivatives_open(self.clock())

    def rows(self, tickers: list[str]) -> list[JsonObject]:
        """The rows of GET /data/quotes, in the order asked for."""
        return [self._row(ticker) for ticker in tickers]

    def _row(self, ticker: str) -> JsonObject:
        quote, instrument = self.find(ticker), self.masters.find(ticker)
        if quote is None:
            return {"n": ticker, "s": "error", "v": {"errmsg": "invalid symbol", "code": -300}}
        short = ticker.partition(":")[2]
        midnight = datetime.combine(self.clock().astimezone(IST).date(), time(), tzinfo=UTC)
        values: JsonObject = {
            "ch": 0.0,
            "chp": 0.0,
            "lp": float(quote.lp),
            "spread": float(quote.ask - quote.bid),
            "ask": float(quote.ask),
            "bid": float(quote.bid),
            "open_price": float(quote.lp),
            "high_price": float(quote.lp),
            "low_price": float(quote.lp),
            "prev_close_price": float(quote.lp),
            "atp": float(quote.lp),
            "volume": 100000,
            "short_name": short,
            "exchange": ticker.partition(":")[0],
            "description": ticker,
            "original_name": ticker,
            "symbol": ticker,
            "fyToken": instrument.fy_token if instrument else "",
            "tt": str(int(midnight.timestamp())),
        }
        return {"n": ticker, "s": "ok", "v": {k: v for k, v in values.items() if k not in quote.omit}}

    def depth(self, ticker: str) -> JsonObject | None:
        """The entry of GET /data/depth: five levels a tick apart; None without a quote."""
        quote, instrument = self.find(ticker), self.masters.find(ticker)
        if quote is None or instrument is None:
            return None
        tick = instrument.tick
        bids = [
            {"price": num(quote.bid - n * tick), "volume": instrument.lot * 10, "ord": 3} for n in range(5)
        ]
        asks = [
            {"price": num(quote.ask + n * tick), "volume": instrument.lot * 10, "ord": 3} for n in range(5)
        ]
        last = num(quote.lp)
        return {
            "totalbuyqty": instrument.lot * 50,
            "totalsellqty": instrument.lot * 50,
            "bids": bids,
            "ask": asks,
            **dict.fromkeys(("o", "h", "l", "c", "atp", "ltp"), last),
            "ch": 0,
            "chp": 0,
            "tick_Size": num(tick),
            "ltq": instrument.lot,
            "ltt": int(self.clock().timestamp()),
            "v": 100000,
            "lower_ckt": num(tick),
            "upper_ckt": num(quote.lp * 10),
            "expiry": str(int(instrument.expiry.timestamp())) if instrument.expiry else "",
            "oi": 100000,
            "oiflag": True,
            "pdoi": 100000,
            "oipercent": 0,
        }

    def market_status(self) -> list[JsonObject]:
        """The rows of GET /data/marketStatus: NSE and BSE, cash and derivatives."""
        status = "OPEN" if self.is_open() else "CLOSED"
        pairs = [(exchange, segment) for exchange in (10, 12) for segment in (10, 11)]
        return [
            {"exchange": exchange, "market_type": "NORMAL", "segment": segment, "status": status}
            for exchange, segment in pairs
        ]


def protected_price(instrument: Instrument, side: int, last: Decimal) -> Decimal:
    """The limit that a market order becomes: LTP +/- the broker's market price protection, on the tick.

    (D) options up to 10: 1.5 rupees, up to 20: 15 %, above: 10 %; index futures up to 10,000: 50, above: 0.5
    %; stock futures up to 50: 0.75, above: 1.5 %. (A) cash as stock futures; no circuit limits.
    """
    if instrument.is_option:
        width = dec("1.5") if last <= 10 else last * dec("0.15") if last <= 20 else last * dec("0.10")
    elif instrument.kind == 11:
        width = dec(50) if last <= 10000 else last * dec("0.005")
    else:
        width = dec("0.75") if last <= 50 else last * dec("0.015")
    return max(instrument.tick, to_tick(last + side * width, instrument.tick))
