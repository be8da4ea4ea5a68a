"""What the working store in memory remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.domain.order import Order, Scope
from app.domain.risk import TradingState
from app.service.records import AuditEvent, Cap, Evidence, Holding, Moved, Refusal, StateChange, Stranger


@dataclass
class Claim:
    order_id: str
    body_hash: str
    until: datetime


@dataclass
class Reserved:
    cap: Cap
    returned: int = 0
    released: bool = False


@dataclass
class Data:
    orders: dict[str, Order] = field(default_factory=dict)
    events: dict[str, list[AuditEvent]] = field(default_factory=dict)
    keys: dict[tuple[Scope, str, str], Claim] = field(default_factory=dict)
    slots: dict[Scope, list[datetime]] = field(default_factory=dict)
    caps: dict[tuple[Scope, str, str], int] = field(default_factory=dict)
    reserved: dict[str, list[Reserved]] = field(default_factory=dict)
    adjusted: list[tuple[Scope, Holding, datetime]] = field(default_factory=list)
    adjustments: list[tuple[str, int, str]] = field(default_factory=list)
    closing_prices: list[Decimal | None] = field(default_factory=list)
    """One for each of those."""
    locks: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    states: dict[Scope, TradingState] = field(default_factory=dict)
    history: list[tuple[Scope, StateChange]] = field(default_factory=list)
    absences: dict[tuple[str, int], Evidence] = field(default_factory=dict)
    strangers: dict[tuple[Scope, str], Stranger] = field(default_factory=dict)
    passes: dict[Scope, datetime] = field(default_factory=dict)
    refusals: list[tuple[Scope, Refusal]] = field(default_factory=list)


def changed(order: Order, change: Moved | None) -> Order:
    if change is None:
        return order
    names = Moved.__dataclass_fields__
    values: dict[str, Any] = {n: getattr(change, n) for n in names if getattr(change, n) is not None}
    return replace(order, **values)
