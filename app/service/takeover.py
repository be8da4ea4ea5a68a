"""What several clients hold, in the hands of an operator's one exit of all of it; and theirs again if nothing came of it."""

from __future__ import annotations

from dataclasses import replace

from app.domain.alert import ADMIN_CLIENT
from app.domain.order import Order, Purpose
from app.service.holding import Held
from app.service.ports import Transaction

TAKEN = "taken over by the exit {} of all clients"
GIVEN = "given back: the exit {} of all clients was not made"


def _of(words: str, order: Order) -> str:
    """An exit that was not sent takes over again with its next attempt."""
    return words.format(order.id if order.attempt == 1 else f"{order.id}, attempt {order.attempt},")


def take_over(tx: Transaction, order: Order, held: Held, *, all_clients: bool) -> Order:
    """The order in the name that it closes under: its client's, or an operator's that the holdings then stand under."""
    if not all_clients:
        return order
    if len(held.owners) == 1:
        return replace(order, client=held.owners[0][0])
    for client, own in held.owners:
        if client != order.client:
            for name, delta in ((client, -own), (order.client, own)):
                tx.adjust_holding(order.scope, name, order.ticker, order.product, delta, _of(TAKEN, order))
    return order


def give_back(tx: Transaction, order: Order) -> None:
    """An exit that was refused, or not sent, closes nothing: each holder's own exit must find what is held. Twice is once."""
    if order.client != ADMIN_CLIENT or order.purpose is not Purpose.EXIT or order.filled_quantity:
        return
    reasons = (_of(TAKEN, order), _of(GIVEN, order))
    for holding in tx.adjusted(order.scope, reasons):
        tx.adjust_holding(
            order.scope, holding.client, holding.ticker, holding.product, -holding.net_quantity, reasons[1]
        )


def take_again(tx: Transaction, order: Order) -> None:
    """The exit was made after all: what was given back is its again. Twice is once."""
    if order.client != ADMIN_CLIENT or order.purpose is not Purpose.EXIT:
        return
    taken, given = _of(TAKEN, order), _of(GIVEN, order)
    if tx.adjusted(order.scope, (taken, given)):
        return  # it still is
    for holding in tx.adjusted(order.scope, (taken,)):
        tx.adjust_holding(
            order.scope, holding.client, holding.ticker, holding.product, holding.net_quantity, given
        )
