"""The day in a few lines, for the evening's notification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from app.domain.order import Order
from app.domain.status import Status

DOUBTFUL = (Status.SENDING, Status.IN_DOUBT, Status.NEEDS_REVIEW)


def summary(day: date, orders: Sequence[Order], result: Decimal | None, doubts: int, strangers: int) -> str:
    """`orders`: of that IST day; `result`: rupees by the broker's count, None when it is not known."""
    states = Counter(o.status for o in orders)
    by_state = ", ".join(f"{states[s]} {s}" for s in Status if states[s]) or "none"
    filled = [o for o in orders if o.filled_quantity]
    contracts = sum(o.filled_quantity for o in filled)
    lines = [
        f"{day:%a %d %b %Y}: {len(orders)} orders ({by_state})",
        f"filled: {contracts} contracts in {len(filled)} orders",
        "result: " + ("not known, the broker does not say" if result is None else f"{result:+,.2f} rupees"),
    ]
    lines.append(f"open doubts: {doubts}" if doubts else "no open doubts")
    if strangers:
        lines.append(f"orders at the broker that are not ours, nobody has looked at: {strangers}")
    return "\n".join(lines)
