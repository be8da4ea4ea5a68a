"""How much an exit sends: never more than is held, and every cut is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.domain.alert import Action
from app.domain.order import Order, Side
from app.domain.risk import Denial
from app.errors import NotReconciled
from app.service.holding import Held, reduced
from app.service.intent import Job
from app.service.ports import Transaction
from app.service.position import Seen
from app.service.under_way import UnderWay, for_exit, meant_for

PENDING = Denial("exit_pending", "")
"""Not a no: the exit waits."""


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
    and of an exit that waited whoever runs it tells. `held`: `to_close`.
    """
    return (
        order.quantity < min(asked_of(job, order.lot) or held, held)
        and not job.all_clients
        and job.retake is None
    )


def bracket_denial(order: Order, amount: Amount, held: Held) -> Denial | None:
    whole = held.own == held.net == held.quantity and amount.quantity == abs(held.net)
    if order.product.takes_tag or whole:
        return None
    return Denial(
        "exit_unsupported",
        f"{order.product} can be closed only as a whole position: own {held.own}, the broker's net {held.net}, "
        f"asked {amount.quantity}",
    )


def sized(
    tx: Transaction,
    job: Job,
    order: Order,
    freeze: int | None,
    seen: Seen,
    under_way: UnderWay,
    cancelled: list[Order],
) -> tuple[Order, Denial | None]:
    """The exit with its quantity, or with why it cannot go: PENDING, or a "no"."""
    held, asked, meant = for_exit(job, seen), asked_of(job, order.lot), 0
    if job.alert.action is not Action.EXIT and asked > abs(held.quantity) > 0:
        meant = meant_for(tx, job, order, seen.orders, seen.readings.book)
    amount = how_much(job, order.lot, freeze, abs(held.quantity), meant)
    if cancelled:
        words = ", ".join(o.id for o in cancelled)
        order = replace(order, warnings=(*order.warnings, f"cancelled before it: {words}"))
        if isinstance(amount, Denial) and amount.code == "nothing_to_exit":
            amount = Denial(amount.code, f"nothing had filled; cancelled: {words}")
    unsure = under_way.unsure or (seen.unexplained and held.own)
    in_hands_only = under_way.in_hands and not held.quantity
    if under_way.waiting or held.waits_for_exit or in_hands_only or (unsure and not held.quantity):
        most = max(abs(held.own) + under_way.may_come + abs(under_way.in_hands), 1)
        return replace(order, quantity=asked or most), PENDING
    if isinstance(amount, Denial):
        if not job.reconciled and not held.quantity:
            raise NotReconciled("what was open before this start is being looked up", retry_after_s=5)
        return replace(order, quantity=asked), amount
    denial = bracket_denial(order, amount, held)
    if denial is not None:
        return replace(order, quantity=asked), denial
    warnings = order.warnings + amount.warnings
    there = to_close(job, seen)
    if amount.quantity < min(asked or there, there) and abs(held.quantity) < there:
        warnings += (f"the broker shows {abs(held.quantity)} of the {there} held: exit the rest again",)
    return replace(order, quantity=amount.quantity, warnings=warnings), None


def to_close(job: Job, seen: Seen) -> int:
    """Contracts that the exit is about: more than may be sold now where the broker's list lags behind our fills."""
    held = for_exit(job, seen)
    return abs(reduced(held.own, held.pending_exits) if seen.unexplained else held.quantity)
