"""What several clients hold, in the hands of an operator's one exit of all of it; and theirs again as far as it closed
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.alert import ADMIN_CLIENT, Product
from app.domain.order import Order, Purpose, Scope
from app.domain.status import Status
from app.service.holding import Held, reduced
from app.service.ports import Transaction
from app.service.records import Holding
from app.service.replay import nearer

TAKEN = "taken over by the exit {} of all clients"
GIVEN = "given back: the exit {} of all clients was not made"
OVER = frozenset({Status.CANCELLED, Status.EXPIRED, Status.REJECTED, Status.NOT_PLACED, Status.NOT_SENT})
"""Nothing more is closed by an exit in one of these, as far as is known."""


def _of(words: str, order: Order) -> str:
    """An exit that was not sent takes over again with its next attempt."""
    return words.format(order.id if order.attempt == 1 else f"{order.id}, attempt {order.attempt},")


def exit_of(reason: str) -> str | None:
    """Id of the exit that an adjustment with this reason was made for; None: it was made for something else."""
    for words in (TAKEN, GIVEN):
        before, after = words.split("{}")
        if reason.startswith(before) and reason.endswith(after):
            return reason.removeprefix(before).removesuffix(after).partition(",")[0]
    return None


def closed_of(order: Order, handed: Mapping[str, int]) -> dict[str, int]:
    """Signed contracts that an operator's exit has closed of each holder's. `handed`: what it took over from each, less
    what it gave back. What a working one has not filled yet is of the last holders, to whom `share_out` would give it.
    """
    unfilled = 0 if order.status in OVER else order.quantity - order.filled_quantity
    closed = {}
    for client, net in sorted(handed.items(), reverse=True):
        waits = nearer(net, order.side.sign * unfilled)
        unfilled -= abs(waits)
        closed[client] = net - waits
    return closed


def take_over(
    tx: Transaction, order: Order, held: Held, leaving: Mapping[str, int], *, all_clients: bool
) -> Order:
    """The order in the name that it closes under: its client's, or an operator's that as much of the holdings as it
    sends stands under then. `leaving`: what exits of each client's own are closing.
    """
    if not all_clients:
        return order
    if len(held.owners) == 1:
        return replace(order, client=held.owners[0][0])
    left, free = order.quantity, [(c, reduced(own, leaving.get(c, 0))) for c, own in held.owners]
    closes_all = left >= abs(sum(own for _, own in free))
    for client, own in free:
        part = own if closes_all else nearer(own, -order.side.sign * left)
        left -= abs(part)
        if client != order.client:
            _hand_over(tx, order, Holding(client, order.ticker, order.product, part), _of(TAKEN, order))
    return order


def share_out(tx: Transaction, order: Order) -> None:
    """What an operator's exit can close no more is its holders' again, and what it closes after all is not: each
    holder's own exit must find what is held. Twice is once.
    """
    if order.client != ADMIN_CLIENT or order.purpose is not Purpose.EXIT:
        return
    unfilled = order.quantity - order.filled_quantity if order.status in OVER else 0
    taken, given = _of(TAKEN, order), _of(GIVEN, order)
    back = {h.client: h.net_quantity for h in _others(tx, order, given)}
    for holding in reversed(_others(tx, order, taken)):
        wanted = nearer(-holding.net_quantity, unfilled if holding.net_quantity < 0 else -unfilled)
        unfilled -= abs(wanted)
        if order.status in OVER and not order.filled_quantity:
            wanted = -holding.net_quantity
        more = back.get(holding.client, 0) - wanted
        _hand_over(tx, order, replace(holding, net_quantity=more), given)


def in_hands(tx: Transaction, scope: Scope, client: str, ticker: str, product: Product) -> int:
    """Signed contracts of a client's that an operator's exit, which is not over yet, may be closing."""
    exits = [o for o in tx.open_orders(scope, ADMIN_CLIENT, ticker=ticker) if o.product is product]
    return -sum(h.net_quantity for o in exits for h in _of_one(tx, o, client))


def exits_in_hands(tx: Transaction, scope: Scope, client: str) -> list[Order]:
    """The operator's exits that have something of this client's."""
    return [o for o in tx.open_orders(scope, ADMIN_CLIENT) if _of_one(tx, o, client)]


def _of_one(tx: Transaction, order: Order, client: str) -> list[Holding]:
    if order.purpose is not Purpose.EXIT or client == ADMIN_CLIENT:
        return []
    reasons = (_of(TAKEN, order), _of(GIVEN, order))
    return [h for h in tx.adjusted(order.scope, reasons) if h.client == client]


def _others(tx: Transaction, order: Order, reason: str) -> list[Holding]:
    return [h for h in tx.adjusted(order.scope, (reason,)) if h.client != ADMIN_CLIENT]


def _hand_over(tx: Transaction, order: Order, part: Holding, reason: str) -> None:
    """From one client to the operator, both in the same transaction."""
    if not part.net_quantity:
        return
    for name, delta in ((part.client, -part.net_quantity), (order.client, part.net_quantity)):
        tx.adjust_holding(order.scope, name, order.ticker, order.product, delta, reason)
