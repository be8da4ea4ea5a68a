"""Trading days of the Indian exchanges: which day the symbol master has to be of."""

from __future__ import annotations

from datetime import date, timedelta

HOLIDAYS: frozenset[date] = frozenset(
    date.fromisoformat(day)
    for day in (  # noqa: SIM905 - a block of dates reads better than a list of fifteen lines
        # NSE equity and derivatives segment, 2026, as the exchange lists them: weekdays without trading.
        "2026-01-26 2026-03-03 2026-03-26 2026-03-31 2026-04-03 2026-04-14 2026-05-01 2026-05-28 "
        "2026-06-26 2026-09-14 2026-10-02 2026-10-20 2026-11-10 2026-11-24 2026-12-25"
    ).split()
)
"""A holiday missing here makes the staleness rule too strict for one day (entries denied), never too lax."""


SATURDAY = 5


def is_trading_day(day: date) -> bool:
    return day.weekday() < SATURDAY and day not in HOLIDAYS


def previous_trading_day(day: date) -> date:
    """The last trading day before `day`: the inside date of a master fetched in the morning of `day`."""
    earlier = day - timedelta(days=1)
    while not is_trading_day(earlier):
        earlier -= timedelta(days=1)
    return earlier
