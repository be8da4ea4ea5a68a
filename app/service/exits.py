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

from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.deadline import Deadline
from app.domain.order import Mode, Order, Protection, Purpose, Side
from app.domain.risk import Denial, Proposal, TradingState, Verdict, judge
from app.domain.status import Status
from app.errors import CommitUnknown, NotReconciled, OutOfTime
from app.service.amount import PENDING, is_cut, is_entry, sized, to_close
from app.service.desk import Answer, Desk, broker_says_open, event_of
from app.service.holding import book_row, leaving_by_client, legs_shown
from app.service.in_the_way import Exit, clear_the_way
from app.service.intent import Job, claim, deny, draft, listed, put, put_denied, put_sending, sender
from app.service.legs import Legs, send_without_legs
from app.service.ports import Transaction
from app.service.position import Place, Readings, Seen, look
from app.service.replay import nearer
from app.service.send import armed, committed_after_all
from app.service.takeover import take_over
from app.service.under_way import came_after, for_exit, naming, overtake, under_way_for, unsent_in, unsent_of
from app.service.which import choose, meant

log = logging.getLogger(__name__)

LOCK_TTL = timedelta(seconds=10)
"""Five times a request's deadline: a lease outlives its request only when the process, or its database, died."""
FREE_S = 0.05
"""For freeing it when the answer's time is over already: the answer waits for that."""


def exit_held(desk: Desk, job: Job) -> Answer:
    """`action: EXIT`: our own rows say which contract; no master and no price is needed."""
    target = choose(desk, job)
    if target.denial is not None and target.denial.code == "nothing_to_exit":
        return _nothing(desk, job, target.contract, target.denial)
    if target.denial is not None:
        order = draft(desk, job, target.contract, Side.SELL, job.alert.qty or 0, Purpose.EXIT)
        return deny(desk, job, order, target.denial)
    answer = close(desk, job, target.contract, target.freeze, None, target.explanation)
    if answer is None:
        raise AssertionError("expected an answer for an EXIT")
    return answer


def _nothing(desk: Desk, job: Job, contract: Contract | Order, denial: Denial) -> Answer:
    """The "no" to an EXIT that finds nothing, said while no entry can come: one that came before this alert and has been
    committed since the look is to be closed (OutOfTime: the alert comes again), one that has not been sent yet is not
    sent any more, and one that still reads its price finds this "no" (`overtaken`).
    """
    if not job.reconciled:
        raise NotReconciled("what was open before this start is being looked up", retry_after_s=5)
    order = draft(desk, job, contract, Side.SELL, job.alert.qty or 0, Purpose.EXIT)
    with desk.store.write(job.budget.send, queued=True) as tx:
        repeat = claim(desk, tx, job, order.id)
        if repeat is not None:
            return repeat
        # Their rows before the wait, as a re-send has its own: in the other order the two would wait for one another.
        overtaken = unsent_of(tx, job, desk.scope, contract)
        tx.entries_wait(desk.scope)
        has_come = any(not came_after(job, one) for one in meant(tx, desk.scope, job, contract))
        still = {one.id for one in unsent_of(tx, job, desk.scope, contract, lock=False)}
        if has_come or still - {one.id for one in overtaken}:
            raise OutOfTime("an entry that this exit is to close has just come", retry_after_s=1)
        order = naming(order, overtaken)
        row = put_denied(tx, job, order, denial)
        overtake(tx, overtaken, order)
    return Answer(row, replayed=False)


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
    order = draft(desk, job, contract, side or Side.SELL, job.alert.qty or 0, Purpose.EXIT)
    if no is not None:
        return deny(desk, job, order, no)
    order = replace(order, explanation=explanation)
    place = Place(desk.scope, contract.ticker, job.alert.product)
    with _lease(desk, job, place.lease) as owner:
        out = Exit(order, freeze, side, place, owner)
        with desk.broker.exchange(job.budget.send) as exchanger:
            readings, cancelled = clear_the_way(desk, job, out, exchanger)
            step = _commit(desk, job, out, readings, cancelled)
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


def _commit(
    desk: Desk, job: Job, out: Exit, readings: Readings, cancelled: list[Order]
) -> Answer | Legs | None:
    """The one transaction of an exit: still our lease, what is held, and the row that follows from it."""
    place, side, order, book = out.place, out.side, out.order, readings.book
    try:
        with desk.store.write(job.budget.send) as tx:
            out.must_own(tx)
            # Before the look, which sees one that has just been sent again as under way.
            overtaken = unsent_in(tx, job, place, side)
            seen = look(tx, place, None if job.all_clients else job.alert.client, readings, job.today)
            under_way = under_way_for(tx, job, place, seen, side)
            if is_entry(seen.held, side, under_way.waiting):
                return None
            way = side or _way_out(seen.held.own or under_way.in_hands, under_way.waiting or under_way.unsure)
            order = replace(order, side=way)
            repeat = claim(desk, tx, job, order.id)
            if repeat is not None:
                return repeat
            if book_row(order, book) is not None:
                raise NotReconciled("this very exit is in the broker's book already", retry_after_s=5)
            overtake(tx, overtaken, order)
            order, no = sized(tx, job, naming(order, overtaken), out.freeze, seen, under_way, cancelled)
            if no is PENDING:
                return _pending(tx, job, order, seen)
            if no is not None:
                return Answer(put_denied(tx, job, order, no), replayed=False)
            leaving = leaving_by_client(seen.orders, book, job.today)
            order = take_over(tx, order, for_exit(job, seen), leaving, all_clients=job.all_clients)
            order = armed(desk, tx, order, job.budget)
            _put(desk, tx, job, order, seen)
    except CommitUnknown:
        step = committed_after_all(desk, order, job.budget)
        if isinstance(step, Answer):
            return step
    return _legs(order, seen)


def _put(desk: Desk, tx: Transaction, job: Job, order: Order, seen: Seen) -> None:
    put_sending(tx, job, order)
    if is_cut(job, order, to_close(job, seen)):
        text = f"exit {order.id} {order.ticker}: {'; '.join(order.warnings)}"
        desk.notifier.notify("exit_cut", text, page=True)


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
