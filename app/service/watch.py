"""What a person has to hear of: a fill without its protection, an exit that does not fill, an end that was none."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Protection, Purpose, Scope
from app.domain.outcome import Accepted
from app.domain.status import WORKING, Status
from app.service.desk import Desk, at_ist, event_of
from app.service.excess import EXCESS
from app.service.follow import CLOSED, TRADED_MORE
from app.service.holding import net_of, open_part, stop_shown
from app.service.ports import Transaction
from app.service.records import AuditEvent, BookOrder, BookStatus, Moved, Position

PROTECTED_WITHIN = timedelta(seconds=10)
FILLED_WITHIN = timedelta(seconds=10)
UNFILLED = "exit_unfilled"
DOUBTED_FOR = timedelta(seconds=30)
ENDED = frozenset({Status.CANCELLED, Status.EXPIRED})
ENDED_FOR = timedelta(seconds=5)
"""One of ours that has cancelled it has said so by then."""
NEWS_FOR = timedelta(minutes=5)
"""Later it may have been closed, and another position be there."""


def unprotected(tx: Transaction, scope: Scope, today: date) -> list[Order]:
    """Entries of today, or known to have filled today, that hold something and whose stop was asked for: not seen yet, or
    to be seen still.
    """
    places = {(h.ticker, h.product) for h in tx.holdings(scope, None)}
    held = [o for place in sorted(places) for o in tx.orders_in(scope, *place)]
    late = [o for o in held if o.ist_date < today and o.filled_at and ist_date(o.filled_at) == today]
    entries = [o for o in (*tx.orders_on(scope, today), *late) if o.purpose is Purpose.ENTRY]
    entries = [o for o in entries if o.filled_quantity and o.protection is not Protection.NONE]
    found = [o for o in entries if (o.ticker, o.product) in places or o.protection is Protection.REQUESTED]
    return sorted(found, key=lambda o: o.id)  # as all who take several rows


def watch(
    tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], positions: tuple[Position, ...], today: date
) -> list[Order]:
    """One look at every protection and every exit that is under way. Returns the changed orders."""
    now = tx.now()
    changed = [_protection(tx, desk, o, book, positions, now) for o in unprotected(tx, desk.scope, today)]
    exits = [o for o in tx.open_orders(desk.scope) if o.purpose is Purpose.EXIT and o.status in WORKING]
    changed += [_unfilled(tx, desk, o, now) for o in exits if open_part(o, book, today)]
    changed += _doubted(tx, desk, now)
    changed += _ended(tx, desk, positions, today)
    return [o for o in changed if o is not None]


def _protection(
    tx: Transaction,
    desk: Desk,
    order: Order,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    now: datetime,
) -> Order | None:
    position = net_of(positions, order.ticker, order.product)
    legs = [row for row in book if row.parent_id and row.parent_id == order.broker_order_id]
    if any(row.status == BookStatus.FILLED for row in legs):
        return None  # its own leg has closed it
    shown = stop_shown(position, (order,), book)
    if order.protection is Protection.SEEN:
        return None if shown else _lost(tx, desk, order, position, now)
    if shown:
        event = event_of(Event.PROTECTION_SEEN, now, order.status)
        return tx.record(order, event, Moved(protection=Protection.SEEN))
    if position is None or position.net_quantity == 0 or order.protection is Protection.MISSING:
        return None  # nothing is left to protect, or it has been said
    if order.filled_at is None or now - order.filled_at < PROTECTED_WITHIN:
        return None
    text = f"order {order.id} {order.ticker}: the fill has no stop at the broker ({at_ist(now)})"
    desk.notifier.notify("protection_missing", text, page=True)
    event = event_of(Event.PROTECTION_MISSING, now, order.status)
    return tx.record(order, event, Moved(protection=Protection.MISSING))


def _lost(
    tx: Transaction,
    desk: Desk,
    order: Order,
    position: Position | None,
    now: datetime,
) -> Order | None:
    """A stop that was there, and is there no more, while something is held and no exit of ours is under way. One that
    has waited for long closes nothing: it may wait for hours.
    """
    if position is None or position.net_quantity * order.side.sign <= 0:
        return None
    others = tx.open_orders(order.scope, ticker=order.ticker, side=order.side.opposite)
    exits = [o for o in others if o.purpose is Purpose.EXIT and o.product is order.product]
    if any(not _waits(o, now) for o in exits):
        return None
    # With its time: lost, put back and lost again within minutes are two pages.
    text = f"order {order.id} {order.ticker}: its stop is no more at the broker, and the position is ({at_ist(now)})"
    desk.notifier.notify("protection_missing", text, page=True)
    event = event_of(Event.PROTECTION_MISSING, now, order.status)
    return tx.record(order, event, Moved(protection=Protection.MISSING))


def _unfilled(tx: Transaction, desk: Desk, order: Order, now: datetime) -> Order | None:
    if order.code == UNFILLED or order.sent_at is None or now - order.sent_at < FILLED_WITHIN:
        return None
    text = (
        f"exit {order.id} {order.ticker}: {order.filled_quantity} of {order.quantity} filled, the rest waits"
    )
    desk.notifier.notify(UNFILLED, text, page=True)
    return tx.record(order, event_of(Event.EXIT_UNFILLED, now, order.status), Moved(code=UNFILLED))


def _doubted(tx: Transaction, desk: Desk, now: datetime) -> list[Order]:
    """Exits that nobody knows anything of, or that wait for such an entry. On an account where nothing else trades that
    may stay so for hours.
    """
    found = [o for o in tx.open_orders(desk.scope) if o.purpose is Purpose.EXIT]
    found = [o for o in found if (o.status is Status.IN_DOUBT and _sent_before(o, now)) or _waits(o, now)]
    told = tx.events_of(desk.scope, [o.id for o in found], [Event.EXIT_UNFILLED]) if found else {}
    changed = []
    for order in sorted(found, key=lambda o: o.id):  # as all who take several rows
        if any(e.status is order.status for e in told.get(order.id, ())):
            continue
        text = f"exit {order.id} {order.ticker}: {_why_open(order)}"
        desk.notifier.notify(UNFILLED, text, page=True)
        changed.append(tx.record(order, event_of(Event.EXIT_UNFILLED, now, order.status)))
    return changed


def _why_open(order: Order) -> str:
    if order.status is Status.IN_DOUBT:
        return "nobody knows whether it reached the broker; look there"
    return f"it still waits, and what it is to close is open: {order.reason}"


def _sent_before(order: Order, now: datetime) -> bool:
    sent_at = order.sent_at or order.created_at  # of a sender that died nobody knows when
    return sent_at is not None and now - sent_at >= DOUBTED_FOR


def _waits(order: Order, now: datetime) -> bool:
    """For so long that somebody has to hear of it."""
    began = order.created_at or now
    return order.status is Status.EXIT_PENDING and now - began >= DOUBTED_FOR


def _ended(tx: Transaction, desk: Desk, positions: tuple[Position, ...], today: date) -> list[Order]:
    """Exits that somebody else has ended before they had filled, while what they were to close is still open. What we
    have taken back ourselves is told by whoever did it.
    """
    found = [o for o in tx.orders_on(desk.scope, today, ENDED) if o.purpose is Purpose.EXIT]
    found = [o for o in found if o.broker_order_id and o.filled_quantity < o.quantity]
    found = [o for o in found if o.updated_at and ENDED_FOR <= tx.now() - o.updated_at < NEWS_FOR]
    # Not EXIT_REPLACED: where its replacement does not close what it was to close, nobody else tells.
    about = [Event.EXIT_UNFILLED, Event.ENTRY_CANCEL]
    told = tx.events_of(desk.scope, [o.id for o in found], about) if found else {}
    changed = []
    for order in sorted(found, key=lambda o: o.id):  # as all who take several rows
        if any(_says_why(e) for e in told.get(order.id, ())) or not _is_left(tx, order, positions):
            continue
        text = (
            f"exit {order.id} {order.ticker}: {order.status} with {order.filled_quantity} of {order.quantity} filled, and "
            "it is not sent again"
        )
        desk.notifier.notify(UNFILLED, text, page=True)
        changed.append(tx.record(order, event_of(Event.EXIT_UNFILLED, tx.now(), order.status)))
    return changed


def _says_why(event: AuditEvent) -> bool:
    """It was told, or it was a cancel of ours that the broker took."""
    if event.event is Event.EXIT_UNFILLED:
        return event.status in ENDED
    return event.detail.get("outcome") == Accepted.__name__ or event.detail.get("why") == EXCESS


def _is_left(tx: Transaction, order: Order, positions: tuple[Position, ...]) -> bool:
    """Whether what an ended exit was to close is there, with no other exit at it and nothing entered since."""
    position = net_of(positions, order.ticker, order.product)
    if position is None or position.net_quantity * order.side.sign >= 0:
        return False
    if any(
        o.purpose is Purpose.EXIT and o.product is order.product
        for o in tx.open_orders(order.scope, ticker=order.ticker)
    ):
        return False
    since = [o for o in tx.orders_in(order.scope, order.ticker, order.product) if o.purpose is Purpose.ENTRY]
    ended_at = order.updated_at or tx.now()
    return not any(o.created_at is not None and o.created_at > ended_at for o in since)


def traded_more(tx: Transaction, desk: Desk, today: date) -> list[Order]:
    """Ended orders that traded more than we knew, whoever has recorded it: once each. They are over, and no review ends
    them; what they hold can be exited.
    """
    ended = CLOSED | {Status.PARTIALLY_FILLED, Status.FILLED}
    found = [o for o in tx.orders_on(desk.scope, today, ended) if o.code == TRADED_MORE]
    told = tx.events_of(desk.scope, [o.id for o in found], [Event.ORDER_NEEDS_REVIEW]) if found else {}
    changed = []
    for order in sorted(found, key=lambda o: o.id):  # as all who take several rows
        if any(e.status in ended for e in told.get(order.id, ())):
            continue
        desk.notifier.notify("needs_review", f"order {order.id} {order.ticker}: {order.reason}", page=True)
        event = event_of(Event.ORDER_NEEDS_REVIEW, tx.now(), order.status, reason=order.reason or "")
        changed.append(tx.record(order, event))
    return changed
