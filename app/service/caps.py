"""What an entry counts against."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from app.domain.alert import IST
from app.domain.limits import Limits
from app.service.records import NO_LIMIT, Cap


def caps_of(limits: Limits, at: datetime, lots: Decimal, contracts: int) -> tuple[Cap, ...]:
    """The windows of an entry at that moment, by the IST clock. The store counts a row once, whatever its attempts. One
    whose limit is off counts too: a limit that is set at noon is for the whole day.
    """
    ist = at.astimezone(IST)
    day = ist.date().isoformat()
    windows = (
        ("orders_minute", f"{day}T{ist:%H:%M}", limits.max_orders_per_minute, 1, False),
        ("orders_hour", f"{day}T{ist:%H}", limits.max_orders_per_hour, 1, False),
        ("orders_day", day, limits.max_orders_per_day, 1, False),
        ("lots_day", day, limits.max_lots_per_day, int(lots), True),
        ("contracts_day", day, limits.max_contracts_per_day, contracts, True),
    )
    return tuple(
        Cap(name, window, NO_LIMIT if limit is None else limit, amount, returnable=returnable)
        for name, window, limit, amount, returnable in windows
    )
