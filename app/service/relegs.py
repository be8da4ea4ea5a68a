"""Legs that came off for an exit which then did not happen: put back, or a person hears of it.

The broker's risk desk mostly refuses after it has accepted (fyers-api.md 2.2), long after the exit's own request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection, Purpose
from app.domain.outcome import Accepted
from app.domain.status import UNSETTLED, WORKING, Status
from app.service.desk import Desk, event_of
from app.service.exchanger import Exchanger
from app.service.holding import net_of, open_part
from app.service.position import Place
from app.service.records import BookOrder, Position

log = logging.getLogger(__name__)

ENDED_UNFILLED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED, Status.NOT_PLACED})
LEASE = timedelta(seconds=10)


def restore_legs(
    desk: Desk,
    exchanger: Exchanger,
    ended: Iterable[Order],
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    today: date,
) -> bool:
    """For each exit that has just ended with something unfilled, and whose position stands there without a stop.

    Whether anything was tried: the positions are to be read again then.
    """
    tried = False
    for order in ended:
        if order.purpose is not Purpose.EXIT or order.status not in ENDED_UNFILLED:
            continue
        if not order.product.takes_tag or order.filled_quantity >= order.quantity:
            continue
        place = Place(desk.scope, order.ticker, order.product)
        owner = desk.random_bytes(8).hex()
        if not desk.store.take_lock(place.lease, owner, LEASE, Deadline(desk.clock.monotonic())):
            continue  # another exit is at it, and the legs are that one's business
        try:
            position = net_of(positions, order.ticker, order.product)
            tried = _restore(desk, exchanger, order, book, position, today) or tried
        finally:
            with desk.store.write() as tx:
                tx.free_lock(place.lease, owner)
    return tried


def _restore(
    desk: Desk,
    exchanger: Exchanger,
    order: Order,
    book: tuple[BookOrder, ...],
    position: Position | None,
    today: date,
) -> bool:
    with desk.store.read() as tx:
        rows = tx.orders_in(desk.scope, order.ticker, order.product)
        held = [h for h in tx.holdings(desk.scope, None) if h.ticker == order.ticker]
    own = sum(h.net_quantity for h in held if h.product is order.product)
    busy = any(
        o.purpose is Purpose.EXIT
        and (o.status in UNSETTLED or (o.status in WORKING and open_part(o, book, today)))
        for o in rows
    )
    asked = [o for o in rows if o.purpose is Purpose.ENTRY and o.protection is not Protection.NONE]
    if busy or not asked or position is None or position.has_stop or position.net_quantity * own <= 0:
        return False
    stop, target = asked[-1].stop_distance or Decimal(0), asked[-1].target_distance or Decimal(0)
    part = abs(own) if abs(own) < abs(position.net_quantity) else None
    back = exchanger.set_protection(position.id, stop, target, part)
    event = Event.LEG_RESTORED if isinstance(back, Accepted) else Event.LEG_UNPROTECTED
    if event is Event.LEG_UNPROTECTED:
        text = f"{order.ticker}: exit {order.id} is {order.status}, and its legs could not be put back"
        desk.notifier.notify("unprotected", text, page=True)
    with desk.store.write() as tx:
        tx.record(order, event_of(event, tx.now(), order.status))
    return True
