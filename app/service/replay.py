"""Today's fills in one contract and product, played again in their order: what of our own is still there. Pure.

The broker keeps one net per contract and product, whoever traded. Looking only at the net of this moment, a position
that a hand opened after our stop had filled would be taken for ours. The trade book knows the order of things: each
time the net falls below what our orders hold, ours is what went.

Quantities are signed: long above zero, short below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from app.domain.alert import Product
from app.domain.order import Order
from app.service.records import BookOrder, Trade
from app.service.settle import looks_like

Own = Mapping[str, int]
"""Signed quantity per client."""
NOBODY = ""
"""The client of a lowering that is known to have happened, and not whose it was."""


def nearer(first: int, second: int) -> int:
    """The smaller of two signed holdings; zero when they are on opposite sides."""
    if first * second <= 0:
        return 0
    return min(first, second, key=abs)


def owners_at_broker(orders: Iterable[Order], rows: Iterable[BookOrder]) -> dict[str, str]:
    """Client by broker order id: of our own orders, by id or tag, and of the legs that are their children."""
    orders = tuple(orders)
    by_tag = {o.tag.upper(): o for o in orders if o.product.takes_tag}
    owners = {o.broker_order_id: o.client for o in orders if o.broker_order_id}
    rows = tuple(rows)
    for row in rows:
        ours = by_tag.get(row.tag.upper()) if row.tag and row.parent_id is None else None
        if ours is not None:
            owners[row.broker_order_id] = ours.client
    for order in orders:
        if order.product.takes_tag or order.broker_order_id or not order.filled_quantity:
            continue  # what is left was settled by a person, who did not have to say which row it is
        fits = (r for r in rows if r.broker_order_id not in owners and looks_like(r, order))
        one = next((r for r in fits if r.filled_quantity), None)
        if one is not None:
            owners[one.broker_order_id] = order.client
    for row in rows:
        if row.parent_id in owners:
            owners[row.broker_order_id] = owners[row.parent_id]
    return owners


def has_foreign_fills(
    orders: Iterable[Order], book: Iterable[BookOrder], ticker: str, product: Product
) -> bool:
    """Whether somebody else's order has filled here today: a hand's, a leg's, the broker's own square-off."""
    here = [r for r in book if r.ticker == ticker and r.product == product.value]
    ours = {o.broker_order_id for o in orders if o.broker_order_id}
    tags = {o.tag.upper() for o in orders if o.product.takes_tag}
    return any(
        r.filled_quantity
        and r.broker_order_id not in ours
        and not (r.tag and r.tag.upper() in tags and r.parent_id is None)
        for r in here
    )


def replayed(before: Own, owners: Mapping[str, str], trades: Sequence[Trade], net: int) -> dict[str, int]:
    """What each client's orders still hold after today's fills. `before`: what they held when the day began; `net`: the
    account's after all of them.
    """
    own = dict(before)
    net -= sum(t.side.sign * t.quantity for t in trades)
    opening = sum(own.values())
    own[NOBODY] = own.get(NOBODY, 0) + nearer(opening, net) - opening  # what went while nobody looked
    for trade in trades:
        signed = trade.side.sign * trade.quantity
        net += signed
        client = owners.get(trade.broker_order_id)
        if client is not None:
            own[client] = own.get(client, 0) + signed
        total = sum(own.values())
        own[NOBODY] = own.get(NOBODY, 0) + nearer(total, net) - total
    return {client: quantity for client, quantity in own.items() if quantity}


def lowering(rows: Own, total: int, replay: Own | None) -> dict[str, int]:
    """Signed deltas that bring the sum of `rows` to `total` (nearer to zero than it is).

    What today's trades pin on a client (its own legs) is that client's, and the rest the only holder's. With several
    holders nobody knows whose position went: it is booked on NOBODY, so that whoever exits first gets what is left,
    and is pinned on a client as soon as that one's rows are more than all that is left.
    """
    held, left = sum(rows.values()), dict(rows)
    sign, excess = (1 if held > 0 else -1), abs(held) - abs(total)
    holders = sorted(who for who, quantity in rows.items() if who != NOBODY and quantity * sign > 0)
    for who in holders if replay is not None else ():
        over = left[who] * sign - max(0, (replay or {}).get(who, 0) * sign)
        taken = max(0, min(over, excess))
        left[who] -= sign * taken
        excess -= taken
    rest = holders[0] if len(holders) == 1 else NOBODY
    left[rest] = left.get(rest, 0) - sign * max(0, excess)
    for who in holders:
        over = min(left[who] * sign - abs(total), -left.get(NOBODY, 0) * sign)
        if over > 0:
            left[who] -= sign * over
            left[NOBODY] += sign * over
    return {who: left[who] - rows.get(who, 0) for who in sorted(left) if left[who] != rows.get(who, 0)}


class Closings:
    """At which prices what was ours was closed by fills of others: a protective leg's, a hand's, the broker's own.

    The newest fills first, because a lowering is found within seconds of them; each counts for one lowering only.
    """

    def __init__(self, trades: Sequence[Trade], owners: Mapping[str, str], children: Collection[str]) -> None:
        """`children`: ids of orders that are the legs of others."""
        self._trades, self._owners, self._children = trades, owners, children
        self._left = [trade.quantity for trade in trades]

    def price_of(self, client: str, delta: int) -> Decimal | None:
        """The average price, to the paisa's hundredth, of `delta`; None when the fills do not cover it all."""
        wanted, paid = abs(delta), Decimal(0)
        for place in reversed(range(len(self._trades))):
            trade = self._trades[place]
            if trade.price is None or trade.side.sign * delta < 0 or not self._closes(trade, client):
                continue
            taken = min(wanted, self._left[place])
            self._left[place] -= taken
            wanted -= taken
            paid += taken * trade.price
        return None if wanted or not delta else (paid / abs(delta)).quantize(Decimal("0.0001"))

    def _closes(self, trade: Trade, client: str) -> bool:
        owner = self._owners.get(trade.broker_order_id)
        return owner is None or (trade.broker_order_id in self._children and owner == client)
