"""A stop that came to cover what an exit is closing: made to cover the rest alone.

An exit takes the legs off, or leaves them on what it will not close. An entry that fills while that exit still rests at
its protection price brings legs of its own, and they stand on the whole position (fyers-api.md 2.3): stop and exit
together would close more than there is, and open the other side.

It goes by numbers and by no times: what the resting exits will leave now, against what was last said that they would
leave. Whoever says so may say it late, after a fill that he did not know of. So a stop over too little, after one of two
exits has ended unfilled, is made to cover the rest too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Purpose, Scope
from app.domain.outcome import Accepted, NotSent, Outcome, Unknown
from app.domain.status import UNSETTLED, Status
from app.errors import BrokerReadFailed
from app.service.desk import Desk
from app.service.exchanger import Exchanger
from app.service.holding import net_of, open_part
from app.service.legs import said_of_legs
from app.service.ports import Transaction
from app.service.position import Place, if_free
from app.service.records import AuditEvent, BookOrder, Position
from app.service.relegs import ABOUT_LEGS, OURS, has_asked

log = logging.getLogger(__name__)

LEAVES, TRIED = "leaves", "tried"
"""In the detail of what is said of legs: contracts that the exits were to leave, and that a stop over too much stands
there still, of which a person has heard."""


@dataclass(frozen=True, slots=True)
class Wide:
    """A position of ours whose stop covers what `exits` are closing too."""

    position: Position
    exits: tuple[Order, ...]
    rest: int
    """Contracts that stay when they have filled."""
    asked: Order | None
    """The latest own entry that asked for protection: its distances are what is set. None: what stands there is a hand's."""
    said: AuditEvent | None
    """The last word on the legs there: that of `newest`."""
    newest: Order
    """Of today's exits there, ended ones too, the last that was at the legs."""

    @property
    def is_ours(self) -> bool:
        """We have put it there while these rested."""
        return self.said is not None and self.said.event in OURS

    @property
    def is_told(self) -> bool:
        return self.said is not None and TRIED in self.said.detail


def narrow_stops(
    desk: Desk,
    exchanger: Exchanger,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    began: datetime,
) -> bool:
    """Once for each change of what the resting exits will leave under a stop. `book` and `positions` were read after
    `began`, and what the book says of fills is recorded.

    Whether anything was tried: the positions are to be read again then.
    """
    today, tried = ist_date(began), False
    with desk.store.read() as tx:
        places = {Place(desk.scope, o.ticker, o.product) for o in _resting(tx, desk.scope, book, today)}
        places = {p for p in places if _wide(tx, p, book, positions, today)}
    for place in sorted(places, key=lambda p: p.lease):
        with if_free(desk, place) as is_free:
            if is_free:
                tried = _look_again(desk, exchanger, place, book, positions, today) or tried
    return tried


def _look_again(
    desk: Desk,
    exchanger: Exchanger,
    place: Place,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    today: date,
) -> bool:
    """Under the place's lease, by a book from after the positions: an exit that has filled between them is no part of
    that net any more.
    """
    try:
        later = exchanger.order_book()
    except BrokerReadFailed as error:
        log.warning("the stop beside an exit in %s waits for the next pass: %s", place.ticker, error.detail)
        return False
    with desk.store.read() as tx:
        wide = _wide(tx, place, later, positions, today)
    if wide is None or not _is_same(wide, book, later, today):
        return False
    _narrow(desk, exchanger, place, wide)
    return True


def _narrow(desk: Desk, exchanger: Exchanger, place: Place, wide: Wide) -> None:
    before = {LEAVES: wide.said.detail.get(LEAVES, "") if wide.said is not None else ""}
    if _can_set(wide) and not wide.is_ours:
        # Should this process end in between, what it set is ours, and all is covered again when the exit ends (`relegs`).
        _record(desk, wide, Event.LEG_CHANGING, before)
    outcome = _set(exchanger, wide) if _can_set(wide) else None
    if isinstance(outcome, Accepted):
        event = Event.LEG_RESTORED if wide.rest else Event.LEG_CANCELLED
        _record(desk, wide, event, {LEAVES: str(wide.rest)})
        return
    # Not taken off instead: the rest would stand there without a stop, which is the likelier loss.
    if not wide.is_told:
        _tell(desk, place, wide)
    if not isinstance(outcome, Unknown | NotSent):
        _record(desk, wide, Event.PROTECTION_SEEN, {LEAVES: str(wide.rest), TRIED: "1"})
    elif not (wide.is_told and wide.is_ours):
        # It is said again at the next pass: it is an amount, and no change of one.
        _record(desk, wide, Event.LEG_CHANGING, before | {TRIED: "1"})


def _record(desk: Desk, wide: Wide, event: Event, detail: dict[str, str]) -> None:
    orders = {o.id: o for o in (*wide.exits, wide.newest)}
    with desk.store.write() as tx:
        for order in sorted(orders.values(), key=lambda o: o.id):  # as all who take several rows
            tx.record(order, said_of_legs(event, tx.now(), order, **detail))


def _can_set(wide: Wide) -> bool:
    """Without an own stop's distances, or where only a stop of unknown origin is one too many, a person is asked."""
    return wide.asked is not None and bool(wide.rest or wide.is_ours)


def _set(exchanger: Exchanger, wide: Wide) -> Outcome:
    assert wide.asked is not None
    stop, target = wide.asked.stop_distance or Decimal(0), wide.asked.target_distance or Decimal(0)
    if not wide.rest:
        stop = target = Decimal(0)
    try:
        return exchanger.set_protection(wide.position.id, stop, target, wide.rest or None)
    except Exception as error:  # the pass has more to do than this
        log.exception("the stop beside exit %s could not be set", wide.exits[-1].id)
        return Unknown(f"unexpected {type(error).__name__}")


def _tell(desk: Desk, place: Place, wide: Wide) -> None:
    what = f"have the stop cover {wide.rest}" if wide.rest else "take the stop off"
    text = (
        f"{place.ticker}: exit {wide.exits[-1].id} rests, and the stop beside it covers the same contracts: both "
        f"would open the other side. Cancel the exit, or {what}"
    )
    desk.notifier.notify("stop_beside_exit", text, page=True)


def _resting(tx: Transaction, scope: Scope, book: Sequence[BookOrder], today: date) -> list[Order]:
    """Exits that may still fill, oldest first."""
    exits = (o for o in tx.open_orders(scope) if o.purpose is Purpose.EXIT and o.product.takes_tag)
    return [o for o in exits if open_part(o, book, today)]


def _wide(
    tx: Transaction, place: Place, book: Sequence[BookOrder], positions: Iterable[Position], today: date
) -> Wide | None:
    position = net_of(positions, place.ticker, place.product)
    if position is None or not position.has_stop:
        return None
    rows, net = tx.orders_in(place.scope, place.ticker, place.product), position.net_quantity
    exits = tuple(o for o in rows if o.purpose is Purpose.EXIT and open_part(o, book, today))
    exits = tuple(o for o in exits if o.side.sign * net < 0)
    # One in doubt may fill as well; beside none that rests for certain its own sender has told a person.
    if all(o.status in UNSETTLED for o in exits) or any(o.status is Status.SENDING for o in exits):
        return None
    here = (place.ticker, place.product)
    own = sum(h.net_quantity for h in tx.holdings(place.scope, None) if (h.ticker, h.product) == here)
    rest = min(abs(own), abs(net)) - sum(open_part(o, book, today) for o in exits)
    if rest < 0 or own * net <= 0:
        return None  # of an exit that is larger than what is left `excess` is told
    newest, last = _last_word(tx, place, exits, today)
    # The same as it was: the stop was put there for these exits, or by a hand that knows of them. Beside an exit of all
    # there should be none.
    if last is not None and last.detail.get(LEAVES) == str(rest) and (rest or TRIED in last.detail):
        return None
    entries = [o for o in rows if o.purpose is Purpose.ENTRY and o.filled_quantity and o.side.sign * net > 0]
    asked = entries[-1] if entries and has_asked(entries[-1]) else None
    return Wide(position, exits, rest, asked, last, newest)


def _last_word(
    tx: Transaction, place: Place, exits: Sequence[Order], today: date
) -> tuple[Order, AuditEvent | None]:
    """None: its sender died before he could say so."""
    here, resting = (place.ticker, place.product, exits[-1].side), {o.id for o in exits}
    todays = [
        o
        for o in tx.orders_on(place.scope, today)
        if o.purpose is Purpose.EXIT and (o.ticker, o.product, o.side) == here
    ]
    said = tx.events_of(place.scope, [o.id for o in todays], ABOUT_LEGS)
    last = [o for o in todays if o.id in said or o.id in resting]
    newest = max(last, key=lambda o: (_sent(o), o.id))
    return newest, said[newest.id][-1] if newest.id in said else None


def _sent(order: Order) -> float:
    """One that waited, or came again, keeps the time of its birth."""
    at = order.sent_at or order.created_at
    return at.timestamp() if at is not None else 0.0


def _is_same(wide: Wide, book: Sequence[BookOrder], later: Sequence[BookOrder], today: date) -> bool:
    """Whether nothing of these exits has filled since our rows were brought to the book: else the next pass has it right."""
    return all(open_part(o, book, today) == open_part(o, later, today) for o in wide.exits)
