"""The simulated exchange: orders, fills, positions, and the hand of the test on them.

`fill_mode`: `instant` (fills at the touch when the price allows, else rests), `rest` (rests), `transit`
(stays in status 4), `partial:N` (N contracts fill, the rest rests), `reject_async` (accepted, then status 5
with the RMS text). (D) a market order is a limit at LTP +/- the protection and may rest; status numbers; the
book holds today's orders only. (A) a market order's row keeps type 2 and shows the protected limit; a stop
order is triggered only by hand; nothing trades by itself later (`match` does it); an order that appears late
carries the time at which it was received; an IOC that cannot trade becomes status 1; open MARGIN, CNC and MTF
positions are carried to the next day, others are gone; an order outside market hours (only with
`enforce_hours`) becomes status 5. Callers hold `lock`; the public methods of `FyersSim` do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from tests.simulator import legs
from tests.simulator.book import (
    CANCELLED,
    PENDING,
    REJECTED,
    TRADED,
    UNTAGGED,
    Order,
    OrderIntent,
    Position,
    Trade,
)
from tests.simulator.clock import IST, Clock, ist_date
from tests.simulator.masters import Instrument
from tests.simulator.money import ZERO, dec
from tests.simulator.quotes import Quotes, protected_price
from tests.simulator.wire import JsonObject, margin_shortfall

FILL_MODES = ("instant", "rest", "transit", "reject_async")


@dataclass
class Exchange:
    """All state that the read endpoints show."""

    clock: Clock
    quotes: Quotes
    client_id: str
    fill_mode: str = "instant"
    overlay_mode: str = "shown"
    enforce_hours: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    orders: dict[str, Order] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=dict)
    frozen: tuple[list[JsonObject], list[JsonObject]] | None = None
    watchers: list[Callable[[Order], None]] = field(default_factory=list)
    """Told of every order that has changed its state."""
    _late: list[tuple[Order, str]] = field(default_factory=list)
    """With the fill mode of when they were placed: what is set for others meanwhile is none of their business."""
    _serial: int = 0
    _day: date | None = None

    # --- orders ---------------------------------------------------------------------------------------------

    def place(
        self, intent: OrderIntent, *, source: str = "API", appear_after: float = 0.0, rejected: str = ""
    ) -> Order:
        """Create an order; with `appear_after` it neither shows nor trades until the clock has moved on that far.

        `rejected`: RMS's words; the row is born in status 5 and never meets the market.
        """
        self.advance()
        now = self.clock()
        suffix = f"-{intent.product}-1" if intent.product in ("BO", "CO") else ""
        order = self.add(intent, self.next_id() + suffix, source=source)
        if rejected:
            self.reject(order.id, rejected)
        if appear_after > 0:
            order.visible_at = now + timedelta(seconds=appear_after)
            self._late.append((order, self.fill_mode))
        else:
            self.work(order, self.fill_mode)
        return order

    def add(
        self, intent: OrderIntent, order_id: str, *, source: str = "API", parent: str | None = None
    ) -> Order:
        """A new row in status 4, without consequences."""
        self._serial += 1
        order = Order(
            id=order_id,
            intent=intent,
            at=self.clock(),
            serial=self._serial,
            qty=intent.qty,
            kind=intent.kind,
            limit_price=intent.limit_price,
            stop_price=intent.stop_price,
            source=source,
            tag=f"1:{intent.tag}" if intent.tag else UNTAGGED,
            parent_id=parent,
        )
        self.orders[order.id] = order
        return order

    def next_id(self) -> str:
        """14 digits: YYMMDD and eight more (D)."""
        return f"{self.clock().astimezone(IST):%y%m%d}{self._serial + 1:08d}"

    def work(self, order: Order, fill_mode: str) -> None:
        """Send an order to the market: what becomes of it is the fill mode's business. What RMS has rejected stays so."""
        if order.status == REJECTED:
            return
        instrument = order.intent.instrument
        if order.kind == 2:
            quote = self.quotes.find(instrument.ticker)
            order.limit_price = protected_price(instrument, order.intent.side, quote.lp) if quote else ZERO
        if self.enforce_hours and not order.intent.offline and not self.quotes.is_open():
            self.reject(order.id, "RED:Market is closed")
        elif fill_mode == "reject_async":
            self.reject(order.id, margin_shortfall(self.client_id))
        elif fill_mode != "transit":
            order.status = PENDING
            if fill_mode != "rest" and not order.intent.offline:
                self._match(order)
            if order.intent.validity == "IOC" and order.remaining:
                order.status = CANCELLED
        self.tell(order)

    def tell(self, order: Order) -> None:
        """Its state is another one now."""
        for watcher in self.watchers:
            watcher(order)

    def _match(self, order: Order) -> None:
        mode, _, limit = self.fill_mode.partition(":")
        quote = self.quotes.find(order.intent.instrument.ticker)
        if order.kind not in (1, 2) or order.status != PENDING or quote is None:
            return
        price = quote.touch(order.intent.side)
        if price <= 0 or order.intent.side * (order.limit_price - price) < 0:
            return
        qty = order.remaining if mode != "partial" else min(int(limit) - order.filled, order.remaining)
        if qty > 0:
            self.fill(order.id, qty, price)

    def work_again(self, order: Order) -> None:
        """A modified order meets the market anew."""
        if order.kind == 2:
            quote = self.quotes.find(order.intent.instrument.ticker)
            order.limit_price = (
                protected_price(order.intent.instrument, order.intent.side, quote.lp) if quote else ZERO
            )
        if self.fill_mode not in FILL_MODES[1:]:
            self._match(order)

    def match(self, ticker: str | None = None) -> None:
        """Let resting orders trade at the quotes of now, by the fill mode."""
        self.advance()
        for order in list(self.orders.values()):
            if order.visible_at is None and ticker in (None, order.intent.instrument.ticker):
                self._match(order)

    def fill(self, order_id: str, qty: int | None = None, price: Decimal | None = None) -> None:
        """Trade an order by hand: all that remains and the touch (or its own price) unless said otherwise."""
        order = self.orders[order_id]
        if order.remaining == 0:
            raise ValueError(f"expected a working order, was status {order.status}: {order_id}")
        traded = order.remaining if qty is None else qty
        if not 0 < traded <= order.remaining:
            raise ValueError(f"expected 1..{order.remaining} contracts, was {traded}")
        at_price = self._price_of(order) if price is None else price
        order.filled += traded
        order.value += at_price * traded
        order.status = TRADED if order.filled == order.qty else PENDING
        self.trades.append(Trade(order, traded, at_price, self.clock(), len(self.trades) + 1))
        position = self.position(order.intent.instrument, order.intent.product)
        position.apply(order.intent.side, traded, at_price)
        legs.after_fill(self, order, position)
        self.tell(order)

    def _price_of(self, order: Order) -> Decimal:
        if order.kind in (3, 4):
            return order.stop_price
        quote = self.quotes.find(order.intent.instrument.ticker)
        return quote.touch(order.intent.side) if quote is not None and quote.lp > 0 else order.limit_price

    def reject(self, order_id: str, message: str) -> None:
        """The exchange or RMS says no afterwards: status 5."""
        order = self.orders[order_id]
        order.status, order.message = REJECTED, message
        self.tell(order)

    # --- positions ------------------------------------------------------------------------------------------

    def position(self, instrument: Instrument, product: str) -> Position:
        """The position of a ticker and product, made when missing."""
        key = f"{instrument.ticker}-{product}"
        if key not in self.positions:
            self.positions[key] = Position(instrument, product, len(self.positions) + 1)
        return self.positions[key]

    def instrument(self, ticker: str) -> Instrument:
        """KeyError for a ticker that no master holds."""
        found = self.quotes.masters.find(ticker)
        if found is None:
            raise KeyError(f"expected a ticker of the symbol master, was {ticker!r}")
        return found

    def trade_now(self, intent: OrderIntent, price: Decimal | None, source: str) -> Order:
        """An order that trades whole at once, whatever the fill mode."""
        self.advance()
        order = self.add(intent, self.next_id(), source=source)
        order.status = PENDING
        self.fill(order.id, None, price)
        return order

    def carry_forward(self, ticker: str, qty: int, price: Decimal, product: str) -> Position:
        """A position held from an earlier day; negative when short."""
        self.advance()
        position = self.position(self.instrument(ticker), product)
        if qty > 0:
            position.cf_buy += qty
            position.buy_value += price * qty
        else:
            position.cf_sell -= qty
            position.sell_value -= price * qty
        return position

    # --- time and views -------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let the clock's progress show: late orders appear, a new day starts."""
        now = self.clock()
        due = [each for each in self._late if each[0].visible_at is not None and each[0].visible_at <= now]
        for order, fill_mode in due:
            self._late.remove((order, fill_mode))
            order.visible_at = None
            self.work(order, fill_mode)
        if self._day is not None and ist_date(now) != self._day:
            self._new_day(now)
        self._day = ist_date(now)

    def _new_day(self, now: datetime) -> None:
        self.trades.clear()
        carried = [p for p in self.positions.values() if p.net and p.product in ("MARGIN", "CNC", "MTF")]
        self.positions.clear()
        for old in carried:
            fresh = self.carry_forward_of(old)
            self.positions[fresh.id] = fresh
        for order in self.orders.values():
            if order.remaining and ist_date(order.at) < ist_date(now):
                order.status = CANCELLED

    def carry_forward_of(self, old: Position) -> Position:
        """What is left of a position on the next morning."""
        fresh = Position(old.instrument, old.product, len(self.positions) + 1)
        fresh.stop_loss, fresh.take_profit, fresh.leg_type = old.stop_loss, old.take_profit, old.leg_type
        if old.net > 0:
            fresh.cf_buy, fresh.buy_value = old.net, old.net_average * old.net
        else:
            fresh.cf_sell, fresh.sell_value = -old.net, old.net_average * -old.net
        return fresh

    def order_rows(self) -> list[JsonObject]:
        """Today's visible orders, or the frozen view."""
        self.advance()
        if self.frozen is not None:
            return self.frozen[0]
        today = ist_date(self.clock())
        shown = [o for o in self.orders.values() if o.visible_at is None and ist_date(o.at) == today]
        return [order.row(self.client_id, self._last(order.intent.instrument)) for order in shown]

    def trade_rows(self) -> list[JsonObject]:
        """Today's fills, or the frozen view."""
        self.advance()
        return self.frozen[1] if self.frozen is not None else [t.row(self.client_id) for t in self.trades]

    def position_rows(self) -> list[JsonObject]:
        """Open and closed positions of today."""
        self.advance()
        return [position.row(self._last(position.instrument)) for position in self.positions.values()]

    def _last(self, instrument: Instrument) -> Decimal:
        quote = self.quotes.find(instrument.ticker)
        return quote.lp if quote is not None else dec(0)

    def sliced(self, intent: OrderIntent, size: int) -> list[OrderIntent]:
        """The parts of an order above the freeze quantity."""
        full, rest = divmod(intent.qty, size)
        return [replace(intent, qty=qty) for qty in [size] * full + ([rest] if rest else [])]
