"""Record what the order book says about our orders: fills, cancellations, rejections at the exchange."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.levels import levels_at
from app.domain.order import Order, Purpose, Scope
from app.domain.status import WORKING, Status
from app.service.holding import book_row, filled
from app.service.ports import Broker, Clock, Store, Transaction
from app.service.records import AuditEvent, BookOrder, BookStatus, Moved

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
    """Bring our working rows to what the book says, in the caller's transaction. Returns the changed ones."""
    changed = []
    for order in orders:
        row = book_row(order, book) if order.status in WORKING else None
        if row is None:
            continue
        after = status_by(row, order)
        if after is order.status and filled(order, row) == order.filled_quantity:
            continue
        change = change_by(row, order)
        detail = {"filled": str(change.filled_quantity), "price": str(change.fill_price or "")}
        event = AuditEvent(EVENTS[after], tx.now(), after, detail)
        if after is order.status:
            changed.append(tx.record(order, event, change))
            continue
        moved = tx.move(order, after, event, change)
        if moved is None:
            continue
        changed.append(moved)
        if after in ENDED.values() and not change.filled_quantity:
            tx.release(order.scope, order.id)
    return tuple(changed)


@dataclass(frozen=True, slots=True)
class Follow:
    """Read the book once and record it. Raises BrokerReadFailed or StoreUnavailable; nothing is sent."""

    store: Store
    broker: Broker
    clock: Clock
    scope: Scope

    def __call__(self, budget_s: float = 2.0) -> tuple[Order, ...]:
        deadline = Deadline(self.clock.monotonic() + budget_s)
        with self.store.read(deadline) as tx:
            if not any(o.status in WORKING for o in tx.open_orders(self.scope)):
                return ()
        with self.broker.exchange(deadline) as exchanger:
            book = exchanger.order_book()
        with self.store.write(deadline) as tx:
            return record_book(tx, tx.open_orders(self.scope), book)
