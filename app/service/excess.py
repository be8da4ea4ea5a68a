"""Working exits that would close more than is there: taken back, before they open the other side.

An exit rests at the broker, and what it was to close goes another way: by a hand, by a stop that an entry has put on the
whole position meanwhile, by the broker's own square-off. When the price comes back the exit would fill all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import date

from app.domain.audit import Event
from app.domain.order import Order, Purpose, Side
from app.domain.outcome import Accepted, Outcome, Unknown
from app.domain.status import WORKING
from app.service.desk import Desk, event_of
from app.service.exchanger import Exchanger
from app.service.holding import Held, held_by, net_of, open_part
from app.service.ports import Transaction
from app.service.position import Place, Seen
from app.service.records import BookOrder, Holding, Moved, Position, Trade
from app.service.replay import NOBODY

log = logging.getLogger(__name__)

EXCESS = "excess"
"""Why, in the audit event of its cancel."""


@dataclass(frozen=True, slots=True)
class TooMany:
    """An exit that has to go, and what was found."""

    order: Order
    waiting: int
    """Contracts of it that may still fill."""
    found: str


def excess(
    held: Held, orders: Sequence[Order], book: Sequence[BookOrder], trades: Sequence[Trade], today: date
) -> list[TooMany]:
    """The exits without which the others close no more than is there: the smallest that will do, else the newest ones.
    `held`, `orders`: all clients'.

    One that is in doubt counts, and cannot be cancelled.
    """
    found = []
    for side in Side:
        parts = [
            (o, _open(o, book, trades, today)) for o in orders if o.purpose is Purpose.EXIT and o.side is side
        ]
        waiting, room = sum(part for _, part in parts), _room(held, side)
        text = f"exits that wait may {side} {waiting}, and {room} are there to close: the broker's net is {held.net}"
        over = waiting - room
        working = [
            (o, part) for o, part in reversed(parts) if part and o.status in WORKING and o.broker_order_id
        ]
        while over > 0 and working:
            enough = [one for one in working if one[1] >= over]
            order, part = min(enough, key=lambda one: one[1]) if enough else working[0]
            working.remove((order, part))
            found.append(TooMany(order, part, text))
            over -= part
    return found


def excess_by(
    place: Place,
    holdings: Sequence[Holding],
    orders: Sequence[Order],
    book: tuple[BookOrder, ...],
    positions: Sequence[Position],
    today: date,
) -> list[TooMany]:
    """The same by a pass's own readings. What has filled between the two is in it: it shows where to look again."""
    here = [h for h in holdings if (h.ticker, h.product) == (place.ticker, place.product)]
    position = net_of(positions, place.ticker, place.product)
    return excess(held_by(None, here, orders, book, position, today), orders, book, (), today)


def to_take_back(seen: Seen, today: date, lasting: Container[Place | str]) -> list[TooMany]:
    """A net that is below ours, and no trade of today says why, may be an old or an incomplete list, and it is what an exit
    leaves that has filled since the trades were read: then only those in `lasting`, too many for minutes.
    """
    readings = seen.readings
    found = excess(seen.held, seen.orders, readings.book, readings.trades, today)
    return [one for one in found if not seen.unexplained or one.order.id in lasting]


def cancel(exchanger: Exchanger, one: TooMany) -> Outcome:
    """One attempt: the next pass finds it again. One that has filled meanwhile is refused, which does no harm."""
    try:
        return exchanger.cancel(one.order.broker_order_id or "")
    except Exception as error:  # the pass has others to look after
        log.exception("exit %s could not be taken back", one.order.id)
        return Unknown(f"unexpected {type(error).__name__} around the cancel")


def tell(tx: Transaction, desk: Desk, one: TooMany) -> None:
    """Before the first attempt, which may be the last thing that this process does: an exit that was accepted goes."""
    before = tx.events_of(desk.scope, [one.order.id], [Event.ENTRY_CANCEL]).get(one.order.id, ())
    if any(e.detail.get("why") == EXCESS for e in before):
        return
    order = tx.get_order(desk.scope, one.order.id, lock=True) or one.order  # it may have moved meanwhile
    tx.record(order, event_of(Event.ENTRY_CANCEL, tx.now(), order.status, why=EXCESS, reason=one.found))
    text = (
        f"exit {order.id} {order.ticker}, {one.waiting} of {order.quantity} open, is cancelled: {one.found}"
    )
    desk.notifier.notify("exit_cut", f"{text}; what is left needs an EXIT of its own", page=True)


def record_cancel(tx: Transaction, desk: Desk, one: TooMany, outcome: Outcome) -> None:
    """Its end is the book's to tell."""
    order = tx.get_order(desk.scope, one.order.id, lock=True) or one.order  # it may have moved meanwhile
    said, taken = type(outcome).__name__, isinstance(outcome, Accepted)
    event = event_of(Event.ENTRY_CANCEL, tx.now(), order.status, outcome=said, why=EXCESS)
    tx.record(order, event, Moved(reason=f"taken back: {one.found}") if taken else None)


def _open(order: Order, book: Sequence[BookOrder], trades: Sequence[Trade], today: date) -> int:
    """What may still fill, by the trades too: they are read after the book, and what they show is in the net."""
    traded = sum(t.quantity for t in trades if t.broker_order_id == order.broker_order_id)
    return min(open_part(order, book, today), max(0, order.quantity - traded))


def _room(held: Held, side: Side) -> int:
    """What exits on `side` may close: of what is ours as much as the broker shows. What one client holds on the one side
    is in its net taken off what another holds on the other.
    """
    sign = side.opposite.sign
    opposite = sum(abs(own) for who, own in held.owners if who != NOBODY and own * sign < 0)
    return max(0, min(held.own * sign, held.net * sign) + opposite)
