"""Commit the intent, look once more, call the broker once, record what came of it. Entries and exits share this."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order, Purpose
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import OutOfBudget, StoreUnavailable
from app.service.desk import RECORD_S, Answer, Budget, Desk, event_of
from app.service.exchanger import Exchanger
from app.service.ports import Transaction
from app.service.records import Moved
from app.service.takeover import share_out

log = logging.getLogger(__name__)

SLOT_LASTS_S = 0.1
"""From the reservation of a place in the rate limit to the send."""
TAKE_BACK_S = 0.5
"""For cancelling what was written too late: its answer is late already, and a hang must not make it endless."""

LOST_FENCE = "lost_fence"
SENT_LATE = "sent_late"
"""The code of an order that left after its time: an entry is taken back, if it still works."""
DISPROVED_BY_ACCEPTANCE = (Status.IN_DOUBT, Status.NOT_PLACED, Status.NEEDS_REVIEW)
"""What a row may have been called while its sender was paused, and the broker's own answer knows better."""

LastCheck = Callable[[], NotSent | None]
BrokerCall = Callable[[Exchanger, LastCheck], Outcome]


def armed(desk: Desk, tx: Transaction, order: Order, budget: Budget) -> Order:
    """The order as the attempt that may send it: a fence and its two times on the database's clock."""
    now, mono = tx.now(), desk.clock.monotonic()
    return replace(
        order,
        status=Status.SENDING,
        code=None,
        reason=None,
        fence=desk.random_bytes(8).hex(),
        send_by=now + timedelta(seconds=budget.send.left(mono)),
        answer_by=now + timedelta(seconds=budget.answer.left(mono)),
        sent_at=None,
    )


def taken_from(order: Order) -> str:
    """The fence of a row that was settled for this sender. No sender holds it, and this one may still know its own."""
    return f"lost:{order.fence}"


def committed_after_all(desk: Desk, order: Order, budget: Budget) -> Order | Answer:
    """The connection was lost during COMMIT: what the database holds decides, before anything else happens.

    The order: its intent is there, and it may be sent. An Answer: a "no" is there. StoreUnavailable: neither, or
    nobody can say; nothing was sent.
    """
    with desk.store.read(budget.send) as tx:
        row = tx.get_order(desk.scope, order.id)
    if row is None or row.attempt != order.attempt:
        raise StoreUnavailable("the database was lost before the order's intent was committed")
    if row.status is Status.SENDING and row.fence == order.fence:
        return order
    return Answer(row, replayed=False)


def stops(state: TradingState, purpose: Purpose, *, admin: bool) -> bool:
    """Whether a trading state keeps an order back. A person who halted may still get out (admin)."""
    if state is TradingState.ACTIVE:
        return False
    return purpose is Purpose.ENTRY or (state is TradingState.HALTED and not admin)


def last_check(
    desk: Desk, order: Order, budget: Budget, *, admin: bool = False, slot: Slot | None = None
) -> LastCheck:
    """The fresh look right before the first byte: still ours, still allowed, still in time, still within its slot."""

    def check() -> NotSent | None:
        try:
            with desk.store.read(budget.send) as tx:
                row, now = tx.standing(desk.scope, order.id), tx.now()
        except StoreUnavailable as error:
            return NotSent(error.code, error.detail)
        if row is None or row.status is not Status.SENDING or row.fence != order.fence:
            return NotSent(LOST_FENCE, "this attempt was settled by somebody else before it was sent")
        if stops(row.state, order.purpose, admin=admin):
            return NotSent("trading_state", f"trading state became {row.state} before the order was sent")
        if order.send_by is None or now >= order.send_by:
            return NotSent("out_of_time", "the request's budget ended before the order was sent")
        return None if slot is None else slot.still_good(desk, budget)

    return check


@dataclass
class Slot:
    """An entry's place in the broker's rate limit. It is void unless the send starts at once, so that a late send
    never makes one too many; then another one is asked for, once.
    """

    taken: float
    """On the monotonic clock. The database's own time of it is the transaction's, a little earlier."""

    def still_good(self, desk: Desk, budget: Budget) -> NotSent | None:
        if desk.clock.monotonic() - self.taken <= SLOT_LASTS_S:
            return None
        no = NotSent("rate_budget", "its place in the broker's rate limit lapsed before the send", 1)
        try:
            with desk.store.write(budget.send) as tx:
                if not tx.take_order_slot(desk.scope, desk.policy.orders_per_second or 1):
                    return no
                self.taken = desk.clock.monotonic()
        except StoreUnavailable as error:
            return NotSent(error.code, error.detail)
        return None if desk.clock.monotonic() - self.taken <= SLOT_LASTS_S else no


def take_slot(desk: Desk, tx: Transaction) -> Slot | None:
    """For an entry, late in its intent's transaction. Raises OutOfBudget: nothing was sent, and nothing is kept."""
    many = desk.policy.orders_per_second
    if many is None:
        return None
    if not tx.take_order_slot(desk.scope, many):
        raise OutOfBudget(f"{many} orders in this second already", retry_after_s=1)
    return Slot(desk.clock.monotonic())


def call_once(desk: Desk, budget: Budget, call: BrokerCall, check: LastCheck) -> Outcome:
    """One broker call on a conversation of its own. Whatever goes wrong here is Unknown, never NotSent."""
    outcome: Outcome | None = None
    try:
        with desk.broker.exchange(budget.call, budget.send) as exchanger:
            outcome = call(exchanger, check)
    except Exception as error:  # the intent is committed: nobody can say that nothing was sent
        log.exception("broker call after the committed intent failed")
        return outcome or Unknown(f"unexpected {type(error).__name__} around the broker call")
    return outcome


def send(
    desk: Desk,
    order: Order,
    budget: Budget,
    call: BrokerCall,
    *,
    admin: bool = False,
    slot: Slot | None = None,
) -> Answer:
    """Send a committed SENDING order and record its outcome."""
    outcome = call_once(desk, budget, call, last_check(desk, order, budget, admin=admin, slot=slot))
    answer = record(desk, order, outcome, budget)
    if isinstance(outcome, Accepted) and outcome.sent_late and order.purpose is Purpose.ENTRY:
        _take_back(desk, answer.order, outcome.broker_order_id)
    return answer


def _take_back(desk: Desk, order: Order, broker_order_id: str) -> None:
    """Cancel an entry that a paused process wrote after its deadline, if it still works. One attempt."""
    deadline = Deadline(desk.clock.monotonic() + TAKE_BACK_S)
    try:
        with desk.broker.exchange(deadline) as exchanger:
            said = type(exchanger.cancel(broker_order_id)).__name__
        with desk.store.write(Deadline(desk.clock.monotonic() + RECORD_S)) as tx:
            tx.record(order, event_of(Event.ENTRY_CANCEL, tx.now(), order.status, outcome=said, why="late"))
    except Exception:  # the order stands as recorded, and a person has been paged
        log.exception("late order %s could not be taken back", order.id)


def record_by(desk: Desk, budget: Budget) -> Deadline:
    """For what is kept once the broker has been called: till the answer, and a moment where its time is over already."""
    return Deadline(max(budget.answer.at, desk.clock.monotonic() + RECORD_S))


def record(desk: Desk, order: Order, outcome: Outcome, budget: Budget) -> Answer:
    """The second transaction. It failing after a send makes the answer in doubt, and never an error."""
    if isinstance(outcome, Unknown):
        desk.notifier.notify("in_doubt", f"order {order.id} {order.ticker}: {outcome.message}")
    retry = outcome.retry_after_s if isinstance(outcome, NotSent) else None
    late = isinstance(outcome, Accepted | Unknown) and outcome.sent_late
    if late:
        desk.notifier.notify("sent_late", f"order {order.id} was written after its deadline", page=True)
    try:
        with desk.store.write(record_by(desk, budget)) as tx:
            row = _recorded(tx, order, outcome)
            if late:
                late_event = event_of(Event.ORDER_SENT_LATE, tx.now(), row.status)
                row = tx.record(row, late_event, Moved(code=SENT_LATE))
    except Exception:  # the broker was called: an error here must not read as "nothing was sent"
        log.exception("the outcome of order %s could not be recorded", order.id)
        if isinstance(outcome, NotSent):
            row = replace(order, status=Status.NOT_SENT, code=outcome.code, reason=outcome.message)
        else:
            reason = "sent; its outcome could not be recorded yet"
            row = replace(order, status=Status.IN_DOUBT, code="in_doubt", reason=reason)
    return Answer(row, replayed=False, retry_after_s=retry)


def _recorded(tx: Transaction, order: Order, outcome: Outcome) -> Order:
    after, kind, change = _move_of(outcome, tx.now())
    event = event_of(kind, tx.now(), after, reason=change.reason or "", attempt=str(order.attempt))
    # Without its fence the row may be another sender's by now.
    is_ours = not (isinstance(outcome, NotSent) and outcome.code == LOST_FENCE)
    row = tx.move(order, after, event, change) if is_ours else None
    if row is None:
        row = tx.get_order(order.scope, order.id, lock=True)
        if row is None:
            raise LookupError(f"expected order {order.id}, was gone")
        if isinstance(outcome, NotSent):
            return _gave_up(tx, order, row)
        settled = isinstance(outcome, Accepted) and row.status in DISPROVED_BY_ACCEPTANCE
        settled = settled or (isinstance(outcome, Refused) and row.status is Status.IN_DOUBT)
        moved = tx.move(row, after, event, change) if settled and row.attempt == order.attempt else None
        if moved is None:
            return row
        if row.status is Status.NOT_PLACED:
            _was_wrong(tx, moved)
        row = moved
    if after in (Status.NOT_SENT, Status.REJECTED):
        tx.release(order.scope, order.id)
        share_out(tx, row)
    return row


def _was_wrong(tx: Transaction, order: Order) -> None:
    """Called absent, and the broker took it after all: it counts again, and until a person has looked only exits pass."""
    tx.reserve_again(order.scope, order.id, ())
    share_out(tx, order)
    tx.reduce(order.scope, "sender", f"order {order.id} was called NOT_PLACED, and the broker accepted it")


def _gave_up(tx: Transaction, order: Order, row: Order) -> Order:
    """Somebody settled the row for a sender that was late: the sender itself is the proof that nothing went out."""
    if (row.status, row.attempt, row.fence) != (Status.IN_DOUBT, order.attempt, taken_from(order)):
        return row
    reason = "its sender was too late, and stopped before the first byte"
    event = event_of(Event.ORDER_NOT_PLACED, tx.now(), Status.NOT_PLACED, reason=reason)
    moved = tx.move(row, Status.NOT_PLACED, event, Moved(code="not_placed", reason=reason))
    if moved is None:
        return row
    share_out(tx, moved)
    return moved


def _move_of(outcome: Outcome, now: datetime) -> tuple[Status, Event, Moved]:
    match outcome:
        case Accepted(broker_order_id=broker_id, message=message):
            change = Moved(reason=message or None, broker_order_id=broker_id or None, sent_at=now)
            return Status.ACCEPTED, Event.ORDER_ACCEPTED, change
        case Refused(code=code, message=message):
            return Status.REJECTED, Event.ORDER_REJECTED, Moved(code=code, reason=message, sent_at=now)
        case NotSent(code=code, message=message):
            return Status.NOT_SENT, Event.ORDER_NOT_SENT, Moved(code=code, reason=message)
        case Unknown(message=message):
            change = Moved(code="in_doubt", reason=message, sent_at=now)
            return Status.IN_DOUBT, Event.ORDER_IN_DOUBT, change
