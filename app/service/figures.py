"""What is true for the whole cluster at a moment, as its figures: read from the database, never counted by a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal


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
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Slip:
    """One fill of the day. Positive is worse than the price the order went by."""

    product: str
    purpose: str
    percent: Decimal


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
    """Positions still held whose stop was found missing."""
    trading_state: str = ""
    last_pass_s: float | None = None
    caps: tuple[CapUse, ...] = ()
    slips: tuple[Slip, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFigures:
    """What is true for this host, whichever worker is asked."""

    master_age_s: float | None = None
    token_left_s: float | None = None
    budget_left: dict[str, int] = field(default_factory=dict)
    """By window, where instances share it; empty where each process has its own."""


ReadFigures = Callable[[], Figures]
"""Raises StoreUnavailable."""
