"""The checks between an alert and an order: an ordered table of small functions that give a reason or nothing.

Adding a check means adding a row to CHECKS. Checks with `stops_exits` false are never asked about an exit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from app.domain.alert import Product
from app.domain.contract import Contract


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True)
class Denial:
    """A "no" of ours: a stable code and one sentence with the limit and the value."""

    code: str
    reason: str


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
    live: bool = False
    """Real money: a delayed feed is refused then, and only remarked on paper."""
    delayed_feed: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    max_lots: int


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    doc: str
    stops_exits: bool
    verdict: Callable[[Proposal, Limits], str | None]


def _trading_state(p: Proposal, _: Limits) -> str | None:
    if p.state is TradingState.HALTED:
        return "trading is halted: no alert sends anything until a person resumes"
    if p.state is TradingState.REDUCING and not p.is_exit:
        return "trading is reducing: exits pass, entries do not"
    return None


def _master_fresh(p: Proposal, _: Limits) -> str | None:
    if p.contract.master_date < p.master_not_before:
        return (
            f"the symbol master is of {p.contract.master_date}, expected {p.master_not_before} or later: "
            "an entry on stale contract data could have the wrong lot"
        )
    return None


def _feed_current(p: Proposal, _: Limits) -> str | None:
    if p.live and p.delayed_feed:
        return "the alert comes from a delayed feed (_DL, _DLY): its signal is minutes old"
    return None


def _lot_multiple(p: Proposal, _: Limits) -> str | None:
    lot = p.contract.lot
    if p.quantity % lot:
        below = p.quantity // lot * lot
        allowed = f"{below} or {below + lot}" if below else f"{lot}"
        return f"quantity {p.quantity} is not a whole number of lots of {lot}; allowed would be {allowed}"
    return None


def _max_lots(p: Proposal, limits: Limits) -> str | None:
    allowed = limits.max_lots * p.contract.lot
    if p.quantity > allowed:
        return (
            f"quantity {p.quantity} is above {limits.max_lots} lots of {p.contract.lot} "
            f"(WEBHOOK_MAX_QTY); allowed would be {allowed}"
        )
    return None


def _freeze(p: Proposal, _: Limits) -> str | None:
    freeze = p.contract.freeze
    if freeze is not None and p.quantity > freeze:
        return (
            f"quantity {p.quantity} is above the exchange's freeze quantity {freeze}; "
            f"allowed would be {freeze // p.contract.lot * p.contract.lot}"
        )
    return None


CHECKS: tuple[Check, ...] = (
    Check("trading_state", "HALTED stops everything, REDUCING stops entries", True, _trading_state),
    Check("stale_master", "the symbol master is of the previous trading day or later", False, _master_fresh),
    Check("delayed_feed", "no entry with real money on a delayed feed", False, _feed_current),
    Check("lot_multiple", "the quantity is whole lots", False, _lot_multiple),
    Check("max_lots", "at most WEBHOOK_MAX_QTY lots in one order", False, _max_lots),
    Check("freeze_quantity", "at most the exchange's freeze quantity, where known", False, _freeze),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    check: Check
    denial: Denial | None


def judge(proposal: Proposal, limits: Limits) -> tuple[Verdict, ...]:
    """Every applicable check with its verdict, in the table's order."""
    verdicts = []
    for check in CHECKS:
        if proposal.is_exit and not check.stops_exits:
            continue
        reason = check.verdict(proposal, limits)
        verdicts.append(Verdict(check, None if reason is None else Denial(check.code, reason)))
    return tuple(verdicts)


def first_denial(proposal: Proposal, limits: Limits) -> Denial | None:
    """The first "no" in the table's order, or nothing."""
    return next((v.denial for v in judge(proposal, limits) if v.denial is not None), None)
