"""Which alerts a full rate limit must not stop: a repeat, which only gets its answer again, and an exit."""

from __future__ import annotations

from enum import StrEnum

from app.domain.alert import Action, Alert
from app.domain.contract import ist_date
from app.domain.risk import Denial
from app.service.desk import Budget, Desk
from app.service.intent import Job
from app.service.place_order import resolve
from app.service.which import is_against_own


class Urgency(StrEnum):
    REPEAT = "repeat"
    EXIT = "exit"


def urgency_of(desk: Desk, alert: Alert, request_id: str, started: float) -> Urgency | None:
    """None: an entry that is not known yet. One read of the database, asked only once the limit is reached.

    Raises Unavailable where it cannot be told; whether it really closes anything is decided by the service.
    """
    budget = Budget.of(started, desk.policy.request_deadline_s)
    with desk.store.read(budget.send) as tx:
        found = tx.arrival(desk.scope, alert.client, alert.key)
        if found.known is not None:
            return Urgency.REPEAT
        if alert.action is Action.EXIT:
            return Urgency.EXIT
        now = tx.now()
        job = Job(alert, request_id, budget, now, ist_date(now), found.state, retake=None)
        resolved = resolve(desk, job)
        if isinstance(resolved, Denial) or not is_against_own(tx, job, desk.scope, resolved.contract):
            return None
        return Urgency.EXIT
