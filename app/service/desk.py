"""What every verb works with: the desk, the operator's policy, one request's time, and the answer it comes to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from app.domain.alert import IST, Exchange
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.experiment import Rollout
from app.domain.order import Order, Scope
from app.domain.risk import Limits
from app.domain.status import Status
from app.service.market import MarketHours
from app.service.ports import Broker, Clock, Contracts, Notifier, Store, Transaction
from app.service.records import AuditEvent

SEND_SHARE = 0.75
"""Of the request's deadline: after it no write to the broker starts, so that a 503 still counts as one (1.5 s)."""
RECORD_S = 0.15
"""Kept from the broker call for recording the outcome and rendering the answer."""


@dataclass(frozen=True)
class Policy:
    """The operator's settings that the verbs go by. Percents as `Decimal`, times in their named units."""

    sl_percent: Decimal
    tp_percent: Decimal
    max_ltp_gap_percent: Decimal
    limits: Limits
    dedupe_window: timedelta
    """How long the same body without a key is a repeat."""
    request_deadline_s: float
    tag_prefix: str
    orders_per_second: int | None = None
    """Entries that may be sent in one second, all instances together; None where the broker has no such limit."""
    rollout: Rollout = field(default_factory=Rollout)
    """Flags and experiments in force."""
    key_ttl: timedelta = timedelta(days=1)
    """How long an explicit key is kept. Its digest holds the IST date, so that more than a day changes nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an alert came to: the row, and whether it is a repeat's."""

    order: Order
    replayed: bool
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything a verb works with."""

    store: Store
    broker: Broker
    contracts: Contracts
    clock: Clock
    scope: Scope
    policy: Policy
    notifier: Notifier
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    market: MarketHours | None = None
    """The broker's word on the exchange's hours, where they are enforced."""
    reconciled: Callable[[Transaction], bool] = lambda _: True
    """Whether a reconcile pass has succeeded since this process started (reconcile.FirstPass)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One request's time, counted from its first byte."""

    send: Deadline
    call: Deadline
    answer: Deadline

    @classmethod
    def of(cls, started: float, request_deadline_s: float) -> Budget:
        return cls(
            send=Deadline(started + SEND_SHARE * request_deadline_s),
            call=Deadline(started + request_deadline_s - RECORD_S),
            answer=Deadline(started + request_deadline_s),
        )


def broker_says_open(desk: Desk, exchange: Exchange, deadline: Deadline) -> bool | None:
    """None where hours are not enforced, or the broker does not say."""
    if desk.market is None or not desk.policy.limits.enforce_hours:
        return None
    return desk.market.is_open(exchange, deadline)


def at_ist(at: datetime) -> str:
    """For a message: the outbox takes the same words within minutes for the same news."""
    return f"{at.astimezone(IST):%H:%M:%S} IST"


def event_of(event: Event, at: datetime, status: Status | None, **detail: str) -> AuditEvent:
    return AuditEvent(event, at, status, detail)
