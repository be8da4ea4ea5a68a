"""Trading days of the Indian exchanges: which day the symbol master has to be of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources

SATURDAY = 5
MOST_SPECIAL_DAYS = 1000
"""More lines than this are no calendar of holidays: years of them are about fifteen each."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days that differ from the week: weekdays without trading, and days of the weekend with it."""

    closed: frozenset[date] = frozenset()
    trading: frozenset[date] = field(default=frozenset())

    def __or__(self, other: Calendar) -> Calendar:
        """`other` added; where both name a day, `other` is right."""
        closed = (self.closed - other.trading) | other.closed
        return Calendar(closed, (self.trading - other.closed) | other.trading)

    def is_trading_day(self, day: date) -> bool:
        return day in self.trading or (day.weekday() < SATURDAY and day not in self.closed)


def read_calendar(text: str) -> Calendar:
    """One ISO date a line, `trading` after it for a day that trades; `#` begins a comment. Raises ValueError."""
    days: dict[bool, set[date]] = {True: set(), False: set()}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if number > MOST_SPECIAL_DAYS:
            raise ValueError(f"expected at most {MOST_SPECIAL_DAYS} lines")
        trades = words[1:] == ["trading"]
        try:
            day = date.fromisoformat(words[0])
        except ValueError:
            day = None
        if day is None or not (trades or words[1:] in ([], ["holiday"])):
            raise ValueError(f"line {number}: expected a date like 2026-12-25, then nothing or `trading`")
        days[trades].add(day)
    if days[True] & days[False]:
        raise ValueError(f"{min(days[True] & days[False])} stands there as a holiday and as a trading day")
    return Calendar(frozenset(days[False]), frozenset(days[True]))


BUILT_IN = read_calendar(resources.files("app.domain").joinpath("holidays.txt").read_text(encoding="utf-8"))
"""Read once, at import, from the file beside this one: as much a part of the program as a constant, and easier to
add a year to. A holiday missing there makes the staleness rule too strict for one day (entries denied), never too lax.
"""

_now_used = BUILT_IN


def use_calendar(extra: Calendar) -> None:
    """Add the operator's own days to the built-in ones, in this process. Done once, while everything is connected."""
    global _now_used  # noqa: PLW0603 - one calendar of one country; a parameter through forty calls says no more
    _now_used = BUILT_IN | extra


def is_trading_day(day: date) -> bool:
    return _now_used.is_trading_day(day)


def has_holidays_of(year: int) -> bool:
    """Whether anybody has listed that year's holidays."""
    return any(day.year == year for day in _now_used.closed)


def previous_trading_day(day: date) -> date:
    """The last trading day before `day`: the inside date of a master fetched in the morning of `day`."""
    earlier = day - timedelta(days=1)
    while not is_trading_day(earlier):
        earlier -= timedelta(days=1)
    return earlier


def trading_day_from(day: date) -> date:
    """`day` when it trades, else the next one that does."""
    while not is_trading_day(day):
        day += timedelta(days=1)
    return day
