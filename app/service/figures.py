"""What is true for the whole cluster at a moment, as its figures: read from the database, never counted by a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from app.domain.order import Order, Protection, Purpose
from app.service.records import Holding

LONG_AGO = datetime.min.replace(tzinfo=UTC)
NEAR = 2
"""A signal's price within this factor of the fill's is of the option itself. Any other is of the chart's own
instrument, mostly the underlying, and says nothing of what the option cost.
"""


@dataclass(frozen=True, slots=True)
class OrderCount:
    """Orders of the IST day in one state."""

    state: str
    product: str
    strategy: str
    count: int


@dataclass(frozen=True, slots=True)
class CapUse:
    name: str
    used: int | Decimal
    limit: int | Decimal


class Leg(StrEnum):
    """Between which of the three prices of an order: its signal's, the last price it went by, its fill's."""

    SIGNAL_TO_ORDER = "signal_to_order"
    ORDER_TO_FILL = "order_to_fill"
    SIGNAL_TO_FILL = "signal_to_fill"


@dataclass(frozen=True, slots=True)
class Slip:
    """One leg of one fill of the day. Positive: the later price was worse than the earlier one."""

    product: str
    purpose: str
    percent: Decimal
    leg: Leg = Leg.ORDER_TO_FILL


def slips_of(
    product: str, purpose: str, sign: int, signal: Decimal | None, ltp: Decimal | None, fill: Decimal
) -> tuple[Slip, ...]:
    """What can be told of one fill. `sign`: 1 for a BUY, -1 for a SELL."""
    near = signal if is_near(signal, fill) else None
    legs = (
        (Leg.SIGNAL_TO_ORDER, near, ltp),
        (Leg.ORDER_TO_FILL, ltp, fill),
        (Leg.SIGNAL_TO_FILL, near, fill),
    )
    return tuple(
        Slip(product, purpose, (after - before) * sign / before * 100, leg)
        for leg, before, after in legs
        if before and after
    )


def is_near(signal: Decimal | None, price: Decimal) -> bool:
    return signal is not None and price / NEAR <= signal <= price * NEAR


def entries_held(holding: Holding, orders: Iterable[Order]) -> list[Order]:
    """The entries that a holding can be made of, newest fill first: its client's last ones on its side, until they come
    to its quantity. What goes out counts as what came in first: an entry that was exited, on whatever day, says nothing
    of what was bought after it, and what was carried counts for as long as the newer ones do not come to all that is
    held.

    One that never asked for a stop is among them and covers nothing: before it is gone back further, so that it hides
    no missing stop.
    """
    left, found = abs(holding.net_quantity), []
    for order in sorted(orders, key=_filled_at, reverse=True):
        if left <= 0:
            break
        ours = order.client == holding.client and order.purpose is Purpose.ENTRY and order.filled_quantity
        if not ours or order.side.sign * holding.net_quantity <= 0:
            continue
        found.append(order)
        left -= order.filled_quantity if order.protection is not Protection.NONE else 0
    return found


def has_no_stop(holding: Holding, orders: Iterable[Order]) -> bool:
    """Whether the stop of something in it was found missing, by the last look: the watch's at the day's entries, the
    morning's at what was carried. `orders`: all of its contract and product.
    """
    return any(o.protection is Protection.MISSING for o in entries_held(holding, orders))


def _filled_at(order: Order) -> tuple[datetime, bool]:
    # Of those that one pass saw filled nobody knows the order: the one without a stop counts as the newer.
    return order.filled_at or order.created_at or LONG_AGO, order.protection is Protection.MISSING


@dataclass(frozen=True, slots=True)
class JobFigure:
    """A job as the whole cluster sees it: of one that each host runs for itself, the host where it went well last."""

    name: str
    failed: bool
    """The last run that ended; one under way says nothing yet."""
    success_age_s: float | None
    """None: it never went well."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Ages in seconds on the database's clock; None where there is nothing of the kind."""

    orders: tuple[OrderCount, ...] = ()
    in_doubt: int = 0
    oldest_doubt_s: float | None = None
    unaccounted: int = 0
    """SENDING past their deadline: their sender is gone, and nobody has looked yet."""
    needs_review: int = 0
    exit_pending: int = 0
    unprotected: int = 0
    """Positions with something in them whose stop was found missing (`has_no_stop`)."""
    trading_state: str = ""
    last_pass_s: float | None = None
    caps: tuple[CapUse, ...] = ()
    slips: tuple[Slip, ...] = ()
    signals_elsewhere: int = 0
    """Fills of the day whose signal had a price of another instrument."""
    heartbeats_missing: int = 0
    """Strategies whose heartbeat is overdue, within the session."""
    oldest_page_waiting_s: float = 0.0
    """Age of the oldest page that a channel which wants it has not taken, or that nobody has handed to the channels yet;
    0: there is none.
    """
    jobs: tuple[JobFigure, ...] = ()
    audit_broken: bool = False
    """What the last verification of the audit that came to its end said."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    """What is true for this host, whichever worker is asked."""

    master_age_s: float | None = None
    master_stale: bool | None = None
    """Whether the index is older than the previous trading day, so that entries are denied."""
    token_left_s: float | None = None
    trading_day: bool | None = None
    """Whether today (IST) is one."""
    budget_left: dict[str, int] = field(default_factory=dict)
    """By window, where instances share it; empty where each process has its own."""


ReadFigures = Callable[[], Figures]
"""Raises StoreUnavailable."""
