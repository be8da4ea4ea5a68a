"""How much an exit sends: never more than is held, and every cut is said."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.alert import Action
from app.domain.order import Order, Side
from app.domain.risk import Denial
from app.service.holding import Held
from app.service.intent import Job


@dataclass(frozen=True, slots=True)
class Amount:
    quantity: int
    warnings: tuple[str, ...]


def asked_of(job: Job, lot: int) -> int:
    return job.alert.qty or (job.alert.lots or 0) * lot


def is_entry(held: Held, side: Side | None, waiting: list[Order]) -> bool:
    """Whether a BUY or SELL that our rows called an exit adds to what is held on its own side.

    Where nothing is held any more it stays an exit, of nothing: its stop has just filled, or the entry on the other side
    came to nothing, and sent as an entry it would open a position where one was to be closed.
    """
    return side is not None and not waiting and held.own * side.sign > 0


def how_much(job: Job, lot: int, freeze: int | None, held: int, meant: int = 0) -> Amount | Denial:
    """Contracts to send: what was asked, cut to what is held, to the freeze quantity, to whole lots.

    `meant`: what a BUY or SELL may know of as held (`under_way.meant_for`). Up to that it is an exit of all there is; for
    more it is a reversal.
    """
    if held == 0:
        return Denial("nothing_to_exit", "nothing of this client's orders is held, and nothing is under way")
    asked, warnings = asked_of(job, lot), []
    if job.alert.action is not Action.EXIT and asked > max(held, meant):
        return Denial(
            "exceeds_position",
            f"quantity {asked} is more than the {held} held: a reversal needs an exit and an entry; "
            f"allowed would be {held}",
        )
    quantity = min(asked, held) if asked else held
    if asked > held:
        warnings.append(f"quantity {asked} is more than the {held} held: cut to {held}")
    if freeze is not None and job.alert.product.takes_tag and quantity > freeze:
        most = max(freeze // lot * lot, min(freeze, lot))
        warnings.append(f"quantity {quantity} is above the freeze quantity {freeze}: {most} sent, exit again")
        quantity = most
    if quantity % lot:
        below = quantity // lot * lot
        warnings.append(f"quantity {quantity} is not whole lots of {lot}: {below or quantity} sent")
        quantity = below or quantity
    return Amount(quantity, tuple(warnings))


def is_cut(job: Job, order: Order, held: int) -> bool:
    """Whether less goes than there is of what was asked, while nobody waits to read it: an alert's sender reads no answer,
    and of an exit that waited whoever runs it tells.
    """
    asked = asked_of(job, order.lot)
    wanted = min(asked, held) if asked else held
    return order.quantity < wanted and not job.all_clients and job.retake is None


def bracket_denial(order: Order, amount: Amount, held: Held) -> Denial | None:
    whole = held.own == held.net == held.quantity and amount.quantity == abs(held.net)
    if order.product.takes_tag or whole:
        return None
    return Denial(
        "exit_unsupported",
        f"{order.product} can be closed only as a whole position: own {held.own}, the broker's net {held.net}, "
        f"asked {amount.quantity}",
    )
