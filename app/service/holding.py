"""What is held, computed from the order book, the positions and our own rows. Pure: no port is called here.

Quantities are signed where named `net`, `own` or `held`: long above zero, short below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from app.domain.alert import Product
from app.domain.order import Order, Purpose
from app.domain.status import UNSETTLED, WORKING, Status
from app.service.records import BookOrder, Holding, Position
from app.service.replay import lowering, nearer

MAYBE_LIVE = UNSETTLED | WORKING | {Status.NEEDS_REVIEW}


@dataclass(frozen=True, slots=True)
class Held:
    """One client's share (or all clients') of one contract and product."""

    quantity: int
    """Signed: what an exit may close now."""
    own: int
    """Signed: what our filled orders hold, before anything is subtracted."""
    net: int
    """Signed: the broker's net, whoever opened it."""
    pending_exits: int
    """Quantity of the client's exits that may still fill."""
    others_pending: int
    """The same of all clients, this one included."""
    lowered: tuple[tuple[str, int], ...]
    """Signed delta, towards zero, per client whose own holding the broker's net or today's trades disprove. Empty
    while anything of ours can still move: a fill between two reads looks like a hand otherwise.
    """
    owners: tuple[tuple[str, int], ...]
    """Signed own holding per client."""

    @property
    def waits_for_exit(self) -> bool:
        """Zero only because exits under way are subtracted."""
        both = nearer(self.own, self.net)
        return self.quantity == 0 and both != 0 and self.others_pending > 0


def book_row(order: Order, book: Iterable[BookOrder]) -> BookOrder | None:
    """The order's row in today's book, by the broker's id, else by our tag (compared without case), else, where there is
    no tag, by what stands before the `-` of its id.
    """
    found, own_id = None, order.broker_order_id
    tag = order.tag.upper() if order.product.takes_tag else None
    for row in book:
        if own_id is not None and row.broker_order_id == own_id:
            return row
        if row.parent_id is not None:
            continue
        if tag is None and own_id is not None and bare(row.broker_order_id) == own_id:
            found = row
        if tag is not None and row.tag and row.tag.upper() == tag:
            found = row
    return found


def bare(ident: str) -> str:
    """What the answer to a BO or CO may call `25070400129405-BO-1`: nobody has seen both (fyers-api.md 2.1, 2.3)."""
    return ident.partition("-")[0]


def reduced(holding: int, by: int) -> int:
    """A signed holding less `by` contracts, never past zero."""
    sign = 1 if holding > 0 else -1
    return sign * max(0, abs(holding) - by)


def filled(order: Order, row: BookOrder | None) -> int:
    """The most that either our row or the book knows of."""
    return max(order.filled_quantity, row.filled_quantity if row else 0)


def open_part(order: Order, book: Sequence[BookOrder], today: date) -> int:
    """What of an order may still fill. A DAY order of an earlier date is over."""
    if order.status not in MAYBE_LIVE or order.ist_date != today:
        return 0
    row = book_row(order, book)
    if row is not None and not row.is_working:
        return 0
    return max(0, order.quantity - filled(order, row))


def leaving_by_client(orders: Iterable[Order], book: Sequence[BookOrder], today: date) -> dict[str, int]:
    """What each client's own exits may still close."""
    found: dict[str, int] = {}
    for order in orders:
        if order.purpose is Purpose.EXIT:
            found[order.client] = found.get(order.client, 0) + open_part(order, book, today)
    return found


def net_of(positions: Iterable[Position], ticker: str, product: Product) -> Position | None:
    return next((p for p in positions if p.ticker == ticker and p.product == product.value), None)


def own_by_client(
    holdings: Iterable[Holding], orders: Iterable[Order], book: Sequence[BookOrder]
) -> dict[str, int]:
    """Our rows' holdings, plus what the book knows to be filled and our rows do not yet."""
    own: dict[str, int] = {}
    for holding in holdings:
        own[holding.client] = own.get(holding.client, 0) + holding.net_quantity
    for order in orders:
        more = filled(order, book_row(order, book)) - order.filled_quantity
        own[order.client] = own.get(order.client, 0) + order.side.sign * more
    return {client: quantity for client, quantity in own.items() if quantity}


def held_by(
    client: str | None,
    holdings: Iterable[Holding],
    orders: Sequence[Order],
    book: Sequence[BookOrder],
    position: Position | None,
    today: date,
    replay: dict[str, int] | None = None,
) -> Held:
    """What `client` (None: all) holds. `holdings` and `orders` are all clients', of one contract and product.

    `replay`: what today's trades say that each client still holds (replay.replayed), where somebody else traded too.
    """
    rows = own_by_client(holdings, orders, book)
    net = position.net_quantity if position else 0
    total = sum(rows.values())
    if replay is not None:
        total = nearer(total, sum(replay.values()))
    own = total if client is None else nearer(rows.get(client, 0), total)
    exits = [o for o in orders if o.purpose is Purpose.EXIT]
    all_pending = sum(open_part(o, book, today) for o in exits)
    pending = sum(open_part(o, book, today) for o in exits if client is None or o.client == client)
    busy = any(open_part(o, book, today) for o in orders)
    deltas = {} if busy else lowering(rows, nearer(total, net), replay)
    return Held(
        quantity=nearer(reduced(own, pending), reduced(net, all_pending)),
        own=own,
        net=net,
        pending_exits=pending,
        others_pending=all_pending,
        lowered=tuple(deltas.items()),
        owners=tuple(sorted(rows.items())),
    )


def without_exit(held: Held, part: int) -> Held:
    """The same once an exit, of which `part` may still fill, is cancelled."""
    own, all_own = held.pending_exits - part, held.others_pending - part
    quantity = nearer(reduced(held.own, own), reduced(held.net, all_own))
    return replace(held, quantity=quantity, pending_exits=own, others_pending=all_own)


def legs_shown(position: Position | None, orders: Iterable[Order], book: Iterable[BookOrder]) -> bool:
    """Whether the broker shows protective legs: on the position, or as working children of our entries."""
    if position is not None and (position.has_stop or position.has_target):
        return True
    ours = {o.broker_order_id for o in orders if o.broker_order_id}
    return any(row.is_working and row.parent_id in ours for row in book)


def stop_shown(position: Position | None, orders: Iterable[Order], book: Iterable[BookOrder]) -> bool:
    """Whether the broker holds a stop that still works: on the position, or as a child of our entries. A target alone
    protects nothing, and neither does a leg that was rejected or cancelled.
    """
    if position is not None and position.has_stop:
        return True
    ours = {o.broker_order_id for o in orders if o.broker_order_id}
    return any(row.is_working and row.is_stop and row.parent_id in ours for row in book)
