"""Exits that had to wait, run once what they wait for is settled: reduce-only, like any exit."""

from __future__ import annotations

import logging
from datetime import datetime

from app.domain.alert import ADMIN_CLIENT, Action, Alert
from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Purpose, Side
from app.domain.risk import Denial
from app.domain.status import Status
from app.errors import NoMaster, ServiceError
from app.service.desk import Budget, Desk, event_of
from app.service.exits import close
from app.service.intent import Job, deny, draft
from app.service.legs import LEG_CANCEL_IN_DOUBT
from app.service.ports import Transaction
from app.service.records import Moved

log = logging.getLogger(__name__)

GONE = Denial("nothing_to_exit", "what this exit was to close was never opened, or is gone")


def run_pending(desk: Desk, *, reconciled: bool = True) -> list[Order]:
    """Try each waiting exit once, oldest first. One that still has to wait stays; one that was not sent waits on.

    Without `reconciled` none is told that there is nothing to close.
    """
    with desk.store.read() as tx:
        waiting = [o for o in tx.open_orders(desk.scope) if o.status is Status.EXIT_PENDING]
    changed = []
    for order in waiting:
        job = _job(desk, order, reconciled=reconciled)
        try:
            answer = close(desk, job, order, _freeze(desk, order, job.now), _side(order), order.explanation)
            if answer is None:
                answer = deny(
                    desk, job, draft(desk, job, order, order.side, order.quantity, Purpose.EXIT), GONE
                )
        except ServiceError as error:  # a failed read, or another exit at it: the next pass tries again
            log.warning("waiting exit %s could not run: %s", order.id, error.code)
            continue
        row = answer.order
        if row.status is Status.NOT_SENT:
            with desk.store.write() as tx:
                row = wait_on(tx, row, order.client) or row
        if row.status is not Status.EXIT_PENDING:
            changed.append(row)
        if row.status is Status.ACCEPTED and row.quantity < order.quantity and row.warnings != order.warnings:
            text = f"waiting exit {row.id} {row.ticker}: {'; '.join(row.warnings)}"
            desk.notifier.notify("exit_cut", text, page=True)
        elif row.status is Status.DENIED and row.code != GONE.code:
            text = f"waiting exit {row.id} {row.ticker} was denied: {row.reason}"
            desk.notifier.notify("exit_cut", text, page=True)
    return changed


def _side(order: Order) -> Side | None:
    """A BUY or SELL that waits to close the other side never closes its own, which a later alert may have opened."""
    return None if order.action is Action.EXIT else order.side


def _freeze(desk: Desk, order: Order, now: datetime) -> int | None:
    """The exchange's largest quantity of one order, where the index knows it."""
    try:
        found = desk.contracts.by_ticker(order.ticker, now)
    except NoMaster:
        return None
    return None if found is None else found.freeze


def _job(desk: Desk, order: Order, *, reconciled: bool) -> Job:
    started = desk.clock.monotonic()
    with desk.store.read() as tx:
        now, state = tx.now(), tx.trading_state(desk.scope)
    alert = Alert(
        client=order.client,
        symbol=order.underlying,
        strike=order.strike,
        option_type=order.option_type,
        expiry=order.expiry,
        action=Action.EXIT,
        product=order.product,
        key=order.key,
        received_at=now,
        qty=order.quantity,
        exchange=order.exchange,
        strategy=order.strategy,
        warnings=order.warnings,
    )
    budget = Budget.of(started, desk.policy.request_deadline_s)
    return Job(alert, order.request_id, budget, now, ist_date(now), state, order, reconciled)


def wait_on(tx: Transaction, row: Order, client: str | None = None) -> Order | None:
    """Nobody sends a waiting exit again but the reconciliation: it must not end as a lost alert.

    `client`: whose it was while it waited; None: looked up. The operator's exit goes under its holder's name when it is
    sent, and waiting under that name it would wait for the end of the halt that it may be part of.
    """
    if client is None:
        known = tx.find_key(row.scope, ADMIN_CLIENT, row.key)
        client = ADMIN_CLIENT if known is not None and known.order.id == row.id else row.client
    reason = f"not sent yet: {row.reason}"
    event = event_of(Event.EXIT_PENDING, tx.now(), Status.EXIT_PENDING, reason=reason)
    change = Moved(code="exit_pending", reason=reason, client=client)
    return tx.move(row, Status.EXIT_PENDING, event, change)


def is_told_to_wait(desk: Desk, row: Order) -> bool:
    """Whether an unsent exit's sender was answered that it waits, so that no re-send comes: whoever was to put it back
    ended, or had no database, between the two.
    """
    if row.purpose is not Purpose.EXIT or row.status is not Status.NOT_SENT:
        return False
    if row.code == LEG_CANCEL_IN_DOUBT:
        return True
    return any(e.event is Event.EXIT_PENDING for e in desk.store.events(row.scope, row.id))
