"""What a person is told: notices, how the audit trail becomes notices, and the ports of their outbox."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Order, Purpose
from app.domain.risk import TradingState
from app.service.records import AuditEvent, StateChange

TEXT_CHARS = 1000
SAME_PAGE = timedelta(minutes=10)
"""A page with the very same words within this is the same page."""
NO_SOONER = timedelta(seconds=60)
"""After a message of a code its next ones are collected this long, and told as one. A page never waits."""
CLAIM_LEASE = timedelta(seconds=15)
"""A sender that has said nothing for so long is dead, and its claims go to another one."""
BY_WORDS = "told"
"""Begins the key of a notice that is known by its words: unique for one service, and the outbox adds for which."""
LINES = 12
"""Of one message; what is more is only counted."""
_ORDER_ID = re.compile(r"\b[A-Z2-7]{26}\b")


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `key` is unique: whoever adds it a second time adds nothing."""

    code: str
    message: str
    page: bool
    key: str
    subject: str = ""
    """The order it is about."""
    happened_at: datetime | None = None
    """As whoever saw it has the time."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way to one channel. `ref` stays the same when it has to be sent again."""

    ref: str
    channel: str
    title: str
    body: str
    page: bool


@dataclass(frozen=True, slots=True)
class Channel:
    """Where messages go. `wanted`: `all`, `pages`, codes; `-code` takes one out. `clients` alone: nothing but what
    clients have chosen it for.
    """

    id: str
    name: str
    wanted: tuple[str, ...]
    per_minute: int

    def wants(self, code: str, *, page: bool) -> bool:
        if f"-{code}" in self.wanted:
            return False
        return "all" in self.wanted or code in self.wanted or (page and "pages" in self.wanted)

    def is_called(self, word: str) -> bool:
        """By its number in NOTIFY_URLS, by its kind (`tgram`), or by both as its name has them."""
        return word.lower() in (self.name, *self.name.split(" "))


def going_to(channels: Sequence[Channel], code: str, chosen: Sequence[str], *, page: bool) -> list[Channel]:
    """Where one notice goes. `chosen`: what the client whose order it is about has chosen; a page goes to the operator
    whatever that is, and a choice of channels that are no more is none: nothing is lost by it.
    """
    usual = [c for c in channels if c.wants(code, page=page)]
    his = [c for c in channels if any(c.is_called(word) for word in chosen)]
    if not his:
        return usual
    told = [c for c in his if f"-{code}" not in c.wanted]
    return told + [c for c in usual if page and c not in told]


class Outbox(Protocol):
    """Where notices wait for their sender. Every method raises StoreUnavailable."""

    def join(self, notice: Notice) -> bool:
        """Into the transaction that this thread has open: it is kept when that one is. False: none is open."""

    def add(self, notice: Notice) -> None:
        """In a short transaction of its own."""

    def is_idle(self, now: datetime) -> bool:
        """Nothing to derive and nothing to send: found by reading alone."""

    def derive(self, now: datetime) -> int:
        """What the audit trail has to tell since the last time."""

    def hand_out(self, channels: Sequence[Channel], owner: str, done: Iterable[str]) -> list[Parcel]:
        """Whatever is due, claimed for `owner` for CLAIM_LEASE. `done`: refs that a predecessor has sent, as its
        receipts say. A page that waits for a channel which nobody serves any more goes to `channels` instead.
        """

    def renew(self, owner: str) -> None:
        """What `owner` has claimed stays its own for CLAIM_LEASE more. Only its own process may say so."""

    def settle(self, owner: str, ref: str, channel: str, *, sent: bool) -> None:
        """How a parcel of `owner` ended. One that failed is due again later, with its whole channel, unless somebody
        has taken it over meanwhile; one that was sent has been told, whoever has it now.
        """

    def give_back(self, owner: str, ref: str, channel: str) -> None:
        """One that `owner` has claimed and not begun to send."""


DERIVED: dict[Event, tuple[str, bool]] = {
    Event.ORDER_ACCEPTED: ("order_accepted", False),
    Event.ORDER_FILLED: ("order_filled", False),
    Event.ORDER_PARTIALLY_FILLED: ("order_partially_filled", False),
    Event.ORDER_REJECTED: ("order_rejected", False),
    Event.ORDER_DENIED: ("order_denied", False),
    Event.ORDER_NOT_PLACED: ("order_not_placed", False),
    Event.ORDER_IN_DOUBT: ("in_doubt", False),
    Event.ORDER_SENT_LATE: ("sent_late", True),
    Event.LEG_UNPROTECTED: ("unprotected", True),
}
"""From audit event to code and page. The trail is committed with the order, so that a crash right afterwards
loses none of these; what is told inside a transaction joins that one instead."""
PAGE_OF_EXIT = frozenset({Event.ORDER_REJECTED, Event.ORDER_NOT_PLACED})
"""An exit that came to nothing: what it was to close is still open, and nobody sends it again."""
CODES = frozenset(code for code, _ in DERIVED.values()) | frozenset(
    {
        "alert_burst",
        "audit_broken",
        "breaker_closed",
        "breaker_open",
        "closed_by_hand",
        "config_invalid",
        "daily_loss",
        "daily_loss_unknown",
        "daily_summary",
        "exit_cut",
        "exit_unfilled",
        "exit_waits_for_legs",
        "heartbeat_back",
        "heartbeat_missing",
        "key_clash",
        "lost_alert",
        "needs_review",
        "overnight_unknown",
        "overnight_unprotected",
        "preflight_not_ready",
        "protection_missing",
        "rate_limit_breached",
        "runaway",
        "stop_beside_exit",
        "token_damaged",
        "token_expired",
        "token_key_missing",
        "token_missing",
        "token_renewed",
        "token_store_unavailable",
        "token_swapped",
        "trading_state",
        "unknown_orders",
        "wrong_verdict",
    }
)
"""All that is ever told: a preference for another one is a slip of the pen, and would lose a page unseen."""
TOLD_BY_TRAIL = frozenset({"in_doubt", "sent_late", "unprotected"})
"""Codes that are told directly too, for when the trail itself could not be written: never both for one order."""
HAPPENS_AGAIN = frozenset({"unprotected"})
"""Those of them that may happen to one order more than once. The two are of the same time when within ONE_EVENT."""
ONE_EVENT = timedelta(seconds=60)
"""Its finder tells of it and writes it down within a request's time; the database may be away for a moment."""
ONCE_A_DAY = frozenset({"daily_summary", "token_missing"})
"""Notes of a day's jobs, told once an IST day in the same words: a job whose process died before its end was recorded
is run again. Other words are news, as of a summary that a person asks for again."""
TRADING_STATE = "trading_state"
"""Told from the history of states alone, whoever changed it."""


def told(code: str, message: str, at: datetime, *, page: bool) -> Notice:
    """A notice from the words of whoever saw something."""
    text = message[:TEXT_CHARS]
    once = ist_date(at) if code in ONCE_A_DAY else at
    slot = _slot(at) if page else once.isoformat()
    found = _ORDER_ID.search(text)
    return Notice(code, text, page, _key(code, text, slot), found.group() if found else "", at)


def key_before(notice: Notice) -> str | None:
    """The key that the same words of a page had in the SAME_PAGE before. None: it is not known by its words."""
    if not notice.page or notice.happened_at is None or not notice.key.startswith(f"{BY_WORDS}:"):
        return None
    return _key(notice.code, notice.message, _slot(notice.happened_at - SAME_PAGE))


def _slot(at: datetime) -> str:
    return str(int(at.timestamp() // SAME_PAGE.total_seconds()))


def _key(code: str, text: str, slot: str) -> str:
    digest = hashlib.sha256(f"{code}\0{text}\0{slot}".encode()).hexdigest()[:32]
    return f"{BY_WORDS}:{digest}"


def from_event(order: Order, event: AuditEvent) -> Notice | None:
    """What an order's event has to tell; None: nothing."""
    if event.event not in DERIVED:
        return None
    code, page = DERIVED[event.event]
    still_open = order.purpose is Purpose.EXIT and event.event in PAGE_OF_EXIT
    what = f"{order.purpose} {order.side} {order.quantity} {order.ticker or order.underlying} {order.product}"
    whose = f" [{order.strategy}]" if order.strategy else ""
    reason = event.detail.get("reason") or (order.reason if event.event is Event.ORDER_DENIED else "") or ""
    more = f": {' '.join(reason.split())}" if reason else _filled(order, event)
    more += "; what it was to close is still open: send an EXIT again" if still_open else ""
    text = f"{what}{whose}{more} (order {order.id})"
    key = f"event:{order.id}:{event.sequence}"
    return Notice(code, text[:TEXT_CHARS], page or still_open, key, order.id, event.at)


def _filled(order: Order, event: AuditEvent) -> str:
    if event.event not in (Event.ORDER_FILLED, Event.ORDER_PARTIALLY_FILLED):
        return ""
    price = "" if order.fill_price is None else f" at {order.fill_price:f}"
    return f": {order.filled_quantity} of {order.quantity} filled{price}"


def from_state(number: int, change: StateChange, scope: str) -> Notice:
    page = change.state is not TradingState.ACTIVE
    text = f"{change.state} by {change.by}: {change.reason}"
    return Notice(TRADING_STATE, text[:TEXT_CHARS], page, f"state:{scope}:{number}")


def body_of(messages: Sequence[str]) -> str:
    """One message for all of a group, the oldest first."""
    if len(messages) == 1:
        return messages[0]
    rest = len(messages) - LINES
    return "\n".join(
        [f"{len(messages)} times:", *messages[:LINES], *([f"… and {rest} more"] if rest > 0 else [])]
    )
