"""From an alert to an order row: who it is (its key), what it would be (a draft), and putting it into the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from app.domain.alert import ADMIN_CLIENT, Action, Alert, Exchange, KeyKind
from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.order import Order, Purpose, Side, order_id, tag_of
from app.domain.risk import Denial, TradingState
from app.domain.status import Status
from app.errors import KeyClash, KeyInUse, NotReconciled
from app.service.desk import Answer, Budget, Desk, event_of
from app.service.observe import note, trace_detail
from app.service.ports import Transaction
from app.service.records import AuditEvent, Known, Moved


@dataclass(frozen=True, slots=True)
class Job:
    """One alert on its way."""

    alert: Alert
    request_id: str
    budget: Budget
    now: datetime
    today: date
    state: TradingState
    retake: Order | None
    """The NOT_SENT row that this delivery tries again, or the waiting exit that is run now."""
    reconciled: bool = True
    """Whether a reconcile pass has succeeded since this process started: before it our rows may not be all there is."""

    @property
    def is_operators(self) -> bool:
        """A person who halted may still get out, be it of all that is held or of what is his own."""
        return self.alert.client == ADMIN_CLIENT

    @property
    def all_clients(self) -> bool:
        """The operator's EXIT is of all that is held. His BUY or SELL is about what is his own, also while it waits."""
        asked = self.alert if self.retake is None else self.retake
        return self.is_operators and asked.action is Action.EXIT


def known_answer(desk: Desk, known: Known, alert: Alert, now: datetime) -> Answer | None:
    """What a repeat is answered; None when its row was not sent and may be tried again."""
    order = known.order
    if known.body_hash != alert.key.body_hash:
        desk.notifier.notify("key_clash", f"key of order {order.id} came with another body")
        raise KeyClash(f"this idempotency key belongs to order {order.id}, which came with another body")
    if order.status is Status.NOT_SENT:
        return None
    if order.status is Status.SENDING and order.answer_by is not None and now < order.answer_by:
        raise KeyInUse("the same alert is being worked on right now", retry_after_s=1)
    return Answer(order, replayed=True)


def unknown_contract(alert: Alert, today: date) -> Contract:
    """What a denied row shows when the alert means no contract: the alert's own words and an empty ticker."""
    return Contract(
        exchange=alert.exchange or Exchange.NSE,
        underlying=alert.symbol,
        expiry=alert.expiry if isinstance(alert.expiry, date) else today,
        session_end=alert.received_at,
        strike=alert.strike,
        option_type=alert.option_type,
        ticker="",
        lot=1,
        tick=Decimal("0.05"),
        freeze=None,
        underlying_ticker=None,
        is_stock=False,
        master_date=today,
    )


def listed(contract: Contract | Order, today: date) -> Contract:
    """A held order's contract, as far as its row tells: an exit needs no master."""
    if isinstance(contract, Contract):
        return contract
    return Contract(
        exchange=contract.exchange,
        underlying=contract.underlying,
        expiry=contract.expiry,
        session_end=contract.session_end,
        strike=contract.strike,
        option_type=contract.option_type,
        ticker=contract.ticker,
        lot=contract.lot,
        tick=Decimal("0.05"),
        freeze=None,
        underlying_ticker=None,
        is_stock=False,
        master_date=today,
    )


def draft(
    desk: Desk, job: Job, contract: Contract | Order, side: Side, quantity: int, purpose: Purpose
) -> Order:
    """The row that this alert would be. A retake keeps id, tag and the time of birth."""
    alert, old = job.alert, job.retake
    ident = old.id if old else order_id(desk.scope, alert.key, desk.random_bytes)
    note(order_id=ident)
    return Order(
        id=ident,
        scope=desk.scope,
        client=alert.client,
        strategy=alert.strategy,
        key=alert.key,
        purpose=purpose,
        action=old.action if old else alert.action,
        exchange=contract.exchange,
        underlying=contract.underlying,
        expiry=contract.expiry,
        session_end=contract.session_end,
        strike=contract.strike,
        option_type=contract.option_type,
        ticker=contract.ticker,
        lot=contract.lot,
        side=side,
        quantity=quantity,
        product=alert.product,
        status=Status.SENDING,
        ist_date=job.today,
        tag=old.tag if old else tag_of(desk.policy.tag_prefix, ident),
        attempt=old.attempt + 1 if old else 1,
        signal_price=alert.signal_price,
        warnings=alert.warnings,
        request_id=job.request_id,
        created_at=old.created_at if old and old.created_at else job.now,
        updated_at=job.now,
    )


def claim(desk: Desk, tx: Transaction, job: Job, ident: str) -> Answer | None:
    """Take the alert's key for `ident`. An Answer: another delivery of it was first, and this is its repeat."""
    alert, old = job.alert, job.retake
    if old is not None and old.status is Status.EXIT_PENDING:
        return None  # its own row has the key, and only one reconciliation runs it: `put` decides
    explicit = alert.key.kind is KeyKind.EXPLICIT
    ttl = desk.policy.key_ttl if explicit else desk.policy.dedupe_window
    if old is None:
        restored = tx.find_tag(desk.scope, tag_of(desk.policy.tag_prefix, ident)) if explicit else None
        if tx.claim_key(desk.scope, alert.client, alert.key, restored.id if restored else ident, ttl):
            return None if restored is None else _own_again(tx, job, restored)
    known = tx.find_key(desk.scope, alert.client, alert.key)
    if known is not None:
        answer = known_answer(desk, known, alert, tx.now())
        if answer is not None:
            return answer
        if old is None or known.order.id != old.id or known.order.attempt != old.attempt:
            raise KeyInUse("another delivery of this alert has just been tried", retry_after_s=1)
        return None
    if not tx.claim_key(desk.scope, alert.client, alert.key, ident, ttl):
        raise KeyInUse("the same alert is being worked on right now", retry_after_s=1)
    return None


def _own_again(tx: Transaction, job: Job, order: Order) -> Answer:
    """The alert's order is at the broker already: adopted from its book after a restore, its sender unknown till now."""
    event = event_of(Event.ORDER_ADOPTED, tx.now(), order.status, client=job.alert.client, by="its alert")
    return Answer(tx.record(order, event, Moved(client=job.alert.client)), replayed=True)


def put(tx: Transaction, job: Job, order: Order, event: AuditEvent) -> None:
    """Insert the row, or overwrite the one that was not sent, or waited, with its next attempt."""
    if job.retake is None:
        tx.insert_order(order, event)
    elif not tx.restart_order(order, event, job.retake.status):
        raise KeyInUse("another delivery of this alert has just been tried", retry_after_s=1)


def sender(order: Order) -> dict[str, str]:
    """Who sent it, under the event's hash: a column of the row could be changed without breaking the chain."""
    return {"client": order.client, "strategy": order.strategy}


def put_denied(tx: Transaction, job: Job, order: Order, denial: Denial) -> Order:
    row = replace(order, status=Status.DENIED, code=denial.code, reason=denial.reason)
    why = {"code": denial.code, "reason": denial.reason}
    event = event_of(Event.ORDER_DENIED, tx.now(), row.status, **sender(order), **why)
    put(tx, job, row, event)
    return row


def put_sending(tx: Transaction, job: Job, order: Order) -> None:
    detail = sender(order)
    detail |= {"attempt": str(order.attempt), "ticker": order.ticker, "quantity": str(order.quantity)}
    if order.stop_loss is not None:
        detail |= {"stop_loss": str(order.stop_loss), "take_profit": str(order.take_profit or "")}
    if order.variant:
        detail |= {"variant": order.variant, "kind": order.kind, "limit_price": str(order.limit_price or "")}
    detail |= trace_detail()
    put(tx, job, order, event_of(Event.ORDER_SENDING, tx.now(), order.status, side=order.side, **detail))


def deny(
    desk: Desk,
    job: Job,
    order: Order,
    denial: Denial,
    also: Callable[[Transaction], None] = lambda _: None,
) -> Answer:
    """A "no" of ours, durable under the alert's key, and in one transaction with what it `also` means. Not before the
    first pass where its order may be at the broker and forgotten here (a restore): the "no" would take the tag that it
    is to be found by.
    """
    if not job.reconciled and job.alert.key.kind is KeyKind.EXPLICIT:
        raise NotReconciled("the orders of before this start are being looked up", retry_after_s=5)
    with desk.store.write(job.budget.send) as tx:
        repeat = claim(desk, tx, job, order.id)
        if repeat is not None:
            return repeat
        row = put_denied(tx, job, order, denial)
        also(tx)
    return Answer(row, replayed=False)
