"""Settle what is in doubt, follow what is working, watch what has to be protected, run the exits that waited.

The broker's own books decide, never a guess; an entry is never sent again. Every move is one conditional update with
its event in one transaction, so that two instances at it, or a crash in the middle, do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import TypeVar

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Order, Purpose, Scope
from app.domain.status import WORKING, Status
from app.errors import BrokerReadFailed, NoMaster, OutOfTime
from app.service import adopt, doubts, excess, narrow, relegs, watch
from app.service.desk import Desk, event_of
from app.service.exchanger import Exchanger
from app.service.follow import record_book
from app.service.holding import net_of, open_part
from app.service.loss import UNKNOWN_AGAIN, watch_loss
from app.service.pending import is_told_to_wait, run_pending, wait_on
from app.service.ports import Clock, Transaction
from app.service.position import Place, if_free, look, read_on
from app.service.ready import POLLS_STOPPED, code_of
from app.service.records import BookOrder, Holding, Moved, Position
from app.service.replay import has_foreign_fills, nearer
from app.service.send import taken_from
from app.service.settle import Settle

T = TypeVar("T")

MISSING_FOR = timedelta(minutes=5)
LOOKS_APART = timedelta(seconds=150)
"""More than READ_ANYWAY and the longest interval of the passes: looks of one process that follow each other."""
LOST_AFTER = timedelta(seconds=60)
"""TradingView re-sends at 5 s intervals, three times: what has not come again by then does not come."""
OVERDUE_AFTER = timedelta(seconds=1)
"""Given to a sender that is only slow in recording, past its own deadline."""
READ_ANYWAY = timedelta(seconds=60)
"""A book that nothing of ours waits for is still read now and then: late arrivals, and rows that we do not know."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One whole pass: the orders that it changed, each as it stands at the end, and whether the broker had to be asked."""

    began_at: datetime
    asked_broker: bool
    changed: tuple[Order, ...]


@dataclass
class Reconcile:
    """One pass per call. Raises ServiceError when a read failed: nothing is concluded from it then.

    `lease`: (name, owner) that every write checks, where only one instance at a time runs this; None at a start,
    which must not wait for a dead process's lease.
    """

    desk: Desk
    settle: Settle = field(default_factory=Settle)
    lease: tuple[str, str] | None = None
    _seen_once: bool = field(default=False, init=False)
    _read_at: datetime | None = field(default=None, init=False)
    _unknown_told_at: datetime | None = field(default=None, init=False)
    _since: dict[Place | str, datetime] = field(default_factory=dict, init=False)
    """Since when a place's net is missing, or an exit (its id) is one too many."""
    _looked_at: datetime | None = field(default=None, init=False)

    def __call__(self, budget_s: float = 5.0) -> Pass:
        desk = self.desk
        deadline = Deadline(desk.clock.monotonic() + budget_s)
        with desk.store.read(deadline) as tx:
            began = tx.now()
        no_index: NoMaster | None = None
        changed = self._without_broker(deadline)
        asked = self._must_read(began, deadline)
        if asked:
            if (stopped := desk.broker.ready()) is not None and code_of(stopped) == POLLS_STOPPED:
                raise BrokerReadFailed(stopped, code=POLLS_STOPPED)
            with desk.broker.exchange(deadline) as exchanger:
                book = exchanger.order_book()
                positions = exchanger.positions()
                by_broker, no_index = self._by_broker(exchanger, book, positions, began, deadline)
            changed += by_broker
            if no_index is None:
                self._read_at, self._seen_once = began, True
        changed += run_pending(desk, reconciled=no_index is None)
        if no_index is not None:  # no whole pass: entries, and exits that find nothing, wait for one
            raise no_index
        self._write(deadline, _record_pass, desk, began)
        return Pass(began, asked, tuple({order.id: order for order in changed}.values()))

    def _write(self, deadline: Deadline, change: Callable[..., T], *args: object) -> T:
        """One transaction, still ours: `change(tx, *args)`."""
        with self.desk.store.write(deadline) as tx:
            if self.lease is not None and not tx.owns_lock(*self.lease):
                raise OutOfTime("another instance has taken the reconciliation over")
            return change(tx, *args)

    def _without_broker(self, deadline: Deadline) -> list[Order]:
        """What time alone decides: an overdue sender, an alert that was not sent again."""
        desk = self.desk
        with desk.store.read(deadline) as tx:
            now, today = tx.now(), ist_date(tx.now())
            overdue = [o for o in tx.open_orders(desk.scope) if _is_overdue(o, now)]
            lost = list(tx.orders_on(desk.scope, today, {Status.NOT_SENT}))
            lost += tx.orders_before(desk.scope, today, {Status.NOT_SENT})
        waits = [o for o in lost if is_told_to_wait(desk, o)]
        over = [o for o in lost if o.updated_at is not None and now - o.updated_at >= LOST_AFTER]
        changed = [self._write(deadline, _lost_sender, order) for order in overdue]
        changed += [self._write(deadline, wait_on, order) for order in waits]
        changed += [self._write(deadline, _lost_alert, desk, order) for order in over if order not in waits]
        return [o for o in changed if o is not None]

    def _must_read(self, now: datetime, deadline: Deadline) -> bool:
        if not self._seen_once or self._read_at is None or now - self._read_at >= READ_ANYWAY:
            return True
        with self.desk.store.read(deadline) as tx:
            today = ist_date(tx.now())
            scope = self.desk.scope
            waiting = [o for o in tx.open_orders(scope) if o.ist_date == today]
            if waiting or watch.unprotected(tx, scope, today):
                return True
            legs_off = relegs.unanswered(tx, scope, today)
            return any(o.updated_at is None or now - o.updated_at < READ_ANYWAY for o in legs_off)

    def _by_broker(
        self,
        exchanger: Exchanger,
        book: tuple[BookOrder, ...],
        positions: tuple[Position, ...],
        began: datetime,
        deadline: Deadline,
    ) -> tuple[list[Order], NoMaster | None]:
        desk, today = self.desk, ist_date(began)
        with desk.store.read(deadline) as tx:
            if ist_date(tx.now()) != today:
                raise OutOfTime("the day ended during the pass: its book proves nothing")
            unsure, late = doubts.unsettled(tx, desk.scope), doubts.left_late(tx, desk.scope)
        changed: list[Order] = []
        for order in unsure:
            changed += self._write(deadline, doubts.settle_one, desk, self.settle, order, book, today)
        doubts.take_back_late(desk, exchanger, (*late, *changed), book)
        changed += self._write(deadline, doubts.claim_closings, desk, book, today)
        changed += self._write(deadline, _follow, desk, book, today)
        changed += self._write(deadline, watch.traded_more, desk, today)
        if relegs.restore_legs(desk, exchanger, book, positions, began):
            positions = exchanger.positions()
        if narrow.narrow_stops(desk, exchanger, book, positions, began):
            positions = exchanger.positions()
        adopted = self._write(deadline, adopt.adopt, desk, book, began, not self._seen_once)
        changed += adopted.changed
        doubts.take_back_late(desk, exchanger, adopted.changed, book)
        self._lower(exchanger, book, positions, today, deadline)
        changed += self._write(deadline, watch.watch, desk, book, positions, today)
        self._watch_loss(positions, today, deadline)
        return changed, adopted.no_index

    def _watch_loss(self, positions: tuple[Position, ...], today: date, deadline: Deadline) -> None:
        now, last = self.desk.clock.now(), self._unknown_told_at
        tell = last is None or now - last >= UNKNOWN_AGAIN
        watch_it = partial(watch_loss, tell_unknown=tell)
        if self._write(deadline, watch_it, self.desk, positions, today) and tell:
            self._unknown_told_at = now

    def _lower(
        self,
        exchanger: Exchanger,
        book: tuple[BookOrder, ...],
        positions: tuple[Position, ...],
        today: date,
        deadline: Deadline,
    ) -> None:
        """Holdings that somebody else has closed: today, while the trade book shows it, or while nobody looked; and the
        exits that would close them once more.

        A net that is missing without a trade of today to show for it has to be missing for some minutes first: a
        broker's morning may begin with an empty list.
        """
        desk = self.desk
        with desk.store.read(deadline) as tx:
            held, now = tx.holdings(desk.scope, None), tx.now()
            places = {Place(desk.scope, h.ticker, h.product) for h in held}
            exits = (
                o for o in tx.open_orders(desk.scope) if o.purpose is Purpose.EXIT and o.status in WORKING
            )
            places |= {Place(desk.scope, o.ticker, o.product) for o in exits}
            orders = {p: tx.orders_in(desk.scope, p.ticker, p.product) for p in places}
        missing = {p for p in places if _is_missing(p, held, orders[p], book, positions, today)}
        over = {p: excess.excess_by(p, held, orders[p], book, positions, today) for p in places}
        lasting = self._lasting((*missing, *(one.order.id for found in over.values() for one in found)), now)
        for place in sorted(places, key=lambda p: p.lease):
            found = place in lasting or over[place]
            if not found and not has_foreign_fills(orders[place], book, place.ticker, place.product):
                continue
            with if_free(desk, place) as is_free:
                if not is_free:
                    continue
                readings = read_on(exchanger, place, orders[place], exchanger.order_book())
                lower = partial(look, lasting=place in lasting)
                seen = self._write(deadline, lower, place, None, readings, today)
                for one in excess.to_take_back(seen, today, lasting):
                    self._write(deadline, excess.tell, desk, one)
                    said = excess.cancel(exchanger, one)
                    self._write(deadline, excess.record_cancel, desk, one, said)

    def _lasting(self, found: Collection[Place | str], now: datetime) -> set[Place | str]:
        """Those of what a pass has found that the passes before it, for minutes, have found too."""
        # Looks that lie far apart, while other instances or nobody looked, do not show that it was so between them.
        began = self._since if self._looked_at and now - self._looked_at <= LOOKS_APART else {}
        self._since, self._looked_at = {one: began.get(one, now) for one in found}, now
        return {one for one, since in self._since.items() if now - since >= MISSING_FOR}


def _is_missing(
    place: Place,
    held: tuple[Holding, ...],
    orders: tuple[Order, ...],
    book: tuple[BookOrder, ...],
    positions: tuple[Position, ...],
    today: date,
) -> bool:
    """Whether the broker's net is less than ours, with nothing of ours under way that explains it."""
    own = sum(h.net_quantity for h in held if (h.ticker, h.product) == (place.ticker, place.product))
    position = net_of(positions, place.ticker, place.product)
    net = position.net_quantity if position else 0
    return nearer(own, net) != own and not any(open_part(o, book, today) for o in orders)


def _record_pass(tx: Transaction, desk: Desk, began: datetime) -> None:
    tx.record_pass(desk.scope, began)


def _is_overdue(order: Order, now: datetime) -> bool:
    return (
        order.status is Status.SENDING
        and order.answer_by is not None
        and now >= order.answer_by + OVERDUE_AFTER
    )


def _lost_sender(tx: Transaction, order: Order) -> Order | None:
    """The fence changes with the state: whoever still holds the old one must not send any more."""
    reason = "the sender ended or was paused before it recorded an outcome"
    event = event_of(Event.ORDER_IN_DOUBT, tx.now(), Status.IN_DOUBT, reason=reason)
    change = Moved(code="in_doubt", reason=reason, fence=taken_from(order))
    return tx.move(order, Status.IN_DOUBT, event, change)


def _lost_alert(tx: Transaction, desk: Desk, order: Order) -> Order | None:
    reason = f"nothing was sent ({order.code}), and the alert did not come again within a minute"
    event = event_of(Event.ORDER_EXPIRED, tx.now(), Status.EXPIRED, reason=reason)
    moved = tx.move(order, Status.EXPIRED, event, Moved(reason=reason))
    if moved is not None:
        text = f"{order.purpose} {order.id} {order.ticker} {order.side} {order.quantity}: {reason}"
        desk.notifier.notify("lost_alert", text, page=True)
    return moved


def _follow(tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], today: date) -> Iterable[Order]:
    """Bring rows to what the book says; a working row whose day is over without its end being known is a person's."""
    ended = {Status.CANCELLED, Status.EXPIRED, Status.FILLED}
    orders = tx.open_orders(desk.scope) + tx.orders_on(desk.scope, today, ended)
    changed = list(record_book(tx, orders, book))
    for order in tx.open_orders(desk.scope):
        if order.status in WORKING and order.ist_date < today:
            reason = (
                f"the book of {order.ist_date} is gone, and what became of the order was not recorded in time"
            )
            event = event_of(Event.ORDER_NEEDS_REVIEW, tx.now(), Status.NEEDS_REVIEW, reason=reason)
            moved = tx.move(order, Status.NEEDS_REVIEW, event, Moved(code="day_over", reason=reason))
            if moved is not None:
                desk.notifier.notify("needs_review", f"order {order.id}: {reason}", page=True)
                changed.append(moved)
    return changed


class FirstPass:
    """Whether a reconcile pass that began after this process started has succeeded, in whichever instance.

    The beginning is kept on the database's clock; this process's start is put on it by what has gone by since.
    """

    def __init__(self, clock: Clock, scope: Scope) -> None:
        self._clock, self._scope = clock, scope
        self._started = clock.monotonic()
        self._passed = False

    def __call__(self, tx: Transaction) -> bool:
        if not self._passed:
            began = tx.last_pass(self._scope)
            running = timedelta(seconds=self._clock.monotonic() - self._started)
            # One that begins ahead is from a clock that has been set right since.
            self._passed = began is not None and tx.now() - running <= began <= tx.now()
        return self._passed
