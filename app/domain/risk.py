"""The checks between an alert and an order: an ordered table of small functions that give a reason or nothing.

Adding a check means adding a row to CHECKS. A check looks at its stage's facts only: SHAPE needs nothing but the alert
and the contract, PRICE a quote, BOOKS what our own orders hold, read in the transaction that commits the intent.
Only the checks that say so are ever asked about an exit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.domain import checks as c
from app.domain.limits import Limits
from app.domain.proposal import Denial, Exposure, Finding, Price, Proposal, Stage, TradingState

__all__ = [
    "CHECKS",
    "Check",
    "Denial",
    "Exposure",
    "Limits",
    "Price",
    "Proposal",
    "Stage",
    "TradingState",
    "Verdict",
    "first_denial",
    "judge",
]

Look = Callable[[Proposal, Limits], Finding | None]


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    doc: str
    setting: str
    stage: Stage
    stops_exits: bool
    look: Look
    """None: the limit is off, or does not apply to this order."""


S, P, B = Stage.SHAPE, Stage.PRICE, Stage.BOOKS
CHECKS: tuple[Check, ...] = (
    Check("trading_state", "HALTED stops everything, REDUCING stops entries", "", S, True, c.trading_state),
    Check("market_closed", "the exchange trades now", "ENFORCE_MARKET_HOURS", S, True, c.market_open),
    Check("signal_age", "the signal is fresh", "RISK_MAX_SIGNAL_AGE_SECONDS", S, True, c.signal_age),
    Check(
        "position_policy",
        "which side may open a position",
        "RISK_POSITION_POLICY",
        S,
        False,
        c.position_policy,
    ),
    Check("symbol", "the underlying is allowed", "RISK_SYMBOLS", S, False, c.symbol),
    Check(
        "stale_master",
        "the symbol master is of the previous trading day or later",
        "",
        S,
        False,
        c.master_fresh,
    ),
    Check("delayed_feed", "no entry with real money on a delayed feed", "", S, False, c.feed_current),
    Check(
        "intraday_cutoff",
        "no intraday entry near the square-off",
        "RISK_INTRADAY_CUTOFF",
        S,
        False,
        c.intraday_cutoff,
    ),
    Check(
        "expiry_cutoff", "no late entry on the expiry day", "RISK_EXPIRY_CUTOFF", S, False, c.expiry_cutoff
    ),
    Check(
        "stock_expiry",
        "no stock option near its physical settlement",
        "RISK_STOCK_EXPIRY_DAYS",
        S,
        False,
        c.stock_expiry,
    ),
    Check("lot_multiple", "the quantity is whole lots", "", S, False, c.lot_multiple),
    Check("max_lots", "the lots of one order", "WEBHOOK_MAX_QTY, QTY_CAPS", S, False, c.max_lots),
    Check("freeze_quantity", "at most the exchange's freeze quantity, where known", "", S, False, c.freeze),
    Check("not_tradable", "the contract trades today, where known", "", S, False, c.tradable),
    Check("order_value", "the rupees of one order", "RISK_MAX_ORDER_VALUE", P, False, c.order_value),
    Check(
        "order_risk", "the rupees that one order's stop risks", "RISK_MAX_ORDER_RISK", P, False, c.order_risk
    ),
    Check("circuit", "the touch is within the day's price range, where known", "", P, False, c.circuit),
    Check(
        "price_band", "the touch is near the last price", "RISK_PRICE_BAND_PERCENT", P, False, c.price_band
    ),
    Check("spread", "the spread is narrow", "RISK_MAX_SPREAD_PERCENT", P, False, c.spread),
    Check("min_premium", "the option is not next to worthless", "RISK_MIN_PREMIUM", P, False, c.min_premium),
    Check("repeat", "not the same order again at once", "RISK_REPEAT_SECONDS", B, False, c.repeat),
    Check("open_lots", "lots open and under way", "RISK_MAX_OPEN_LOTS", B, False, c.open_lots),
    Check("open_value", "rupees open and under way", "RISK_MAX_OPEN_VALUE", B, False, c.open_value),
    Check("runaway", "a strategy that fires without end", "RISK_RUNAWAY", B, False, c.runaway),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    check: Check
    finding: Finding

    @property
    def denial(self) -> Denial | None:
        reason = self.finding.reason
        return None if reason is None else Denial(self.check.code, reason)


def judge(
    proposal: Proposal, limits: Limits, stages: Collection[Stage] = tuple(Stage)
) -> tuple[Verdict, ...]:
    """Every applicable check of these stages with its verdict, in the table's order."""
    verdicts = []
    for check in CHECKS:
        if check.stage not in stages or (proposal.is_exit and not check.stops_exits):
            continue
        finding = check.look(proposal, limits)
        if finding is not None:
            verdicts.append(Verdict(check, finding))
    return tuple(verdicts)


def first_denial(
    proposal: Proposal, limits: Limits, stages: Collection[Stage] = tuple(Stage)
) -> Denial | None:
    """The first "no" in the table's order, or nothing."""
    return next((v.denial for v in judge(proposal, limits, stages) if v.denial is not None), None)
