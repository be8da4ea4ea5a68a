"""Record what the order book says about our orders: fills, cancellations, rejections at the exchange."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from app.domain.audit import Event
from app.domain.levels import levels_at
from app.domain.order import Order, Purpose
from app.domain.status import MOVES, WORKING, Status
from app.service.holding import book_row, filled
from app.service.ports import Transaction
from app.service.records import AuditEvent, BookOrder, BookStatus, Moved
from app.service.takeover import share_out

EVENTS: dict[Status, Event] = {
    Status.FILLED: Event.ORDER_FILLED,
    Status.PARTIALLY_FILLED: Event.ORDER_PARTIALLY_FILLED,
    Status.CANCELLED: Event.ORDER_CANCELLED,
    Status.REJECTED: Event.ORDER_REJECTED,
    Status.EXPIRED: Event.ORDER_EXPIRED,
}

ENDED: dict[int, Status] = {
    BookStatus.CANCELLED: Status.CANCELLED,
    BookStatus.REJECTED: Status.REJECTED,
    BookStatus.EXPIRED: Status.EXPIRED,
}


CLOSED = frozenset({Status.CANCELLED, Status.EXPIRED})
FOLLOWED = WORKING | CLOSED | {Status.FILLED}
TRADED_MORE = "traded_more"
"""The code of an order that had ended, and of which the book shows more traded: an entry that an exit took for cancelled,
or one under an end that ours cannot become.
"""


def status_by(row: BookOrder, order: Order) -> Status:
    """The state that a book row means for a working order of ours."""
    if row.status == BookStatus.FILLED:
        return Status.FILLED
    if row.status in ENDED:
        return ENDED[row.status]
    return Status.PARTIALLY_FILLED if filled(order, row) else order.status


def change_by(row: BookOrder, order: Order) -> Moved:
    """The fields that a book row tells. Levels stand on the fill price once there is one."""
    stop: Decimal | None = None
    target: Decimal | None = None
    price = row.traded_price if filled(order, row) else None
    if price is not None and order.purpose is Purpose.ENTRY and order.stop_distance is not None:
        levels = levels_at(price, order.side, order.stop_distance, order.target_distance)
        stop, target = levels.stop_loss, levels.take_profit
    return Moved(
        reason=row.message or None if row.status == BookStatus.REJECTED else None,
        code="rejected_by_exchange" if row.status == BookStatus.REJECTED else None,
        broker_order_id=row.broker_order_id if order.broker_order_id is None else None,
        filled_quantity=filled(order, row),
        fill_price=price,
        stop_loss=stop,
        take_profit=target,
    )


def record_book(tx: Transaction, orders: Iterable[Order], book: Sequence[BookOrder]) -> tuple[Order, ...]:
    """Bring our rows to what the book says, in the caller's transaction. Returns the changed ones.

    Ended orders too: an exchange may report a fill that crossed our cancel, and the book's word wins. Where it names
    another end, which is no move of the table, ours stays: what has traded is held all the same, and no other row waits.

    All rows first, in the order of their ids, and then the counters: an exit and a pass that are both at it would else
    wait for each other, one with a row and one with a counter in hand.
    """
    changed: list[tuple[Order, Order]] = []
    for order in sorted(orders, key=lambda o: o.id):
        never_sent = order.status is Status.EXPIRED and order.broker_order_id is None
        row = book_row(order, book) if order.status in FOLLOWED and not never_sent else None
        if row is None:
            continue
        after = status_by(row, order) if order.status is not Status.FILLED else order.status
        if after is order.status and filled(order, row) == order.filled_quantity:
            continue
        if order.status in CLOSED and filled(order, row) == order.filled_quantity:
            continue  # a book read before the end that we know of
        moved = _record_row(tx, order, row, after)
        if moved is not None:
            changed.append((order, moved))
    for order, moved in changed:
        _count(tx, order, moved)
    return tuple(moved for _, moved in changed)


def _record_row(tx: Transaction, order: Order, row: BookOrder, after: Status) -> Order | None:
    change = change_by(row, order)
    if change.filled_quantity and order.filled_at is None:
        change = replace(change, filled_at=tx.now())
    detail = {"filled": str(change.filled_quantity), "price": str(change.fill_price or "")}
    if order.status in CLOSED and (order.purpose is Purpose.ENTRY or after not in MOVES[order.status]):
        reason = f"ended as {order.status} with {order.filled_quantity} filled; the book says {after} with {filled(order, row)}"
        change = replace(change, code=TRADED_MORE, reason=reason)
    if after is not order.status and after not in MOVES[order.status]:
        detail, after = {**detail, "book": after.value}, order.status
    event = AuditEvent(EVENTS[after], tx.now(), after, detail)
    if after is order.status:
        return tx.record(order, event, change)
    return tx.move(order, after, event, change)


def _count(tx: Transaction, before: Order, moved: Order) -> None:
    """What the end of an order gives back, and what a fill that crossed it takes again."""
    ended = moved.status in ENDED.values()
    if crossed := before.status in CLOSED:  # all of it was given back
        tx.reserve_again(moved.scope, moved.id, ())
    if ended:
        unfilled = max(0, moved.quantity - moved.filled_quantity)
        tx.release(moved.scope, moved.id, unfilled=Fraction(unfilled, moved.quantity))
    if crossed or ended:
        share_out(tx, moved)
