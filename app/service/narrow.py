"""A stop that came to cover what an exit is closing: made to cover the rest alone.

An exit takes the legs off, or leaves them on what it will not close. An entry that fills while that exit still rests at
its protection price brings legs of its own, and they stand on the whole position (fyers-api.md 2.3): stop and exit
together would close more than there is, and open the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection, Purpose, Scope
from app.domain.outcome import Accepted
from app.domain.status import UNSETTLED
from app.service.desk import Desk
from app.service.exchanger import Exchanger
from app.service.holding import net_of, open_part
from app.service.legs import said_of_legs
from app.service.ports import Transaction
from app.service.position import Place
from app.service.records import BookOrder, Position
from app.service.relegs import ABOUT_LEGS, LEASE

FILLS = (Event.ORDER_FILLED, Event.ORDER_PARTIALLY_FILLED)


@dataclass(frozen=True, slots=True)
class Wide:
    """A position of ours whose stop covers what `exits` are closing too."""

    position: Position
    exits: tuple[Order, ...]
    rest: int
    """Contracts that stay when they have filled."""
    asked: Order
    """The latest own entry that asked for protection: its distances are what is set."""


def narrow_stops(
    desk: Desk,
    exchanger: Exchanger,
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    began: datetime,
) -> bool:
    """Once for each fill that brought legs while an exit rests. `book` and `positions` were read after `began`, and what
    the book says of fills is recorded.

    Whether anything was tried: the positions are to be read again then.
    """
    today, tried = ist_date(began), False
    with desk.store.read() as tx:
        places = {Place(desk.scope, o.ticker, o.product) for o in _resting(tx, desk.scope, book, today)}
        places = {p for p in places if _wide(tx, p, book, positions, today)}
    for place in sorted(places, key=lambda p: p.lease):
        owner = desk.random_bytes(8).hex()
        if not desk.store.take_lock(place.lease, owner, LEASE, Deadline(desk.clock.monotonic())):
            continue  # another exit is at it, and takes the legs off itself
        try:
            with desk.store.read() as tx:
                wide = _wide(tx, place, book, positions, today)
            if wide is not None:
                _narrow(desk, exchanger, place, wide)
                tried = True
        finally:
            with desk.store.write() as tx:
                tx.free_lock(place.lease, owner)
    return tried


def _narrow(desk: Desk, exchanger: Exchanger, place: Place, wide: Wide) -> None:
    stop, target = wide.asked.stop_distance or Decimal(0), wide.asked.target_distance or Decimal(0)
    is_narrow = isinstance(exchanger.set_protection(wide.position.id, stop, target, wide.rest), Accepted)
    if not is_narrow:
        # Not taken off instead: the rest would stand there without a stop, which is the likelier loss.
        text = (
            f"{place.ticker}: exit {wide.exits[-1].id} rests, and the stop beside it covers the same contracts: "
            f"both would open the other side. Cancel the exit, or have the stop cover {wide.rest}"
        )
        desk.notifier.notify("stop_beside_exit", text, page=True)
    event = Event.LEG_RESTORED if is_narrow else Event.PROTECTION_SEEN
    with desk.store.write() as tx:
        for order in sorted(wide.exits, key=lambda o: o.id):  # as all who take several rows
            tx.record(order, said_of_legs(event, tx.now(), order))


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
    rows = tx.orders_in(place.scope, place.ticker, place.product)
    exits = tuple(o for o in rows if o.purpose is Purpose.EXIT and open_part(o, book, today))
    asked = [o for o in rows if _asked(o)]
    if not exits or not asked or any(o.status in UNSETTLED for o in exits):
        return None
    if not _has_filled_since(tx, place.scope, asked, _legs_dealt_with(tx, place.scope, exits)):
        return None  # whatever stop there is, the exit has left it, or a hand has set it
    own = sum(
        h.net_quantity
        for h in tx.holdings(place.scope, None)
        if (h.ticker, h.product) == (place.ticker, place.product)
    )
    rest = min(abs(own), abs(position.net_quantity)) - sum(open_part(o, book, today) for o in exits)
    if rest <= 0 or own * position.net_quantity <= 0:
        return None
    return Wide(position, exits, rest, asked[-1])


def _asked(order: Order) -> bool:
    return (
        order.purpose is Purpose.ENTRY
        and order.filled_quantity > 0
        and order.protection is not Protection.NONE
    )


def _legs_dealt_with(tx: Transaction, scope: Scope, exits: Sequence[Order]) -> datetime | None:
    """When one of these last took the legs off or put them on the rest."""
    said = tx.events_of(scope, [o.id for o in exits], ABOUT_LEGS)
    times = [words[-1].at for words in said.values()]
    # A sender that died right after it said nothing of the legs.
    times += [o.sent_at for o in exits if o.id not in said and o.sent_at is not None]
    return max(times, default=None)


def _has_filled_since(
    tx: Transaction, scope: Scope, entries: Sequence[Order], since: datetime | None
) -> bool:
    fills = tx.events_of(scope, [o.id for o in entries], FILLS)
    return since is not None and any(words[-1].at > since for words in fills.values())
