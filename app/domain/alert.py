"""What TradingView said: an alert, typed and frozen, and its identity.

An alert carries no broker ticker and no price of ours: those are decisions, and decisions are an order's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum

IST = timezone(timedelta(hours=5, minutes=30), "IST")
"""Indian Standard Time. It has no daylight saving, so a fixed offset is exact."""


ADMIN_CLIENT = "admin"
"""The operator. An EXIT of his covers what all clients hold."""


class Action(StrEnum):
    BUY = "BUY"
    SELL = "SELL"
    EXIT = "EXIT"


class OptionType(StrEnum):
    CE = "CE"
    PE = "PE"


class Product(StrEnum):
    """Fyers' productType. CNC and MTF are for shares only, so an option alert cannot name them."""

    INTRADAY = "INTRADAY"
    MARGIN = "MARGIN"
    CO = "CO"
    BO = "BO"

    @property
    def takes_tag(self) -> bool:
        """Fyers rejects an orderTag on CO and BO (fyers-api.md 2.4)."""
        return self in (Product.INTRADAY, Product.MARGIN)


class Exchange(StrEnum):
    NSE = "NSE"
    BSE = "BSE"


class ExpiryRule(StrEnum):
    WEEKLY = "WEEKLY"
    NEXT_WEEKLY = "NEXT_WEEKLY"
    MONTHLY = "MONTHLY"
    NEXT_MONTHLY = "NEXT_MONTHLY"


MAX_LOTS = 10_000
"""In one order: of the largest lots that there are, some 80,000, still what a 32-bit column of contracts holds."""


class KeyKind(StrEnum):
    EXPLICIT = "explicit"
    """The sender named it. It belongs to its IST date: the same key next morning is a new alert."""
    DERIVED = "derived"
    """A hash of client and canonical body. It holds for the dedupe window only."""


@dataclass(frozen=True, slots=True)
class AlertKey:
    """What makes two deliveries the same alert. `digest` is what the UNIQUE constraint is on."""

    kind: KeyKind
    digest: str
    body_hash: str
    """Hash of the canonical body without its secret: tells a repeat from a key used twice."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a client may at most, beside the limits for all. None: no limit of its own."""

    max_lots: int | None = None
    """Lots in one order."""
    symbols: frozenset[str] | None = None
    """Underlyings, in upper case."""


NO_LIMITS = ClientLimits()


@dataclass(frozen=True, slots=True)
class Alert:
    """One validated alert. Quantity: at most one of `qty` (contracts) and `lots`; neither only for EXIT."""

    client: str
    symbol: str
    strike: Decimal
    option_type: OptionType
    expiry: ExpiryRule | date
    action: Action
    product: Product
    key: AlertKey
    received_at: datetime
    qty: int | None = None
    lots: int | None = None
    exchange: Exchange | None = None
    strategy: str = ""
    fired_at: datetime | None = None
    delayed_feed: bool = False
    warnings: tuple[str, ...] = ()
    limits: ClientLimits = NO_LIMITS
    """Its client's own, as they stood when it came."""
    signal_price: Decimal | None = None
    """The chart's price when it fired. Only measured with: nothing is traded, checked or priced by it."""

    def __post_init__(self) -> None:
        if self.qty is not None and self.lots is not None:
            raise ValueError("expected one of qty and lots, was both")
        if self.qty is None and self.lots is None and self.action is not Action.EXIT:
            raise ValueError("expected qty or lots, was neither")
        if any(n is not None and n <= 0 for n in (self.qty, self.lots)):
            raise ValueError("expected a positive quantity")
        if not self.strike.is_finite() or self.strike <= 0:
            raise ValueError("expected a positive strike")
        if self.received_at.tzinfo is None:
            raise ValueError("expected an aware received_at")


def canonical_hash(body: dict[str, object]) -> str:
    """SHA-256 of a JSON object in one spelling: sorted keys, no white space. The caller removed the secret."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(client: str, explicit: str | None, body_hash: str, received_at: datetime) -> AlertKey:
    """The alert's identity. The IST date is part of an explicit key and of nothing else."""
    if explicit is None:
        digest = hashlib.sha256(f"derived\0{client}\0{body_hash}".encode()).hexdigest()
        return AlertKey(KeyKind.DERIVED, digest, body_hash)
    day = received_at.astimezone(IST).date().isoformat()
    digest = hashlib.sha256(f"explicit\0{client}\0{day}\0{explicit}".encode()).hexdigest()
    return AlertKey(KeyKind.EXPLICIT, digest, body_hash)
