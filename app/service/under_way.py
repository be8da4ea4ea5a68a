"""What an exit is about: the entries whose holding it closes, which of them are not settled, and which came too late for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.domain.order import Order, Purpose, Side
from app.domain.status import UNSETTLED, WORKING, Status
from app.service.holding import Held, book_row, filled, open_part, reduced
from app.service.intent import Job
from app.service.position import Seen
from app.service.records import BookOrder
from app.service.replay import nearer


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Entries whose holding the exit would close, and which are not settled."""

    waiting: list[Order]
    """Being sent, in doubt, or still working: the exit waits for them."""
    unsure: list[Order]
    """A person was asked about them."""
    may_come: int
    """Contracts that may still fill."""
    in_hands: int = 0
    """Signed contracts of this client's that an operator's exit may be closing: his own waits for what comes of it."""


def under_way_for(job: Job, seen: Seen, side: Side | None, book: tuple[BookOrder, ...]) -> UnderWay:
    mine = [o for o in seen.orders if is_mine(job, o, side)]
    waiting = [
        o
        for o in mine
        if o.ist_date == job.today
        and (o.status in UNSETTLED or (o.status in WORKING and open_part(o, book, job.today)))
    ]
    unsure = [o for o in mine if o.status is Status.NEEDS_REVIEW]
    may_come = sum(open_part(o, book, job.today) for o in waiting)
    return UnderWay(waiting, unsure, may_come + sum(o.quantity - o.filled_quantity for o in unsure))


def is_mine(job: Job, order: Order, side: Side | None) -> bool:
    """An entry whose holding this exit would close."""
    if came_later(job, order):
        return False
    whose = job.all_clients or order.client == job.alert.client
    return whose and order.purpose is Purpose.ENTRY and (side is None or order.side is side.opposite)


def came_later(job: Job, order: Order) -> bool:
    """An order of after the alert of a waiting exit: what it opened is not what that alert was to close."""
    waited = job.retake if job.retake is not None and job.retake.status is Status.EXIT_PENDING else None
    if waited is None or waited.created_at is None or order.created_at is None:
        return False
    return order.created_at > waited.created_at


def opened_later(job: Job, seen: Seen) -> dict[str, int]:
    """Signed contracts by client that entries after a waiting exit have opened, less what exits after it close of them."""
    book, net, opened = seen.readings.book, dict[str, int](), set[tuple[str, int]]()
    for order in seen.orders:
        if not came_later(job, order):
            continue
        sign, done = order.side.sign, filled(order, book_row(order, book))
        if order.purpose is Purpose.ENTRY and done:
            opened.add((order.client, sign))
        closing = open_part(order, book, job.today) if order.purpose is Purpose.EXIT else 0
        net[order.client] = net.get(order.client, 0) + sign * (done + closing)
    return {c: quantity for c, quantity in net.items() if any(quantity * s > 0 for o, s in opened if o == c)}


def for_exit(job: Job, seen: Seen) -> Held:
    """What is held, without what was opened after a waiting exit: that stays whose it is."""
    later, held = opened_later(job, seen), seen.held
    if not later:
        return held
    mine = sum(later.values()) if job.all_clients else later.get(job.alert.client, 0)
    # What the broker shows of others' later entries is theirs, also where ours is missing from what it shows.
    own, there = nearer(held.own - mine, held.own), nearer(held.net - sum(later.values()), held.net)
    quantity = nearer(reduced(own, held.pending_exits), reduced(there, held.others_pending))
    owners = tuple((c, own - later.get(c, 0)) for c, own in held.owners)
    return replace(held, quantity=quantity, owners=tuple((c, own) for c, own in owners if own))
