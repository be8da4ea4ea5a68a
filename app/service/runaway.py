"""A strategy that fires without end: what it has tried counts whatever became of it, and stops the entries of all."""

from __future__ import annotations

from datetime import timedelta

from app.domain.checks import tries
from app.domain.order import Order
from app.domain.risk import Denial, TradingState
from app.service.desk import Answer, Desk
from app.service.intent import Job, deny
from app.service.ports import Transaction

RUNAWAY = "runaway"


def deny_entry(desk: Desk, job: Job, order: Order, denial: Denial) -> Answer:
    """A "no" to an entry counts among what its strategy has tried, whichever check said it first."""
    most, wild = desk.policy.limits.runaway, list[str | None]()

    def count(tx: Transaction) -> None:
        if most is not None and job.state is TradingState.ACTIVE:
            wild.append(trip(tx, desk, tx.tried(order, timedelta(seconds=most.seconds))))

    answer = deny(desk, job, order, denial, count)
    for why in wild:
        tell_runaway(desk, order, why)
    return answer


def trip(tx: Transaction, desk: Desk, tried: int) -> str | None:
    """A strategy gone wild is stopped for all: exits pass, entries wait for a person. Why, where it did so just now."""
    most = desk.policy.limits.runaway
    reason = None if most is None else tries(tried, most).reason
    return reason if reason is not None and tx.reduce(desk.scope, RUNAWAY, reason) else None


def tell_runaway(desk: Desk, order: Order, why: str | None) -> None:
    if why is not None:
        text = f"strategy {order.strategy or 'without a name'} of {order.client}: only exits pass now"
        desk.notifier.notify(RUNAWAY, text, page=True)
