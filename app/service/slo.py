"""What the service promises, how an answer is judged by it, and how much of each month's allowance is used up.

Three objectives. Availability: an alert gets an answer that says what became of it; a 503 counts against us unless its
code says that somebody else was the reason (the broker, his token, a limit that the operator has set). Latency: the
answer comes within two seconds, the time in the thread's queue counted. Correctness: no alert whose fate nobody knows;
of those not one is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.audit import Event
from app.domain.order import Order, Scope
from app.domain.status import Status
from app.service.audit_check import Entry
from app.service.records import Refusal

ANSWER_WITHIN_S = 2.0
DOUBT_MAY_LAST = timedelta(seconds=30)
NOT_OURS = frozenset(
    {
        "broker_unavailable",
        "broker_unreachable",
        "broker_refused",
        "broker_rate_limited",
        "broker_polls_stopped",
        "breaker_open",
        "token_expired",
        "rate_budget",
        "trading_state",
    }
)
"""Codes of a 503 that a faultless service would have answered as well. `out_of_time` is not here: it may be us."""
REFUSED, SERVER_ERROR, UNAVAILABLE = 400, 500, 503


class Objective(StrEnum):
    AVAILABILITY = "availability"
    LATENCY = "latency"


TARGET: Mapping[Objective, float] = {Objective.AVAILABILITY: 0.995, Objective.LATENCY: 0.99}
MEANING: Mapping[Objective, str] = {
    Objective.AVAILABILITY: "known senders' alerts answered without a failure of ours (a broker that is down is not ours)",
    Objective.LATENCY: f"sent orders whose outcome was known within {ANSWER_WITHIN_S:g} s, the alert's deadline",
}


def budget(objective: Objective) -> float:
    """The part of all alerts that may go wrong."""
    return round(1 - TARGET[objective], 6)


def is_available(status: int, code: str | None) -> bool:
    return status < SERVER_ERROR or (status == UNAVAILABLE and code in NOT_OURS)


def is_judged(status: int, client: str | None) -> bool:
    """A stranger's request that was turned away is no alert: a flood of them would make every failure look rare."""
    return client is not None or not REFUSED <= status < SERVER_ERROR


def is_in_time(seconds: float) -> bool:
    return seconds <= ANSWER_WITHIN_S


@dataclass(frozen=True, slots=True)
class Score:
    """One objective over a window."""

    objective: Objective
    bad: int
    all: int

    @property
    def good_part(self) -> float | None:
        """None where there was nothing to judge."""
        return None if self.all == 0 else 1 - self.bad / self.all

    @property
    def budget_left(self) -> float:
        """1 when nothing is used up, 0 when all is, below zero when the promise is broken."""
        allowed = budget(self.objective) * self.all
        return 1.0 if self.bad == 0 else 1 - self.bad / allowed


@dataclass(frozen=True, slots=True)
class Report:
    since: datetime
    scores: tuple[Score, ...]
    unaccounted: tuple[Order, ...]
    """Whose fate nobody knows, and for too long."""
    refusals_since: datetime | None
    """Refusals are kept in a bounded number: from when on they are counted. None: all of the window's are there."""


def report(
    since: datetime,
    now: datetime,
    scope: Scope,
    orders: Sequence[Order],
    entries: Iterable[Entry],
    refusals: Sequence[Refusal],
    kept_refusals: int,
) -> Report:
    """`orders` and `entries` of the window's days, `refusals` newest first and at most `kept_refusals` of them.

    An alert whose commit got lost has its 503 and may have its row: that one tells of it.
    """
    orders = [o for o in orders if (o.created_at or now) >= since]
    rows = {o.request_id for o in orders}
    refused = [
        r
        for r in refusals
        if r.at >= since
        and is_judged(r.status, r.client)
        and not (r.status == UNAVAILABLE and r.request_id in rows)
    ]
    is_cut = len(refusals) >= kept_refusals and refusals[-1].at > since
    failed = sum(not is_available(r.status, r.code) for r in refused)
    failed += sum(is_ours(o, now) for o in orders)
    late, judged = lateness(orders, answers(entries, scope))
    return Report(
        since,
        (
            Score(Objective.AVAILABILITY, failed, len(orders) + len(refused)),
            Score(Objective.LATENCY, late, judged),
        ),
        tuple(o for o in orders if is_unaccounted(o, now)),
        refusals[-1].at if is_cut else None,
    )


def is_ours(order: Order, now: datetime) -> bool:
    """Whether its alert got no answer, or a 503 by our own failure."""
    if order.status is Status.SENDING:
        return order.answer_by is not None and order.answer_by < now
    return order.status in (Status.NOT_SENT, Status.EXPIRED) and _was_not_sent(order)


def _was_not_sent(order: Order) -> bool:
    """EXPIRED is also the end of an order that had been accepted."""
    return order.broker_order_id is None and order.code not in NOT_OURS


def is_unaccounted(order: Order, now: datetime) -> bool:
    if order.status is Status.NEEDS_REVIEW:
        return True
    if order.status is Status.SENDING:
        return order.answer_by is not None and order.answer_by < now
    return (
        order.status is Status.IN_DOUBT and now - (order.sent_at or order.created_at or now) > DOUBT_MAY_LAST
    )


def answers(entries: Iterable[Entry], scope: Scope) -> dict[str, datetime | None]:
    """By order that was sent: when the outcome of its last attempt was recorded; None when never."""
    found: dict[str, datetime | None] = {}
    for entry in entries:
        if (entry.mode, entry.account) != (scope.mode.value, scope.account):
            continue
        if entry.event == Event.ORDER_SENDING:
            found[entry.order_id] = None
        elif entry.order_id in found and found[entry.order_id] is None and entry.status is not None:
            found[entry.order_id] = entry.at
    return found


def lateness(orders: Iterable[Order], answered: Mapping[str, datetime | None]) -> tuple[int, int]:
    """Of the orders that were sent: how many had no outcome by their deadline, and how many there are."""
    sent = [o for o in orders if o.answer_by is not None and o.id in answered]
    late = sum(1 for o in sent if (at := answered[o.id]) is None or at > (o.answer_by or at))
    return late, len(sent)
