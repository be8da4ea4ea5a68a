"""What the risk checks look at, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum

from app.domain.alert import IST, Product
from app.domain.contract import Contract


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class Stage(IntEnum):
    """What has to be known before a check can be asked."""

    SHAPE = 1
    PRICE = 2
    BOOKS = 3


@dataclass(frozen=True, slots=True)
class Denial:
    """A "no" of ours: a stable code and one sentence with the limit and the value."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Price:
    """A usable quote and what it means for this order. Rupees; `stop_distance` per contract."""

    ltp: Decimal
    bid: Decimal
    ask: Decimal
    stop_distance: Decimal | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """What our own orders hold and have under way in this account, orders in doubt included."""

    open_lots: Decimal
    """Whole lots, unless an exit or a stop has closed part of one."""
    open_value: Decimal
    last_same: datetime | None
    """When this client's latest entry in the same contract and side was made."""
    tried: int
    """Entries of the same strategy within the runaway's seconds, refused ones and this one counted."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the checks look at. Quantity in contracts; prices in rupees."""

    contract: Contract
    quantity: int
    product: Product
    is_exit: bool
    state: TradingState
    master_not_before: date
    """The oldest inside date at which the symbol master is still fresh: the previous trading day."""
    now: datetime
    """Aware UTC."""
    is_buy: bool = True
    live: bool = False
    """Real money: a delayed feed is refused then, and only remarked on paper."""
    delayed_feed: bool = False
    fired_at: datetime | None = None
    broker_says_open: bool | None = None
    """The broker's own word on the exchange's hours; None: it did not say, and the contract's session decides."""
    client_max_lots: int | None = None
    client_symbols: frozenset[str] | None = None
    price: Price | None = None
    exposure: Exposure | None = None

    @property
    def lots(self) -> Decimal:
        return Decimal(self.quantity) / self.contract.lot

    @property
    def ist(self) -> datetime:
        return self.now.astimezone(IST)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw: its limit and the present value, for people, and the reason when it says no."""

    limit: str
    value: str
    reason: str | None
