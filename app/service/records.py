"""The plain records that cross the ports: what a broker's book says, what the store keeps beside orders.

Units: quantities in contracts, prices in rupees (`Decimal`), times aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.contract import Contract
from app.domain.order import Order, Protection, Side
from app.domain.risk import TradingState
from app.domain.status import Status


class BookStatus:
    """Fyers' order book states (fyers-api.md 2.6). Not our `Status`: a row says what is, not what we know."""

    CANCELLED = 1
    FILLED = 2
    TRANSIT = 4
    REJECTED = 5
    PENDING = 6
    EXPIRED = 7


@dataclass(frozen=True, slots=True)
class BookOrder:
    """One row of the broker's order book of today."""

    broker_order_id: str
    ticker: str
    side: Side
    quantity: int
    filled_quantity: int
    status: int
    """One of BookStatus."""
    product: str
    """The wire's word: a hand may have used a product that we do not know."""
    tag: str | None
    """Ours or anybody's, without Fyers' `1:`; None when untagged."""
    placed_at: datetime
    traded_price: Decimal | None = None
    parent_id: str | None = None
    source: str = ""
    message: str = ""
    has_stop: bool = False
    has_target: bool = False
    is_stop: bool = False
    """It waits for a trigger: by its type, or by a trigger that it names."""

    @property
    def is_working(self) -> bool:
        return self.status in (BookStatus.TRANSIT, BookStatus.PENDING)


@dataclass(frozen=True, slots=True)
class Trade:
    """One row of the broker's trade book of today: a fill, whoever's order it belongs to."""

    id: str
    """The broker's number of the fill."""
    broker_order_id: str
    ticker: str
    product: str
    side: Side
    quantity: int
    price: Decimal | None
    at: datetime
    """Aware UTC, to the second."""
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """The broker's net position in one contract and product, whoever opened it."""

    id: str
    ticker: str
    product: str
    net_quantity: int
    """Signed: long above zero, short below."""
    average_price: Decimal | None = None
    has_stop: bool = False
    has_target: bool = False
    profit: Decimal | None = None
    """Rupees of today, realised and open; a loss is negative. None: the broker does not say."""


@dataclass(frozen=True, slots=True)
class Quote:
    """An answered quote. A missing, zero or non-finite price is None: unusable, and never a number."""

    ticker: str
    ltp: Decimal | None
    bid: Decimal | None
    ask: Decimal | None


@dataclass(frozen=True, slots=True)
class Resolved:
    contract: Contract
    explanation: str
    """One or two sentences: which rule picked the exchange, the expiry and the strike."""


@dataclass(frozen=True, slots=True)
class MasterAge:
    """What /readyz shows of the contract index."""

    built_at: datetime
    dates: dict[str, date]
    """Newest inside date per source file."""
    rows: int
    skipped: int


NO_LIMIT = 2**63 - 1
"""The greatest number that both databases keep: what is counted under it is counted all the same."""


@dataclass(frozen=True, slots=True)
class Cap:
    """One counter: `amount` more of `name` in `window` must not pass `limit`."""

    name: str
    window: str
    """E.g. the IST date: a new window is a new counter."""
    limit: int
    amount: int
    returnable: bool
    """Whether a proven "no" gives it back. A count of orders is not given back."""


@dataclass(frozen=True, slots=True)
class Known:
    """A key that has been seen: the order it belongs to, and the body it came with."""

    order: Order
    body_hash: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    event: Event
    at: datetime
    status: Status | None
    """The order's state after it."""
    detail: dict[str, str]
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move changes besides the status; None leaves a field as it is."""

    code: str | None = None
    reason: str | None = None
    broker_order_id: str | None = None
    filled_quantity: int | None = None
    fill_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    sent_at: datetime | None = None
    filled_at: datetime | None = None
    protection: Protection | None = None
    fence: str | None = None
    client: str | None = None
    """Only for an adopted order, whose sender is known once its alert comes again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the service's own orders of one client hold in one contract and product, by our own rows."""

    client: str
    ticker: str
    product: Product
    net_quantity: int
    """Signed: filled entries and exits plus adjustments."""


SENT_AGAIN_WITHIN = timedelta(seconds=90)
"""A row that was not sent is EXPIRED when its alert has not come again within a minute."""


@dataclass(frozen=True, slots=True)
class Stake:
    """What one client has in one contract and product."""

    net_quantity: int
    """Signed: filled entries and exits plus adjustments."""
    entering: frozenset[Side]
    """Sides on which an entry may still fill."""
    unsent: frozenset[Side]
    """Sides on which an entry was not sent a moment ago: its sender was told to send it again."""
    operator_exits: bool = False
    """Whether an operator's exit of all clients is under way here: it may have some of this client's in its hands."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an alert finds when it comes."""

    state: TradingState
    known: Known | None
    """Its key's order, where it has come before."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An order and its account's trading state at one moment."""

    status: Status
    fence: str | None
    state: TradingState


@dataclass(frozen=True, slots=True)
class Evidence:
    """Fresh readings of the book in which an order in doubt was absent (`settle`: what NOT_PLACED takes)."""

    reads: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Stranger:
    """A row of today's book that came by the API and fits no order of ours: a person has to look at it."""

    broker_order_id: str
    ticker: str
    side: Side
    quantity: int
    product: str
    tag: str | None
    placed_at: datetime
    seen_at: datetime
    acknowledged_by: str | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """The trading state, and who set it, when and why."""

    state: TradingState
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """The bounded record of an alert that was refused, or failed by us, before an order row existed."""

    at: datetime
    address: str
    client: str | None
    status: int
    code: str
    detail: str
    body_hash: str
    safe_fields: dict[str, str]
    request_id: str


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders to list, newest first. Dates are IST dates."""

    client: str | None = None
    date_from: date | None = None
    date_to: date | None = None
    status: Status | None = None
    symbol: str | None = None
    strategy: str | None = None
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class OrderPage:
    items: tuple[Order, ...]
    next_cursor: str | None
