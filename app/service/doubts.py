"""Orders whose outcome nobody knows yet, against one reading of the broker's book."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from app.domain.audit import Event
from app.domain.order import Order, Purpose, Scope
from app.domain.status import WORKING, Status
from app.service.desk import Desk, event_of
from app.service.exchanger import Exchanger
from app.service.holding import MAYBE_LIVE, book_row
from app.service.ports import Transaction
from app.service.records import BookOrder, BookStatus, Moved
from app.service.send import SENT_LATE
from app.service.settle import SLACK, Settle, fitting, has_witness, sent_before
from app.service.takeover import share_out

log = logging.getLogger(__name__)

ADOPTED = "adopted"
"""The code of an order that we had called a "no", and the book shows."""
TAKEN_BACK_WITHIN = timedelta(seconds=2)
"""Given to a sender that has recorded its lateness, and takes its entry back right after (send.TAKE_BACK_S)."""


def unsettled(tx: Transaction, scope: Scope) -> tuple[Order, ...]:
    """What a reading of the book may settle: doubts, and what a person was asked about."""
    wanted = (Status.IN_DOUBT, Status.NEEDS_REVIEW)
    return tuple(o for o in tx.open_orders(scope) if o.status in wanted)


def settle_one(
    tx: Transaction,
    desk: Desk,
    settle: Settle,
    order: Order,
    book: tuple[BookOrder, ...],
    today: date,
) -> list[Order]:
    """One order's verdict, if this reading gives one. The order is looked up again: it may have moved meanwhile."""
    row_now = tx.get_order(desk.scope, order.id, lock=True)
    if row_now is None or (row_now.status, row_now.attempt) != (order.status, order.attempt):
        return []
    order = row_now
    if order.ist_date != today:
        why = f"the book of {order.ist_date} is gone: nothing can be proven any more"
        return _review(tx, desk, order, "day_over", why)
    row, unclear = _find(tx, desk, order, book)
    if row is not None:
        return _found(tx, desk, order, row)
    if unclear:
        return _review(tx, desk, order, "ambiguous", "more than one order or row fits: nobody can say which")
    if order.status is Status.NEEDS_REVIEW or not has_witness(order, book):
        return []
    evidence = tx.note_absence(order)
    if not settle.proven_absent(order, evidence, book):
        return []
    reason = (
        f"absent from {evidence.reads} fresh readings of the book between {evidence.first_at:%H:%M:%S} and "
        f"{evidence.last_at:%H:%M:%S} UTC"
    )
    event = event_of(Event.ORDER_NOT_PLACED, tx.now(), Status.NOT_PLACED, reason=reason)
    moved = tx.move(order, Status.NOT_PLACED, event, Moved(code="not_placed", reason=reason))
    if moved is None:
        return []
    share_out(tx, moved)
    return [moved]


def _find(
    tx: Transaction, desk: Desk, order: Order, book: tuple[BookOrder, ...]
) -> tuple[BookOrder | None, bool]:
    """The order's row, and whether the book leaves it open which one it is."""
    row = book_row(order, book)
    if row is not None or order.product.takes_tag:
        return row, False
    rows = unclaimed(tx, desk, order, book)
    if rows is None or len(rows) > 1:
        return None, True
    return (rows[0], False) if rows else (None, False)


def unclaimed(
    tx: Transaction, desk: Desk, order: Order, book: tuple[BookOrder, ...]
) -> tuple[BookOrder, ...] | None:
    """The rows that may be this untagged order. None: another one of ours, whose row is not known, fits them as well.

    One that is being sent right now too: its row may be in the book before its sender has recorded the id.
    """
    claimed = tx.known_at_broker(desk.scope, [r.broker_order_id for r in book])
    others = tx.open_orders(desk.scope, ticker=order.ticker, side=order.side)
    rivals = [o for o in others if o.broker_order_id is None and o.status in MAYBE_LIVE]
    return fitting(order, rivals, book, claimed)


def claim_closings(tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], today: date) -> list[Order]:
    """Exits that closed a position by its id: the broker took them without naming the order that does it."""
    changed = []
    for order in tx.open_orders(desk.scope):
        if order.product.takes_tag or order.broker_order_id or order.status not in WORKING:
            continue
        rows = unclaimed(tx, desk, order, book) if order.ist_date == today else None
        if rows is not None and len(rows) == 1:
            ident = rows[0].broker_order_id
            event = event_of(
                Event.ORDER_ACCEPTED, tx.now(), order.status, broker_order_id=ident, by="order book"
            )
            changed.append(tx.record(order, event, Moved(broker_order_id=ident)))
    return changed


def _found(tx: Transaction, desk: Desk, order: Order, row: BookOrder) -> list[Order]:
    detail = {"broker_order_id": row.broker_order_id, "by": "order book"}
    # What had traded before the rest was rejected counts: it is followed to its end like any accepted order's.
    if row.status == BookStatus.REJECTED and not row.filled_quantity:
        change = Moved("rejected_by_exchange", row.message or None, row.broker_order_id)
        event = event_of(Event.ORDER_REJECTED, tx.now(), Status.REJECTED, reason=row.message, **detail)
        moved = tx.move(order, Status.REJECTED, event, change)
        if moved is not None:
            tx.release(order.scope, order.id)
            share_out(tx, moved)
        return [] if moved is None else [moved]
    late = came_late(order, row)
    code, why = SENT_LATE if late else "settled_by_book", "found in the broker's order book"
    change = Moved(code, why, row.broker_order_id, sent_at=row.placed_at)
    event = event_of(Event.ORDER_ACCEPTED, tx.now(), Status.ACCEPTED, **detail)
    moved = tx.move(order, Status.ACCEPTED, event, change)
    if moved is None:
        return []
    if late and order.code != SENT_LATE:
        tx.record(moved, event_of(Event.ORDER_SENT_LATE, tx.now(), moved.status))
        desk.notifier.notify(
            "sent_late", f"order {order.id} reached the broker after its deadline", page=True
        )
    return [moved]


def came_late(order: Order, row: BookOrder) -> bool:
    """Whether the broker got it well after its sender's time was up: a paused process, or a slow way."""
    if order.code == SENT_LATE:
        return True  # its own sender has said so
    return order.answer_by is not None and row.placed_at > order.answer_by + SLACK


def _review(tx: Transaction, desk: Desk, order: Order, code: str, reason: str) -> list[Order]:
    if order.status is Status.NEEDS_REVIEW:
        return []
    event = event_of(Event.ORDER_NEEDS_REVIEW, tx.now(), Status.NEEDS_REVIEW, reason=reason)
    moved = tx.move(order, Status.NEEDS_REVIEW, event, Moved(code=code, reason=reason))
    if moved is None:
        return []
    desk.notifier.notify("needs_review", f"order {order.id} {order.ticker}: {reason}", page=True)
    return [moved]


def left_late(tx: Transaction, scope: Scope) -> tuple[Order, ...]:
    """Working entries that were found to be late, and that nobody has tried to cancel: whoever found it, a pass or the
    sender, ended in between.
    """
    found = [
        o
        for o in tx.open_orders(scope)
        if o.purpose is Purpose.ENTRY
        and o.status in WORKING
        and o.code in (SENT_LATE, ADOPTED)
        and o.updated_at is not None
        and tx.now() - o.updated_at >= TAKEN_BACK_WITHIN
    ]
    tried = tx.events_of(scope, [o.id for o in found], [Event.ENTRY_CANCEL]) if found else {}
    return tuple(o for o in found if o.id not in tried)


def take_back_late(
    desk: Desk, exchanger: Exchanger, found: Iterable[Order], book: Sequence[BookOrder]
) -> None:
    """Cancel entries that reached the broker after their time, or after we had said no, if they still work. `found`: by
    this pass, or `left_late`.

    One attempt each. Whoever sent the alert has been told that nothing came of it, or has given up waiting.
    """
    for order in found:
        row = book_row(order, book)
        if row is None or not row.is_working or order.purpose is not Purpose.ENTRY:
            continue
        if order.code != ADOPTED and not came_late(order, row):
            continue
        said = type(exchanger.cancel(row.broker_order_id)).__name__
        with desk.store.write() as tx:
            now = tx.get_order(desk.scope, order.id, lock=True) or order  # it may have moved meanwhile
            tx.record(now, event_of(Event.ENTRY_CANCEL, tx.now(), now.status, outcome=said, why="late"))


def verdict_was_wrong(tx: Transaction, desk: Desk, order: Order, row: BookOrder) -> list[Order]:
    """An order that we had called a "no", and the book shows: adopt it, count it again, alarm, let only exits pass."""
    reason = f"the order was {order.status}, and the broker's book shows it after all"
    detail = {"was": order.status.value, "broker_order_id": row.broker_order_id}
    change = Moved(ADOPTED, reason, row.broker_order_id, sent_at=row.placed_at)
    event = event_of(Event.ORDER_ADOPTED, tx.now(), Status.ACCEPTED, reason=reason, **detail)
    moved = tx.move(order, Status.ACCEPTED, event, change)
    if moved is None:
        return []
    tx.reserve_again(order.scope, order.id, ())
    share_out(tx, moved)
    tx.reduce(desk.scope, "reconcile", f"order {order.id}: {reason}")
    desk.notifier.notify("wrong_verdict", f"order {order.id} {order.ticker}: {reason}", page=True)
    return [moved]


__all__ = ["left_late", "sent_before", "settle_one", "take_back_late", "unsettled", "verdict_was_wrong"]
