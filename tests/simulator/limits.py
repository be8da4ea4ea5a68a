"""Rate limits per app id, by the simulator's clock.

(D) 10 a second, 200 a minute, 100,000 a day over all calls; a fourth breach of the minute blocks until
midnight IST; order operations also 10 a second, with Retry-After and X-Retry-After-Ms. (A) The windows slide,
refused calls do not count, and calls refused within one minute are one breach.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from tests.simulator.clock import Clock, ist_date
from tests.simulator.wire import Refusal, request_limit


@dataclass
class _Usage:
    calls: deque[datetime] = field(default_factory=deque)
    orders: deque[datetime] = field(default_factory=deque)
    day: date | None = None
    today: int = 0
    breaches: int = 0
    last_breach: datetime | None = None


@dataclass
class RateLimits:
    """`enabled=False` lets everything pass; the numbers can be changed at any time."""

    clock: Clock
    enabled: bool = True
    per_second: int = 10
    per_minute: int = 200
    per_day: int = 100_000
    orders_per_second: int = 10
    _usage: dict[str, _Usage] = field(default_factory=dict)

    def check(self, app_id: str, *, is_order: bool) -> None:
        """Count this call, or raise the 429."""
        if not self.enabled:
            return
        now = self.clock()
        usage = self._usage.setdefault(app_id, _Usage())
        self._roll(usage, now)
        if usage.breaches > 3 or usage.today >= self.per_day:
            raise Refusal(-429, "request limit reached", 429)
        if is_order and _within(usage.orders, now, 1) >= self.orders_per_second:
            raise request_limit((usage.orders[0] + timedelta(seconds=1) - now).total_seconds())
        minute = len(usage.calls)
        if minute >= self.per_minute:
            if usage.last_breach is None or now - usage.last_breach >= timedelta(minutes=1):
                usage.breaches += 1
                usage.last_breach = now
            raise Refusal(-429, "request limit reached", 429)
        if sum(1 for at in usage.calls if now - at < timedelta(seconds=1)) >= self.per_second:
            raise Refusal(-429, "request limit reached", 429)
        usage.calls.append(now)
        usage.today += 1
        if is_order:
            usage.orders.append(now)

    def _roll(self, usage: _Usage, now: datetime) -> None:
        _within(usage.calls, now, 60)
        if usage.day != ist_date(now):
            usage.day, usage.today, usage.breaches, usage.last_breach = ist_date(now), 0, 0, None

    def reset(self) -> None:
        """Forget all that was counted."""
        self._usage.clear()


def _within(calls: deque[datetime], now: datetime, seconds: int) -> int:
    while calls and now - calls[0] >= timedelta(seconds=seconds):
        calls.popleft()
    return len(calls)
