"""Our intent: which contract, which side, how much, which product, which protection; and what became of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from app.domain.alert import Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.status import Status

TAG_PREFIX_LENGTH = 4
TAG_ID_LENGTH = 16
"""Together 20: the longest orderTag that Fyers took in live use (its documentation says 30; fyers-api.md 2.4)."""


class Mode(StrEnum):
    PAPER = "paper"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose money: paper fills never count in live mode, nor one broker account's in another."""

    mode: Mode
    account: str


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class Purpose(StrEnum):
    ENTRY = "entry"
    EXIT = "exit"


class OrderKind(StrEnum):
    """Fyers' order types. SL-M is left out: exchanges do not take it on options (fyers-api.md 2.3)."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_LIMIT = "STOP_LIMIT"


class Protection(StrEnum):
    NONE = "none"
    REQUESTED = "requested"
    """Distances went out with the order. That the broker holds the legs has to be seen after the fill."""
    SEEN = "seen"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Ticket:
    """One order as a broker takes it. Quantity in contracts, prices and distances in rupees.

    `stop_distance` and `target_distance` are distances from the entry price, never price levels.
    """

    ticker: str
    side: Side
    quantity: int
    product: Product
    tag: str | None
    stop_distance: Decimal | None = None
    target_distance: Decimal | None = None
    kind: OrderKind = OrderKind.MARKET
    limit_price: Decimal = Decimal(0)
    stop_price: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        if self.quantity <= 0:
            raise ValueError(f"expected a positive quantity, was {self.quantity}")
        if self.tag is not None and not self.product.takes_tag:
            raise ValueError(f"expected no tag on {self.product}")
        if any(d is not None and not d > 0 for d in (self.stop_distance, self.target_distance)):
            raise ValueError("expected positive distances")


@dataclass(frozen=True, slots=True)
class Order:
    """One order row. Everything an answer shows is rendered from it, so a repeat shows the same."""

    id: str
    scope: Scope
    client: str
    strategy: str
    key: AlertKey
    purpose: Purpose
    action: Action
    exchange: Exchange
    underlying: str
    expiry: date
    session_end: datetime
    strike: Decimal
    option_type: OptionType
    ticker: str
    lot: int
    side: Side
    quantity: int
    product: Product
    status: Status
    ist_date: date
    """The IST date of the latest attempt: the only day on which the broker's book can show it."""
    tag: str
    """Ours, unique. On the wire only where the product takes one."""
    attempt: int = 1
    code: str | None = None
    reason: str | None = None
    broker_order_id: str | None = None
    ltp: Decimal | None = None
    stop_distance: Decimal | None = None
    target_distance: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    protection: Protection = Protection.NONE
    filled_quantity: int = 0
    fill_price: Decimal | None = None
    kind: OrderKind = OrderKind.MARKET
    limit_price: Decimal | None = None
    """Of a LIMIT order."""
    signal_price: Decimal | None = None
    """What its alert said the chart's price was; of the option or of its underlying, whatever the chart shows."""
    variant: str = ""
    """`experiment/variant`; empty: no experiment was about it."""
    explanation: str = ""
    warnings: tuple[str, ...] = ()
    fence: str | None = None
    """Token of the attempt that may send. Whoever settles the row for it changes it."""
    send_by: datetime | None = None
    """Aware UTC on the database's clock: after it the attempt must not start its write."""
    answer_by: datetime | None = None
    """Aware UTC: after it a SENDING row has lost its sender and belongs to reconciliation."""
    sent_at: datetime | None = None
    filled_at: datetime | None = None
    """When we first knew of a fill: the protection watch counts from it."""
    request_id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def ticket(self) -> Ticket:
        """What goes to the broker for this row."""
        return Ticket(
            ticker=self.ticker,
            side=self.side,
            quantity=self.quantity,
            product=self.product,
            tag=self.tag if self.product.takes_tag else None,
            stop_distance=self.stop_distance,
            target_distance=self.target_distance,
            kind=self.kind,
            limit_price=self.limit_price or Decimal(0),
        )


def order_id(scope: Scope, key: AlertKey, random_bytes: Callable[[int], bytes]) -> str:
    """26 upper-case base32 characters (128 bits).

    An explicit key gives the same id every time (its digest covers client, key and IST date), so that after a
    restored backup a re-sent alert meets its own order at the broker. Without one the id is random. The first bit
    says which, so that an order that only the broker remembers shows whether its alert would be known again.
    """
    if key.kind is KeyKind.EXPLICIT:
        raw = hashlib.sha256(f"{scope.mode}\0{scope.account}\0{key.digest}".encode()).digest()[:16]
        raw = bytes([raw[0] & 0x7F]) + raw[1:]
    else:
        raw = random_bytes(16)
        raw = bytes([raw[0] | 0x80]) + raw[1:]
    return base64.b32encode(raw).decode().rstrip("=")


def signal_of(order: Order) -> str:
    """What tells one signal of a strategy from its next, for whoever splits them: an alert without a key may have the same
    words each time, and its order keeps its id through every repeat.
    """
    return order.key.digest if order.key.kind is KeyKind.EXPLICIT else order.id


def is_keyed(tag: str) -> bool:
    """Whether the order behind a tag of ours has its id from an explicit key."""
    return tag[TAG_PREFIX_LENGTH : TAG_PREFIX_LENGTH + 1].upper() in tuple("ABCDEFGHIJKLMNOP")


def tag_of(prefix: str, order: str) -> str:
    """The order's tag at the broker: deployment prefix and the head of its id, 20 characters in all."""
    if len(prefix) != TAG_PREFIX_LENGTH or not prefix.isalnum() or prefix != prefix.upper():
        raise ValueError(
            f"expected {TAG_PREFIX_LENGTH} upper-case letters or digits as prefix, was {prefix!r}"
        )
    return prefix + order[:TAG_ID_LENGTH]
