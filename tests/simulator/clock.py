"""Time as the simulator sees it: any callable that returns an aware UTC datetime."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone

IST = timezone(timedelta(hours=5, minutes=30), "IST")

Clock = Callable[[], datetime]


def real_clock() -> datetime:
    """The machine's own time."""
    return datetime.now(UTC)


class SimClock:
    """A clock that starts where it is told; it runs on, or stands still until `advance`."""

    def __init__(self, start: datetime, *, running: bool = True) -> None:
        if start.tzinfo is None:
            raise ValueError(f"expected an aware start, was {start!r}")
        self._lock = threading.Lock()
        self._running = running
        self._origin = datetime.now(UTC)
        self._start = start.astimezone(UTC)

    def __call__(self) -> datetime:
        with self._lock:
            elapsed = datetime.now(UTC) - self._origin if self._running else timedelta()
            return self._start + elapsed

    def advance(self, seconds: float) -> None:
        """Move the clock forward (or, with a negative number, back)."""
        with self._lock:
            self._start += timedelta(seconds=seconds)


def ist_date(at: datetime) -> date:
    """The trading date of an instant."""
    return at.astimezone(IST).date()


def ist_text(at: datetime) -> str:
    """`09-Mar-2023 09:34:38`, as the order book writes times (D)."""
    return at.astimezone(IST).strftime("%d-%b-%Y %H:%M:%S")


def next_six_ist(at: datetime) -> datetime:
    """When a token made at `at` ends: the next 06:00 IST (D)."""
    local = at.astimezone(IST)
    six = datetime.combine(local.date(), time(6), tzinfo=IST)
    return (six if local < six else six + timedelta(days=1)).astimezone(UTC)


def derivatives_open(at: datetime) -> bool:
    """Monday to Friday 09:15-15:40 IST, 15:30 before 3 August 2026 (D); holidays are not known here."""
    local = at.astimezone(IST)
    closes = time(15, 40) if local.date() >= date(2026, 8, 3) else time(15, 30)
    return local.weekday() < 5 and time(9, 15) <= local.time() < closes
