"""The day's loss in what this service traded: more than the limit, and only exits pass until a person resumes."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from app.domain.risk import TradingState
from app.service.ports import Transaction
from app.service.records import Position
from app.service.send import Desk

BY = "daily_loss"


def day_result(tx: Transaction, desk: Desk, positions: tuple[Position, ...], today: date) -> Decimal | None:
    """Rupees made today, by the broker's own count, where our orders traded today or hold something.

    None: the broker does not say it of all of them. A hand's trades in the same contract and product are in it.
    """
    ours = {(o.ticker, o.product.value) for o in tx.orders_on(desk.scope, today) if o.filled_quantity}
    ours |= {(h.ticker, h.product.value) for h in tx.holdings(desk.scope, None)}
    profits = [p.profit for p in positions if (p.ticker, p.product) in ours]
    known = [p for p in profits if p is not None]
    return sum(known, Decimal(0)) if len(known) == len(profits) else None


def watch_loss(tx: Transaction, desk: Desk, positions: tuple[Position, ...], today: date) -> None:
    """REDUCING, never HALTED: a stop-out must still get through. One page for each time that it trips."""
    limit = desk.policy.limits.max_daily_loss
    if limit is None or tx.trading_state(desk.scope) is not TradingState.ACTIVE:
        return
    result = day_result(tx, desk, positions, today)
    if result is None or -result < limit:
        return
    reason = f"the day's result is {result} rupees, the limit of loss is {limit}"
    if tx.set_trading_state(desk.scope, TradingState.REDUCING, BY, reason):
        desk.notifier.notify(BY, f"{reason}: only exits pass now", page=True)
