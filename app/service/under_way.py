"""What an exit is about: the entries whose holding it closes, which of them are not settled or were not sent, and which
came too late for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from app.domain.alert import Alert
from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.order import Order, Purpose, Scope, Side
from app.domain.risk import Denial
from app.domain.status import UNSETTLED, WORKING, Status
from app.service.desk import event_of
from app.service.holding import Held, book_row, filled, open_part, reduced
from app.service.intent import Job
from app.service.ports import Transaction
from app.service.position import Place, Seen
from app.service.records import BookOrder, Moved
from app.service.replay import nearer
from app.service.takeover import in_hands

OVERTAKEN = "overtaken_by_exit"
"""The code of an entry that was not sent before an exit came that would have closed it."""
NOTHING_CAME = frozenset({Status.DENIED, Status.NOT_SENT, Status.EXPIRED})
"""What becomes of an entry that was never sent."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Entries whose holding the exit would close, and which are not settled."""

    waiting: list[Order]
    """Being sent, in doubt, or still working: the exit waits for them."""
    unsure: list[Order]
    """A person was asked about them, or will be."""
    may_come: int
    """Contracts that may still fill."""
    in_hands: int
    """Signed contracts of this client's that an operator's exit may be closing: his own waits for what comes of it."""


def under_way_for(tx: Transaction, job: Job, place: Place, seen: Seen, side: Side | None) -> UnderWay:
    book, client = seen.readings.book, job.alert.client
    mine = [o for o in seen.orders if is_mine(job, o, side)]
    waiting = [
        o
        for o in mine
        if o.ist_date == job.today
        and (o.status in UNSETTLED or (o.status in WORKING and open_part(o, book, job.today)))
    ]
    # Before the day's first pass one of yesterday still stands as it stood: its book is gone, and it is a person's. At
    # a start nothing is concluded from it at all (NotReconciled).
    left = UNSETTLED | WORKING if job.reconciled else frozenset()
    unsure = [
        o for o in mine if o.status is Status.NEEDS_REVIEW or (o.ist_date < job.today and o.status in left)
    ]
    may_come = sum(open_part(o, book, job.today) for o in waiting)
    may_come += sum(o.quantity - o.filled_quantity for o in unsure)
    theirs = 0 if job.all_clients else in_hands(tx, place.scope, client, place.ticker, place.product)
    return UnderWay(waiting, unsure, may_come, theirs)


def is_mine(job: Job, order: Order, side: Side | None) -> bool:
    """An entry whose holding this exit would close."""
    if came_later(job, order):
        return False
    whose = job.all_clients or order.client == job.alert.client
    return whose and order.purpose is Purpose.ENTRY and (side is None or order.side is side.opposite)


def came_later(job: Job, order: Order) -> bool:
    """An order of after the alert of an exit that waited, or that is sent again: what it opened is not what that alert was
    to close.
    """
    first = _first(job)
    if first is None or order.created_at is None:
        return False
    return order.created_at > first


def came_after(job: Job, order: Order) -> bool:
    """The same for an exit's first run too: what has come since its alert was received."""
    return order.created_at is not None and order.created_at > (_first(job) or job.now)


def _first(job: Job) -> datetime | None:
    """When the alert of an exit that has a row already came."""
    return job.retake.created_at if job.retake is not None and job.retake.purpose is Purpose.EXIT else None


def opened_later(job: Job, seen: Seen) -> dict[str, int]:
    """Signed contracts by client that entries after this exit's alert have opened, less what exits after it close of them."""
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
    """What is held, without what was opened after this exit's alert: that stays whose it is."""
    later, held = opened_later(job, seen), seen.held
    if not later:
        return held
    mine = sum(later.values()) if job.all_clients else later.get(job.alert.client, 0)
    # What the broker shows of others' later entries is theirs, also where ours is missing from what it shows.
    own, there = nearer(held.own - mine, held.own), nearer(held.net - sum(later.values()), held.net)
    quantity = nearer(reduced(own, held.pending_exits), reduced(there, held.others_pending))
    owners = tuple((c, own - later.get(c, 0)) for c, own in held.owners)
    return replace(held, quantity=quantity, owners=tuple((c, own) for c, own in owners if own))


def meant_for(
    tx: Transaction, job: Job, out: Order, orders: Iterable[Order], book: Sequence[BookOrder]
) -> int:
    """What the sender of the exit `out` may take for held: all that its entries of today were for, and what was carried.

    What did not come of them (cancelled, refused, denied) and what a stop or a hand has closed is not in a chart's count:
    its SELL of all that it knows of is an exit, and nobody would send it again with another number.
    """
    client = None if job.all_clients else job.alert.client
    never = tx.orders_on(out.scope, job.today, NOTHING_CAME)
    here = (out.ticker, out.product)
    rows = {o.id: o for o in (*orders, *never) if (o.ticker, o.product) == here}
    carried = tx.holdings(out.scope, client, before=job.today)
    meant = sum(h.net_quantity for h in carried if (h.ticker, h.product) == here)
    for order in rows.values():
        if order.ist_date != job.today or client not in (None, order.client) or came_later(job, order):
            continue
        done = filled(order, book_row(order, book))
        if order.purpose is Purpose.EXIT:
            done += open_part(order, book, job.today)
        meant += order.side.sign * (order.quantity if is_mine(job, order, out.side) else done)
    return max(0, -out.side.sign * meant)


def unsent(tx: Transaction, job: Job, scope: Scope, side: Side | None) -> list[Order]:
    """Entries that this exit would close, had they been sent: their sender was told to send them again."""
    rows = tx.orders_on(scope, job.today, {Status.NOT_SENT})
    return [o for o in rows if o.product is job.alert.product and is_mine(job, o, side)]


def unsent_in(tx: Transaction, job: Job, place: Place, side: Side | None) -> list[Order]:
    """The same in one place, locked until the transaction ends: a re-send has its row already, and is under way for
    whoever looks after this, or finds what is made of the row here.
    """
    here = [o for o in unsent(tx, job, place.scope, side) if o.ticker == place.ticker]
    return [o for o in _locked(tx, here) if o.status is Status.NOT_SENT]


def unsent_of(
    tx: Transaction, job: Job, scope: Scope, contract: Contract | Order, *, lock: bool = True
) -> list[Order]:
    """The same for an EXIT that finds nothing."""
    found = picked(job, contract, unsent(tx, job, scope, None))
    return [o for o in _locked(tx, found) if o.status is Status.NOT_SENT] if lock else found


def overtake(tx: Transaction, entries: Iterable[Order], out: Order) -> None:
    """End those that were not sent: sent again after this exit, they would open what no exit will close."""
    reason = f"the exit {out.id} came before it was sent"
    for order in entries:
        event = event_of(Event.ORDER_DENIED, tx.now(), Status.DENIED, code=OVERTAKEN, reason=reason)
        tx.move(order, Status.DENIED, event, Moved(code=OVERTAKEN, reason=reason))


def overtaken(tx: Transaction, order: Order, began: datetime) -> Denial | None:
    """A no to an entry, begun then, that an exit has found nothing of because it was not there yet."""
    out = tx.exit_since(order, began)
    return None if out is None else Denial(OVERTAKEN, f"the exit {out} came before it was sent")


def _locked(tx: Transaction, entries: Iterable[Order]) -> list[Order]:
    rows = (tx.get_order(o.scope, o.id, lock=True) for o in sorted(entries, key=lambda o: o.id))
    return [o for o in rows if o is not None]


def naming(out: Order, overtaken: Iterable[Order]) -> Order:
    """The exit, saying which entries will not be sent any more."""
    words = ", ".join(o.id for o in overtaken)
    return replace(out, warnings=(*out.warnings, f"not sent any more: {words}")) if words else out


def is_named(alert: Alert, order: Order, underlying: str | None) -> bool:
    """Whether an EXIT may mean the contract of `order`. `underlying`: how the master calls what the alert names."""
    names = {alert.symbol.upper(), (underlying or alert.symbol).upper()}
    return (
        order.underlying.upper() in names
        and (order.strike, order.option_type) == (alert.strike, alert.option_type)
        and (alert.exchange is None or order.exchange is alert.exchange)
        and (not isinstance(alert.expiry, date) or order.expiry == alert.expiry)
    )


def picked(job: Job, contract: Contract | Order, entries: Iterable[Order]) -> list[Order]:
    """Those of the one contract that an EXIT means, by the rule by which it looks among what is held (`which.choose`)."""
    found = [o for o in entries if is_named(job.alert, o, contract.underlying)]
    tickers = {o.ticker for o in found}
    meant = tickers if len(tickers) == 1 else {contract.ticker}
    return [o for o in found if o.ticker in meant]
