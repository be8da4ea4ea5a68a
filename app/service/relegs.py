"""Legs that came off for an exit which then did not happen: put back, or a person hears of it.

The broker's risk desk mostly refuses after it has accepted (fyers-api.md 2.2), long after the exit's own request. Which
exits are meant is asked of the database: whoever reads the book records an exit's end, another alert in its contract too,
and the pass that did may have failed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Protection, Purpose, Scope
from app.domain.outcome import Accepted
from app.domain.status import UNSETTLED, WORKING, Status
from app.service.desk import Desk
from app.service.exchanger import Exchanger
from app.service.holding import MAYBE_LIVE, net_of, open_part
from app.service.legs import said_of_legs
from app.service.ports import Transaction
from app.service.position import Place, if_free
from app.service.records import AuditEvent, BookOrder, Position

ENDED_UNFILLED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED, Status.NOT_PLACED})
OURS = (Event.LEG_CHANGING, Event.LEG_RESTORED)
"""After these a stop that shows is ours: it was put back, or it was about to be."""
ABOUT_LEGS = (Event.LEG_CANCELLED, *OURS, Event.LEG_UNPROTECTED, Event.PROTECTION_SEEN)


@dataclass(frozen=True, slots=True)
class Off:
    """A position of ours whose legs may be off."""

    position: Position
    exits: tuple[Order, ...]
    """Those that ended unfilled, and that nothing has followed since; oldest first."""
    own: int
    """Signed: what our orders hold."""
    asked: Order
    """The latest own entry that asked for protection: its distances are what is set."""
    stop_is_ours: bool
    """A stop that shows is the one that we put back over what one of these exits was to leave. Else a hand has set it."""


def restore_legs(
    desk: Desk,
    exchanger: Exchanger,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    began: datetime,
) -> bool:
    """Once for each position that stands there without a stop, or with one over a part, after an exit of today has ended
    with something unfilled. `book` and `positions` were read after `began`.

    Whether anything was tried: the positions are to be read again then.
    """
    tried = False
    with desk.store.read() as tx:
        found = _found(tx, desk.scope, book, positions, ist_date(began))
    for place in found:
        with if_free(desk, place) as is_free:
            if is_free:
                tried = _restore(desk, exchanger, place, book, positions, began) or tried
    return tried


def _restore(
    desk: Desk,
    exchanger: Exchanger,
    place: Place,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    began: datetime,
) -> bool:
    """Only under the place's lease: what it goes by is looked up again."""
    with desk.store.read() as tx:
        off = _found(tx, desk.scope, book, positions, ist_date(began)).get(place)
    if off is None:
        return False
    if off.position.has_stop and not off.stop_is_ours:
        # Covered again: should that stop go later, somebody meant it. A list from before an end proves nothing of it.
        exits = [o for o in off.exits if o.updated_at is not None and o.updated_at < began]
        event = Event.PROTECTION_SEEN
    else:
        stop, target = off.asked.stop_distance or Decimal(0), off.asked.target_distance or Decimal(0)
        net = abs(off.position.net_quantity)
        # Said over a stop that stands too: what a change leaves out may stay as it is.
        part = min(abs(off.own), net) if off.position.has_stop or abs(off.own) < net else None
        back = exchanger.set_protection(off.position.id, stop, target, part)
        exits = list(off.exits)
        event = Event.LEG_RESTORED if isinstance(back, Accepted) else Event.LEG_UNPROTECTED
    if event is Event.LEG_UNPROTECTED:
        last = exits[-1]
        text = f"{place.ticker}: exit {last.id} is {last.status}, and its legs could not be put back"
        desk.notifier.notify("unprotected", text, page=True)
    if exits:
        with desk.store.write() as tx:
            for order in sorted(exits, key=lambda o: o.id):  # as all who take several rows
                tx.record(order, said_of_legs(event, tx.now(), order))
    return event is not Event.PROTECTION_SEEN


def _found(
    tx: Transaction, scope: Scope, book: Sequence[BookOrder], positions: Sequence[Position], today: date
) -> dict[Place, Off]:
    exits: dict[Place, tuple[Order, ...]] = {}
    for order in unanswered(tx, scope, today):
        place = Place(scope, order.ticker, order.product)
        exits[place] = (*exits.get(place, ()), order)
    found = {}
    for place, these in exits.items():
        position = net_of(positions, place.ticker, place.product)
        off = _off(tx, place, these, book, position, today) if position is not None else None
        if off is not None:
            found[place] = off
    return found


def unanswered(tx: Transaction, scope: Scope, today: date) -> list[Order]:
    """Exits of today whose legs may be off, oldest first."""
    ended = [
        o
        for o in tx.orders_on(scope, today, ENDED_UNFILLED)
        if o.purpose is Purpose.EXIT and o.product.takes_tag and o.filled_quantity < o.quantity
    ]
    said = tx.events_of(scope, [o.id for o in ended], ABOUT_LEGS) if ended else {}
    return [o for o in ended if _is_unanswered(o, said.get(o.id, ()))]


def _is_unanswered(order: Order, said: Sequence[AuditEvent]) -> bool:
    """Whether its legs may be off, or on a part only, and nobody has put them back or told a person since it ended.

    A sender that died right after it took them off has said nothing: then whatever the broker's book, or its absence
    from it, ended counts. Its word that they are off while it was in doubt is no attempt to put them back, and those put
    back once it was accepted stand on what it was to leave.
    """
    if not said:
        return order.broker_order_id is not None or order.status is Status.NOT_PLACED
    last = said[-1]
    return last.event is Event.LEG_CANCELLED or last.detail.get("as_of", last.status) in MAYBE_LIVE


def has_asked(entry: Order) -> bool:
    """Whether it holds something under a stop whose distance we know: of one that was adopted from the book we do not."""
    return bool(entry.filled_quantity and entry.stop_distance and entry.protection is not Protection.NONE)


def _off(
    tx: Transaction,
    place: Place,
    exits: tuple[Order, ...],
    book: Sequence[BookOrder],
    position: Position,
    today: date,
) -> Off | None:
    """None: nothing of ours is left there, none of it asked for legs, or another exit is under way."""
    rows = tx.orders_in(place.scope, place.ticker, place.product)
    held = [h for h in tx.holdings(place.scope, None) if h.ticker == place.ticker]
    own = sum(h.net_quantity for h in held if h.product is place.product)
    busy = any(
        o.purpose is Purpose.EXIT
        and (o.status in UNSETTLED or (o.status in WORKING and open_part(o, book, today)))
        for o in rows
    )
    entries = [o for o in rows if o.purpose is Purpose.ENTRY]
    asked = [o for o in entries if has_asked(o) and o.side.sign * position.net_quantity > 0]
    # What came later may stand where all of theirs was closed since, and has its own legs.
    older = own - sum(o.side.sign * o.filled_quantity for o in entries if _is_later(o, exits[-1]))
    if busy or not asked or position.net_quantity * own <= 0 or position.net_quantity * older <= 0:
        return None
    return Off(position, exits, own, asked[-1], _stop_is_ours(tx, place, exits, today))


def _stop_is_ours(tx: Transaction, place: Place, exits: tuple[Order, ...], today: date) -> bool:
    """By the last that any exit of today has done about the legs there, whatever became of it."""
    here = (place.ticker, place.product)
    ids = [
        o.id
        for o in tx.orders_on(place.scope, today)
        if o.purpose is Purpose.EXIT and (o.ticker, o.product) == here
    ]
    said = tx.events_of(place.scope, ids, ABOUT_LEGS)
    latest = max((words[-1] for words in said.values()), key=lambda e: e.at, default=None)
    if latest is None or latest.event not in OURS:
        return False
    return any(said[o.id][-1].event in OURS for o in exits if o.id in said)


def _is_later(order: Order, than: Order) -> bool:
    """A re-sent exit keeps the time of its birth: it goes by when it was sent."""
    since = than.sent_at or than.created_at
    return bool(order.created_at and since and order.created_at > since)
