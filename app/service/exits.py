"""Close what this service's own orders hold: reduce-only, never more than is held, never stopped by a limit.

Under a lease per (account, contract, product): the order book first, then the positions, then one transaction that
computes what is held and commits the intent. A failed read sends nothing; it never means flat.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

from app.domain.alert import Action
from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.deadline import Deadline
from app.domain.order import Mode, Order, Protection, Purpose, Side
from app.domain.risk import Denial, Proposal, TradingState, Verdict, judge
from app.domain.status import WORKING, Status
from app.errors import CommitUnknown, NotReconciled, OutOfTime
from app.service.amount import asked_of, bracket_denial, how_much, is_cut, is_entry
from app.service.desk import Answer, Desk, broker_says_open, event_of
from app.service.exchanger import Exchanger
from app.service.holding import book_row, leaving_by_client, legs_shown, open_part
from app.service.intent import Job, claim, deny, draft, listed, put, put_denied, put_sending, sender
from app.service.legs import Legs, send_without_legs
from app.service.ports import Transaction
from app.service.position import Place, Readings, Seen, look, read_on
from app.service.replay import nearer
from app.service.send import armed, committed_after_all
from app.service.takeover import in_hands, take_over
from app.service.under_way import (
    UnderWay,
    came_later,
    for_exit,
    is_mine,
    meant_for,
    naming,
    overtake,
    overtake_all,
    picked,
    under_way_for,
    unsent,
    unsent_in,
)
from app.service.which import Target, choose

log = logging.getLogger(__name__)

FILLS_WITHIN = timedelta(seconds=10)
"""A market order that has not filled by then is stuck at its protection price: a new EXIT replaces it."""
PENDING = Denial("exit_pending", "")
"""Not a no: the exit waits."""
LOCK_TTL = timedelta(seconds=10)
"""Five times a request's deadline: a lease outlives its request only when the process, or its database, died."""
FREE_S = 0.05
"""For freeing it when the answer's time is over already: the answer waits for that."""


def exit_held(desk: Desk, job: Job) -> Answer:
    """`action: EXIT`: our own rows say which contract; no master and no price is needed."""
    with desk.store.read(job.budget.send) as tx:  # before `choose`: it finds what is sent again after this
        not_sent = unsent(tx, job, desk.scope, None)
    target = choose(desk, job)
    if target.denial is not None and target.denial.code == "nothing_to_exit" and not job.reconciled:
        raise NotReconciled("what was open before this start is being looked up", retry_after_s=5)
    if target.denial is not None:
        order = draft(desk, job, target.contract, Side.SELL, job.alert.qty or 0, Purpose.EXIT)
        overtaken = picked(job, target.contract, not_sent) if target.denial.code == "nothing_to_exit" else []
        order = naming(order, overtaken)
        return deny(desk, job, order, target.denial, partial(overtake_all, entries=overtaken, out=order))
    answer = close(desk, job, target.contract, target.freeze, None, target.explanation)
    if answer is None:
        raise AssertionError("expected an answer for an EXIT")
    return answer


def close(
    desk: Desk,
    job: Job,
    contract: Contract | Order,
    freeze: int | None,
    side: Side | None,
    explanation: str = "",
) -> Answer | None:
    """Exit one contract. With a `side` (a BUY or SELL), None means: it adds to what is held, and is an entry."""
    no = next((v.denial for v in exit_verdicts(desk, job, contract) if v.denial is not None), None)
    if no is not None and job.retake is not None and job.retake.status is Status.EXIT_PENDING:
        return Answer(job.retake, replayed=False)  # it waits until it may go; denying it would lose it
    if no is not None:
        order = draft(desk, job, contract, side or Side.SELL, job.alert.qty or 0, Purpose.EXIT)
        return deny(desk, job, order, no)
    place = Place(desk.scope, contract.ticker, job.alert.product)
    with _lease(desk, job, place.lease) as owner:
        target = Target(contract, freeze, explanation, None)
        with desk.broker.exchange(job.budget.send) as exchanger:
            readings, cancelled = _read(desk, job, place, side, exchanger)
            step = _commit(desk, job, target, side, readings, (place, owner), cancelled)
            if not isinstance(step, Legs):
                return step
            removed = step.remove(desk, exchanger, job.budget, admin=job.is_operators)
        return send_without_legs(desk, step, removed, job.budget, admin=job.is_operators)


def exit_verdicts(desk: Desk, job: Job, contract: Contract | Order) -> tuple[Verdict, ...]:
    """The few checks that may stop an exit. A person who halted may still get out."""
    state = job.state
    if job.is_operators and state is TradingState.HALTED:
        state = TradingState.REDUCING
    proposal = Proposal(
        contract=listed(contract, job.today),
        quantity=0,
        product=job.alert.product,
        is_exit=True,
        state=state,
        master_not_before=job.today,
        now=job.now,
        live=desk.scope.mode is Mode.LIVE,
        fired_at=job.alert.fired_at,
        broker_says_open=broker_says_open(desk, contract.exchange, job.budget.send),
    )
    return judge(proposal, desk.policy.limits)


@contextmanager
def _lease(desk: Desk, job: Job, name: str) -> Iterator[str]:
    owner = desk.random_bytes(8).hex()
    if not desk.store.take_lock(name, owner, LOCK_TTL, job.budget.send):
        raise OutOfTime("another exit in this contract is under way", retry_after_s=1)
    try:
        yield owner
    finally:
        try:
            by = max(job.budget.answer.at, desk.clock.monotonic() + FREE_S)
            with desk.store.write(Deadline(by)) as tx:
                tx.free_lock(name, owner)
        except Exception:  # the exit may be at the broker: its answer stands
            log.warning("lease %s could not be freed; it ends by itself", name, exc_info=True)


def _read(
    desk: Desk, job: Job, place: Place, side: Side | None, exchanger: Exchanger
) -> tuple[Readings, list[Order]]:
    """The broker's reads, after what stands in the way was cancelled: the client's working entries here, and an exit
    that has not filled (a new EXIT replaces it).
    """
    with desk.store.read(job.budget.send) as tx:
        orders = tx.orders_in(place.scope, place.ticker, place.product)
    book = exchanger.order_book()
    # An exit that came after this one, and after a later entry, is that entry's too: this one would not close it.
    reopened = any(o.purpose is Purpose.ENTRY and came_later(job, o) for o in orders)
    in_the_way = [
        o
        for o in orders
        if (is_mine(job, o, side) or (_is_stuck(job, o, side) and not (reopened and came_later(job, o))))
        and o.status in WORKING
        and open_part(o, book, job.today)
        and o.broker_order_id
    ]
    for order in in_the_way:
        shown = book_row(order, book)
        outcome = exchanger.cancel((shown or order).broker_order_id or "")
        kind = Event.ENTRY_CANCEL if order.purpose is Purpose.ENTRY else Event.EXIT_REPLACED
        with desk.store.write(job.budget.send) as tx:
            row = tx.get_order(desk.scope, order.id, lock=True) or order  # it may have moved meanwhile
            tx.record(row, event_of(kind, tx.now(), row.status, outcome=type(outcome).__name__))
    if in_the_way:
        book = exchanger.order_book()
    return read_on(exchanger, place, orders, book), in_the_way


def _is_stuck(job: Job, order: Order, side: Side | None) -> bool:
    """An exit of this client that has had its time to fill."""
    whose = job.all_clients or order.client == job.alert.client
    if not whose or order.purpose is not Purpose.EXIT or (side is not None and order.side is not side):
        return False
    return order.product.takes_tag and order.sent_at is not None and job.now - order.sent_at >= FILLS_WITHIN


def _commit(
    desk: Desk,
    job: Job,
    target: Target,
    side: Side | None,
    readings: Readings,
    lease: tuple[Place, str],
    cancelled: list[Order],
) -> Answer | Legs | None:
    """The one transaction of an exit: still our lease, what is held, and the row that follows from it."""
    contract, (place, owner), book = target.contract, lease, readings.book
    order: Order | None = None
    try:
        with desk.store.write(job.budget.send) as tx:
            if not tx.owns_lock(place.lease, owner):
                raise OutOfTime("the exit's lease was lost", retry_after_s=1)
            # Before the look, which sees one that has just been sent again as under way.
            overtaken = unsent_in(tx, job, place, side)
            seen = look(tx, place, None if job.all_clients else job.alert.client, readings, job.today)
            under_way = _under_way(tx, job, place, under_way_for(job, seen, side, book))
            if is_entry(seen.held, side, under_way.waiting):
                return None
            out = side or _way_out(seen.held.own or under_way.in_hands, under_way.waiting or under_way.unsure)
            order = replace(draft(desk, job, contract, out, 0, Purpose.EXIT), explanation=target.explanation)
            repeat = claim(desk, tx, job, order.id)
            if repeat is not None:
                return repeat
            if book_row(order, book) is not None:
                raise NotReconciled("this very exit is in the broker's book already", retry_after_s=5)
            overtake(tx, overtaken, order)
            order, no = _sized(tx, job, naming(order, overtaken), target, seen, under_way, cancelled)
            if no is PENDING:
                return _pending(tx, job, order, seen)
            if no is not None:
                return Answer(put_denied(tx, job, order, no), replayed=False)
            leaving = leaving_by_client(seen.orders, book, job.today)
            order = take_over(tx, order, for_exit(job, seen), leaving, all_clients=job.all_clients)
            order = armed(desk, tx, order, job.budget)
            _put(desk, tx, job, order, seen)
    except CommitUnknown:
        if order is None:
            raise
        step = committed_after_all(desk, order, job.budget)
        if isinstance(step, Answer):
            return step
    return _legs(order, seen)


def _put(desk: Desk, tx: Transaction, job: Job, order: Order, seen: Seen) -> None:
    put_sending(tx, job, order)
    if is_cut(job, order, abs(for_exit(job, seen).quantity)):
        text = f"exit {order.id} {order.ticker}: {'; '.join(order.warnings)}"
        desk.notifier.notify("exit_cut", text, page=True)


def _under_way(tx: Transaction, job: Job, place: Place, found: UnderWay) -> UnderWay:
    if job.all_clients:
        return found
    theirs = in_hands(tx, place.scope, job.alert.client, place.ticker, place.product)
    return replace(found, in_hands=theirs)


def _sized(
    tx: Transaction,
    job: Job,
    order: Order,
    target: Target,
    seen: Seen,
    under_way: UnderWay,
    cancelled: list[Order],
) -> tuple[Order, Denial | None]:
    """The exit with its quantity, or with why it cannot go: PENDING, or a "no"."""
    held = for_exit(job, seen)
    meant = 0
    if job.alert.action is not Action.EXIT and asked_of(job, order.lot) > abs(held.quantity) > 0:
        meant = meant_for(tx, job, order, seen.orders, seen.readings.book)
    amount = how_much(job, order.lot, target.freeze, abs(held.quantity), meant)
    if cancelled:
        words = ", ".join(o.id for o in cancelled)
        order = replace(order, warnings=(*order.warnings, f"cancelled before it: {words}"))
        if isinstance(amount, Denial) and amount.code == "nothing_to_exit":
            amount = Denial(amount.code, f"nothing had filled; cancelled: {words}")
    unsure = under_way.unsure or (seen.unexplained and held.own)
    in_hands_only = under_way.in_hands and not held.quantity
    if under_way.waiting or held.waits_for_exit or in_hands_only or (unsure and not held.quantity):
        most = max(abs(held.own) + under_way.may_come + abs(under_way.in_hands), 1)
        return replace(order, quantity=asked_of(job, order.lot) or most), PENDING
    if isinstance(amount, Denial):
        if not job.reconciled and not held.quantity:
            raise NotReconciled("what was open before this start is being looked up", retry_after_s=5)
        return replace(order, quantity=asked_of(job, order.lot)), amount
    denial = bracket_denial(order, amount, held)
    if denial is not None:
        return replace(order, quantity=asked_of(job, order.lot)), denial
    return replace(order, quantity=amount.quantity, warnings=order.warnings + amount.warnings), None


def _way_out(own: int, waiting: list[Order]) -> Side:
    if own:
        return Side.SELL if own > 0 else Side.BUY
    return waiting[0].side.opposite if waiting else Side.SELL


def _pending(tx: Transaction, job: Job, order: Order, seen: Seen) -> Answer:
    if job.retake is not None and job.retake.status is Status.EXIT_PENDING:
        return Answer(job.retake, replayed=False)
    reason = "an entry or an exit in this contract is not settled yet; the exit follows once it is"
    if seen.unexplained:
        reason = (
            f"{abs(seen.held.own)} are held, and the broker shows {abs(seen.held.net)} with no trade of today that closed "
            "the rest; the exit follows once they show, and ends when they have been missing for minutes"
        )
    row = replace(order, status=Status.EXIT_PENDING, code="exit_pending", reason=reason)
    put(tx, job, row, event_of(Event.EXIT_PENDING, tx.now(), row.status, **sender(order), reason=reason))
    return Answer(row, replayed=False)


def _legs(order: Order, seen: Seen) -> Legs:
    entries = [o for o in seen.orders if o.purpose is Purpose.ENTRY]
    shown = abs(nearer(sum(own for _, own in seen.held.owners), seen.held.net))
    legs = legs_shown(seen.readings.position, entries, seen.readings.book)
    # One whose stop was missed, and that somebody has set since: what is taken off now goes back too.
    wanted = (Protection.REQUESTED, Protection.SEEN, *((Protection.MISSING,) if legs else ()))
    asked = [o for o in entries if o.filled_quantity and o.protection in wanted]
    asked = [o for o in asked if o.stop_distance and o.side is order.side.opposite] or asked
    return Legs(
        order=order,
        position=seen.readings.position,
        shown=legs,
        asked=asked[-1] if asked else None,
        ours=max(0, shown - seen.held.others_pending),
        shown_ours=shown,
    )
