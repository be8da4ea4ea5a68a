"""What stands in the way of an exit at the broker: the client's working entries here, which could fill behind it, and
exits that have not filled, which it replaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from app.domain.audit import Event
from app.domain.order import Order, Purpose, Side
from app.domain.status import WORKING, Status
from app.errors import OutOfTime
from app.service.amount import asked_of, sized
from app.service.desk import Desk, event_of
from app.service.exchanger import Exchanger
from app.service.holding import book_row, open_part, without_exit
from app.service.intent import Job
from app.service.ports import Transaction
from app.service.position import Place, Readings, look, read_on
from app.service.records import BookOrder
from app.service.under_way import came_later, for_exit, is_mine, under_way_for

FILLS_WITHIN = timedelta(seconds=10)
"""A market order that has not filled by then is stuck at its protection price: a new EXIT may replace it."""


@dataclass(frozen=True, slots=True)
class Exit:
    """One exit on its way, under its place's lease."""

    order: Order
    """A draft: side and quantity follow from what is held."""
    freeze: int | None
    side: Side | None
    """Of a BUY or SELL. None: an EXIT, whichever side that is."""
    place: Place
    owner: str

    def must_own(self, tx: Transaction) -> None:
        """Raises OutOfTime where another has the lease now."""
        if not tx.owns_lock(self.place.lease, self.owner):
            raise OutOfTime("the exit's lease was lost", retry_after_s=1)


def clear_the_way(desk: Desk, job: Job, out: Exit, exchanger: Exchanger) -> tuple[Readings, list[Order]]:
    """The broker's reads, after what stands in the way was cancelled, and what that was."""
    place = out.place
    with desk.store.read(job.budget.send) as tx:
        orders = tx.orders_in(place.scope, place.ticker, place.product)
    book = exchanger.order_book()
    entries = [o for o in orders if is_mine(job, o, out.side) and _is_working(job, o, book)]
    _cancel(desk, job, exchanger, entries, book)
    if entries:
        book = exchanger.order_book()
    readings = read_on(exchanger, place, orders, book)
    # An exit that came after this one, and after a later entry, is that entry's too: this one would not close it.
    reopened = any(o.purpose is Purpose.ENTRY and came_later(job, o) for o in orders)
    stuck = [o for o in orders if _is_stuck(job, o, out.side) and _is_working(job, o, book)]
    stuck = [o for o in stuck if not (reopened and came_later(job, o))]
    replaced = _to_replace(desk, job, out, readings, stuck) if stuck else []
    _cancel(desk, job, exchanger, replaced, book)
    if replaced:
        readings = read_on(exchanger, place, orders, exchanger.order_book())
    return readings, entries + replaced


def _to_replace(desk: Desk, job: Job, out: Exit, readings: Readings, stuck: list[Order]) -> list[Order]:
    """As many of `stuck`, the oldest first, as the exit needs room for; none where it could not go itself: what rests
    there may be all that still closes the position.
    """
    gone: list[Order] = []
    place, asked = out.place, asked_of(job, out.order.lot)
    with desk.store.write(job.budget.send) as tx:
        out.must_own(tx)
        seen = look(tx, place, None if job.all_clients else job.alert.client, readings, job.today)
        for order in stuck:
            if asked and abs(for_exit(job, seen).quantity) >= asked:
                break
            left = tuple(replace(o, status=Status.CANCELLED) if o.id == order.id else o for o in seen.orders)
            held = without_exit(seen.held, open_part(order, readings.book, job.today))
            seen = replace(seen, orders=left, held=held)
            gone.append(order)
        if not gone:
            return []
        under_way = under_way_for(tx, job, place, seen, out.side)
        order = replace(out.order, side=stuck[0].side)
        _, no = sized(tx, job, order, out.freeze, seen, under_way, gone)
    return gone if no is None else []


def _cancel(
    desk: Desk, job: Job, exchanger: Exchanger, orders: list[Order], book: tuple[BookOrder, ...]
) -> None:
    for order in orders:
        shown = book_row(order, book)
        outcome = exchanger.cancel((shown or order).broker_order_id or "")
        kind = Event.ENTRY_CANCEL if order.purpose is Purpose.ENTRY else Event.EXIT_REPLACED
        with desk.store.write(job.budget.send) as tx:
            row = tx.get_order(desk.scope, order.id, lock=True) or order  # it may have moved meanwhile
            tx.record(row, event_of(kind, tx.now(), row.status, outcome=type(outcome).__name__))


def _is_working(job: Job, order: Order, book: tuple[BookOrder, ...]) -> bool:
    is_there = order.status in WORKING and order.broker_order_id is not None
    return is_there and open_part(order, book, job.today) > 0


def _is_stuck(job: Job, order: Order, side: Side | None) -> bool:
    """An exit of this client that has had its time to fill."""
    whose = job.all_clients or order.client == job.alert.client
    if not whose or order.purpose is not Purpose.EXIT or (side is not None and order.side is not side):
        return False
    return order.product.takes_tag and order.sent_at is not None and job.now - order.sent_at >= FILLS_WITHIN
