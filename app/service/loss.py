"""The day's loss in what this service traded: more than the limit, and only exits pass until a person resumes."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.risk import TradingState
from app.service.desk import Desk
from app.service.ports import Transaction
from app.service.records import Position

BY = "daily_loss"
UNKNOWN = "daily_loss_unknown"
UNKNOWN_AGAIN = timedelta(hours=1)
"""Between two pages that the result is unknown: it may stay so all day."""
CANNOT = "unknown: the broker does not say the day's result, so RISK_MAX_DAILY_LOSS cannot stop anything now"


def day_result(tx: Transaction, desk: Desk, positions: tuple[Position, ...], today: date) -> Decimal | None:
    """Rupees made today, by the broker's own count, where our orders traded today or hold something.

    None: the broker does not say it of all of them, or does not list what has traded today. A hand's trades in the
    same contract and product are in it.
    """
    traded = {(o.ticker, o.product.value) for o in tx.orders_on(desk.scope, today) if o.filled_quantity}
    ours = traded | {(h.ticker, h.product.value) for h in tx.holdings(desk.scope, None)}
    profits = {(p.ticker, p.product): p.profit for p in positions if (p.ticker, p.product) in ours}
    known = [p for p in profits.values() if p is not None]
    return sum(known, Decimal(0)) if len(known) == len(profits) and traded <= profits.keys() else None


def watch_loss(
    tx: Transaction, desk: Desk, positions: tuple[Position, ...], today: date, *, tell_unknown: bool
) -> bool:
    """REDUCING, never HALTED: a stop-out must still get through. One page for each time that it trips.

    True: there is a limit, and nobody can say whether it is reached. Every page is part of `tx`, as the state is.
    """
    limit = desk.policy.limits.max_daily_loss
    if limit is None or tx.trading_state(desk.scope) is not TradingState.ACTIVE:
        return False
    result = day_result(tx, desk, positions, today)
    if result is None:
        if tell_unknown:
            desk.notifier.notify(UNKNOWN, f"{CANNOT}: look at the positions in the broker's app", page=True)
        return True
    if -result < limit:
        return False
    reason = f"the day's result is {result} rupees, the limit of loss is {limit}"
    if tx.reduce(desk.scope, BY, reason):
        desk.notifier.notify(BY, f"{reason}: only exits pass now", page=True)
    return False


def unwatched(desk: Desk, positions: tuple[Position, ...], deadline: Deadline) -> str | None:
    """Why RISK_MAX_DAILY_LOSS cannot be watched by these positions. None: it can."""
    with desk.store.read(deadline) as tx:
        return CANNOT if day_result(tx, desk, positions, ist_date(tx.now())) is None else None
