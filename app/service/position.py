"""One contract and product, as the broker's reads and our rows show it, brought up to date in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Order, Scope
from app.service.desk import Desk
from app.service.exchanger import Exchanger
from app.service.follow import record_book
from app.service.holding import Held, held_by, net_of, own_by_client
from app.service.ports import Transaction
from app.service.records import BookOrder, Holding, Position, Trade
from app.service.replay import Closings, has_foreign_fills, nearer, owners_at_broker, replayed

MISSING = "missing for minutes on {}, and no trade of the day says why"
"""The reason of a lowering that today's trades do not show: what they leave is less by it."""


LEASE = timedelta(seconds=10)


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


@contextmanager
def if_free(desk: Desk, place: Place) -> Iterator[bool]:
    """Its lease, where nobody has it now: no pass waits for an exit, which sees to holding and legs itself."""
    owner = desk.random_bytes(8).hex()
    is_free = desk.store.take_lock(place.lease, owner, LEASE, Deadline(desk.clock.monotonic()))
    try:
        yield is_free
    finally:
        if is_free:
            with desk.store.write() as tx:
                tx.free_lock(place.lease, owner)


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
    unexplained: bool
    """The broker's net is below ours, and no trade of today says why: a list of positions may come incomplete."""


def read_on(
    exchanger: Exchanger, place: Place, orders: Sequence[Order], book: tuple[BookOrder, ...]
) -> Readings:
    """The reads after the book. Raises BrokerReadFailed; a failed read never means flat."""
    trades: tuple[Trade, ...] = ()
    if has_foreign_fills(orders, book, place.ticker, place.product):
        here = (place.ticker, place.product.value)
        trades = tuple(t for t in exchanger.trades() if (t.ticker, t.product) == here)
    return Readings(book, trades, net_of(exchanger.positions(), place.ticker, place.product))


def look(
    tx: Transaction, place: Place, who: str | None, readings: Readings, today: date, *, lasting: bool = False
) -> Seen:
    """Record the book, lower what was closed outside our orders, and say what `who` (None: all) holds.

    What is missing is taken for closed where today's trades say so, or where it has been missing for long (`lasting`).

    Only under the place's lease: a lowering is computed from readings, and must not be done twice.
    """
    book, position = readings.book, readings.position
    record_book(tx, tx.orders_in(place.scope, place.ticker, place.product), book)
    orders = tx.orders_in(place.scope, place.ticker, place.product)
    replay, owners = None, owners_at_broker(orders, book)
    before = _at_the_beginning(tx, place, today)
    trades = readings.trades if _are_whole(readings, owners, orders, today) else ()
    net = position.net_quantity if position else 0
    own = sum(own_by_client(_here(tx, place), orders, book).values())
    traded = sum(t.side.sign * t.quantity for t in trades)
    # What should be there, as far as we know: a hand's own of before today is none of our rows.
    left = sum(before.values()) + traded if trades else own
    is_short = left * own > 0 and nearer(left, net) != left
    unexplained = not lasting and nearer(own, net) != own and is_short
    if trades:
        replay = replayed(before, owners, trades, left if unexplained else net)
    first = held_by(who, _here(tx, place), orders, book, position, today, replay)
    if unexplained:
        return Seen(readings, orders, first, unexplained)
    closings = Closings(readings.trades, owners, {r.broker_order_id for r in book if r.parent_id})
    for client, delta in first.lowered:
        price = closings.price_of(client, delta)
        reason = f"closed outside our orders: the broker's net is {first.net}"
        reason = MISSING.format(today) if is_short else reason
        tx.adjust_holding(place.scope, client, place.ticker, place.product, delta, reason, price)
    held = held_by(who, _here(tx, place), orders, book, position, today, replay)
    return Seen(readings, orders, held, unexplained=False)


def _at_the_beginning(tx: Transaction, place: Place, today: date) -> dict[str, int]:
    """What each client's orders held when the day began, as far as it has been found to be there since."""
    held = {h.client: h.net_quantity for h in _here(tx, place, before=today)}
    for gone in tx.adjusted(place.scope, (MISSING.format(today),)):
        if (gone.ticker, gone.product) == (place.ticker, place.product):
            held[gone.client] = held.get(gone.client, 0) + gone.net_quantity
    return held


def _are_whole(readings: Readings, owners: Mapping[str, str], orders: Sequence[Order], today: date) -> bool:
    """Whether the trades, which are read after the book, show all that the book and our own rows say of our orders. A
    list that lags behind would let a holding of ours look like nobody's; so would a book from before our latest fill.
    """
    told: dict[str, int] = {}
    for trade in readings.trades:
        told[trade.broker_order_id] = told.get(trade.broker_order_id, 0) + trade.quantity
    wanted = [(r.broker_order_id, r.filled_quantity) for r in readings.book if r.broker_order_id in owners]
    wanted += [
        (o.broker_order_id, o.filled_quantity) for o in orders if o.broker_order_id and o.ist_date == today
    ]
    return all(filled <= told.get(ident, 0) for ident, filled in wanted)


def _here(tx: Transaction, place: Place, before: date | None = None) -> list[Holding]:
    found = tx.holdings(place.scope, None, before=before)
    return [h for h in found if h.ticker == place.ticker and h.product is place.product]
