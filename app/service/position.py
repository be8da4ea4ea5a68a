"""One contract and product, as the broker's reads and our rows show it, brought up to date in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from app.domain.alert import Product
from app.domain.order import Order, Scope
from app.service.exchanger import Exchanger
from app.service.follow import record_book
from app.service.holding import Held, held_by, net_of
from app.service.ports import Transaction
from app.service.records import BookOrder, Holding, Position, Trade
from app.service.replay import Closings, has_foreign_fills, owners_at_broker, replayed


@dataclass(frozen=True, slots=True)
class Place:
    """Which one of the account's positions: a contract and a product."""

    scope: Scope
    ticker: str
    product: Product

    @property
    def lease(self) -> str:
        """Its lock: one exit, or one lowering, at a time."""
        s = self.scope
        return f"exit:{s.mode.value}:{s.account}:{self.ticker}:{self.product.value}"


@dataclass(frozen=True, slots=True)
class Readings:
    """What the broker said, in the order in which it has to be asked: the book, the trades, the positions."""

    book: tuple[BookOrder, ...]
    trades: tuple[Trade, ...]
    """Empty when nobody but us has traded here today: nothing to find out then."""
    position: Position | None


@dataclass(frozen=True, slots=True)
class Seen:
    readings: Readings
    orders: tuple[Order, ...]
    held: Held


def read_on(
    exchanger: Exchanger, place: Place, orders: Sequence[Order], book: tuple[BookOrder, ...]
) -> Readings:
    """The reads after the book. Raises BrokerReadFailed; a failed read never means flat."""
    trades: tuple[Trade, ...] = ()
    if has_foreign_fills(orders, book, place.ticker, place.product):
        here = (place.ticker, place.product.value)
        trades = tuple(t for t in exchanger.trades() if (t.ticker, t.product) == here)
    return Readings(book, trades, net_of(exchanger.positions(), place.ticker, place.product))


def look(tx: Transaction, place: Place, who: str | None, readings: Readings, today: date) -> Seen:
    """Record the book, lower what was closed outside our orders, and say what `who` (None: all) holds.

    Only under the place's lease: a lowering is computed from readings, and must not be done twice.
    """
    book, position = readings.book, readings.position
    record_book(tx, tx.orders_in(place.scope, place.ticker, place.product), book)
    orders = tx.orders_in(place.scope, place.ticker, place.product)
    replay, owners = None, owners_at_broker(orders, book)
    if readings.trades:
        before = {h.client: h.net_quantity for h in _here(tx, place, before=today)}
        replay = replayed(before, owners, readings.trades, position)
    first = held_by(who, _here(tx, place), orders, book, position, today, replay)
    closings = Closings(readings.trades, owners, {r.broker_order_id for r in book if r.parent_id})
    for client, delta in first.lowered:
        price = closings.price_of(client, delta)
        reason = f"closed outside our orders: the broker's net is {first.net}"
        tx.adjust_holding(place.scope, client, place.ticker, place.product, delta, reason, price)
    held = held_by(who, _here(tx, place), orders, book, position, today, replay)
    return Seen(readings, orders, held)


def _here(tx: Transaction, place: Place, before: date | None = None) -> list[Holding]:
    found = tx.holdings(place.scope, None, before=before)
    return [h for h in found if h.ticker == place.ticker and h.product is place.product]
