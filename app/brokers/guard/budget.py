"""How many calls the broker gets: Fyers' limits (fyers-api.md 3), shared by all instances.

Every window is counted in one Redis script, so that a call refused by one window is counted in none, and the times are
the given clock's. (`limits` counts window by window on the machine's own clock, and cannot keep a reserve in the same
count.) Each process keeps its own count beside it, and goes by its share when Redis is away or has just been lost:

- trusted: Redis has counted all calls of the last minutes. It decides alone. Of the minute's calls it gives out four
  fifths when there are several processes, because it may be lost with all of them spent.
- just lost: for the length of a window a process has its part of that last fifth, and nothing of a second's budget.
- away: 1/EXPECTED_PROCESSES of everything.
- back, or emptied: both counts must agree until Redis has again seen two whole minutes.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.brokers.guard.redis_client import SharedRedis
from app.brokers.guard.windows import AHEAD_S, MINUTE_S, SCRIPT, SECOND_S, Window, part
from app.domain.contract import ist_date
from app.domain.outcome import NotSent
from app.service.ports import Clock, Notifier
from app.service.ready import POLLS_STOPPED

TRUST_AFTER_S = 2 * MINUTE_S
LOOK_S = 0.1
SET_BACK_S = 2.0
"""More than a clock that is kept right loses from one look to the next."""
UNTOLD_WAIT_S = 5.0
"""After a 429 without a Retry-After."""
BREACHES_ALLOWED = 1
"""Per IST day. Fyers blocks the account for the day at the fourth; from the second on only exits go out."""
POLLS_END_AT = 3
"""From this breach on the books are not polled either: a poll that is refused would be the fourth."""
PAGES = {
    BREACHES_ALLOWED
    + 1: "the broker's rate limit was hit a second time today: only exits go out until tomorrow",
    POLLS_END_AT: "the broker's rate limit was hit a third time today: until tomorrow fills and doubts are not "
    "followed, and only exits go out; does another program use the same Fyers app?",
}


@dataclass(frozen=True, slots=True)
class Rates:
    """The operator's limits, whole numbers of calls; `processes` share them when Redis is away."""

    orders_per_second: int = 8
    calls_per_second: int = 10
    calls_per_minute: int = 200
    calls_per_day: int = 100_000
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Over:
    """Not now: nothing was sent."""

    code: str
    message: str
    wait_s: float

    @property
    def retry_after_s(self) -> int:
        return max(1, math.ceil(self.wait_s))

    def not_sent(self) -> NotSent:
        return NotSent(self.code, self.message, self.retry_after_s)


class CallBudget:
    """Safe for many threads. `key` keeps accounts apart; in Redis all of its keys stand in one slot."""

    def __init__(
        self,
        rates: Rates,
        clock: Clock,
        notifier: Notifier,
        shared: SharedRedis | None = None,
        key: str = "guard",
    ) -> None:
        self._rates, self._clock, self._notifier, self._shared, self._key = (
            rates,
            clock,
            notifier,
            shared,
            key,
        )
        n = rates.processes
        self._orders = Window("orders", rates.orders_per_second, SECOND_S, n, deque())
        self._calls = (
            Window("second", rates.calls_per_second, SECOND_S, n, deque()),
            Window("minute", rates.calls_per_minute, MINUTE_S, n, deque()),
        )
        self._lock = threading.Lock()
        self._lost_at = -math.inf
        self._offset = -math.inf
        self._trusted = shared is not None
        self._tell_trouble = False
        self._blocked_until = 0.0
        self._polls_from = 0.0
        self._breach_day = ""
        self._breaches = 0
        self._day, self._day_count = "", 0

    def take_read(self, *, reserved: bool) -> Over | None:
        return self._take(self._calls, reserved=reserved)

    def take_order(self, *, reserved: bool) -> Over | None:
        """None: it may go out now. `reserved`: a cancel or an exit, which the kept part is for."""
        return self._take((self._orders, *self._calls), reserved=reserved)

    def ready_in(self, orders: int, reads: int) -> float:
        """Seconds until so many reserved calls, one after the other, can all have been made; by all instances' calls
        where Redis decides, else by this process's own.
        """
        now, day = self._time()
        wanted = {self._orders: orders} | dict.fromkeys(self._calls, orders + reads)
        with self._lock:
            trusted, lost_at = self._trusted, self._lost_at
        shared, _ = (trusted and self._read_shared(now, day)) or ({}, 0)
        with self._lock:
            return max(w.ready_in(now, n, lost_at, shared.get(w.name)) for w, n in wanted.items())

    def _read_shared(self, now: float, day: str) -> tuple[dict[str, list[float]], int] | None:
        """All instances' calls: their times by window, and how many this day has had. None: Redis does not answer."""
        if self._shared is None:
            return None
        windows = (self._orders, *self._calls)

        def ask(redis: Any) -> list[Any]:  # noqa: ANN401 - the client's own types say nothing useful
            pipe = redis.pipeline(transaction=False)
            for window in windows:
                since = now - window.width_s
                pipe.zrange(self._name(window.name), since, "+inf", byscore=True, withscores=True)
            pipe.get(self._name(f"day:{day}"))
            found: list[Any] = pipe.execute()
            return found

        answer = self._shared.ask(ask)
        if answer is None:
            return None
        *calls, spent = answer[0]
        times = {w.name: [float(at) for _, at in rows] for w, rows in zip(windows, calls, strict=True)}
        return times, int(spent or 0)

    def heed(self, retry_after_s: int | None) -> None:
        """The broker answered 429: nobody calls before its time is over, and too many in a day stop entries."""
        now, day = self._time()
        until = now + (UNTOLD_WAIT_S if retry_after_s is None else retry_after_s)
        with self._lock:
            if retry_after_s is None:  # no second's limit, so the minute's: what can wait lets it pass
                self._polls_from = now + MINUTE_S
            same = now < self._blocked_until  # answers to calls that were on their way together
            self._blocked_until = max(self._blocked_until, until)
            if self._breach_day != day:
                self._breach_day, self._breaches = day, 0
            self._breaches += not same
            until = self._blocked_until

        def write(redis: Any) -> int:  # noqa: ANN401 - the client's own types say nothing useful
            field = f"breaches:{day}"
            known, known_at = (float(x or 0) for x in redis.hmget(self._name(), "blocked", "blocked_at"))
            if known_at > now + AHEAD_S:
                known = 0.0
            pipe = redis.pipeline(transaction=True)
            pipe.hset(self._name(), mapping={"blocked": repr(max(until, known)), "blocked_at": repr(now)})
            pipe.hincrby(self._name(), field, 0 if same or known > now else 1)
            return int(pipe.execute()[-1])

        answer = self._shared.ask(write) if self._shared is not None else None
        with self._lock:
            if answer is not None:
                self._breaches = max(self._breaches, answer[0])
            breaches = 0 if same else self._breaches
        if breaches in PAGES:
            self._notifier.notify("rate_limit_breached", PAGES[breaches], page=True)

    def unready(self) -> Over | None:
        """Why entries stop, by the breaches that this process knows of, and with POLLS_STOPPED the polling too."""
        now, day = self._time()
        with self._lock:
            breaches = self._breaches if self._breach_day == day else 0
            if breaches >= POLLS_END_AT:
                return Over(POLLS_STOPPED, PAGES[POLLS_END_AT], 3600)
            if now < self._polls_from:
                message = "the broker's rate limit was hit: its minute is waited out"
                return Over(POLLS_STOPPED, message, self._polls_from - now)
            if breaches > BREACHES_ALLOWED:
                return Over("broker_rate_limited", PAGES[BREACHES_ALLOWED + 1], 3600)
        return None

    def left(self) -> dict[str, int]:
        """What this process may still send by its own count, by window."""
        now, day = self._time()
        n = self._rates.processes
        with self._lock:
            spent = self._day_count if self._day == day else 0
            found = {w.name: w.left(now) for w in (self._orders, *self._calls)}
        return {**found, "day": max(0, self._rates.calls_per_day // n - spent)}

    def left_shared(self) -> dict[str, int]:
        """What all instances may still send, by Redis's count; empty without it."""
        read = self._read_shared(*self._time())
        if read is None:
            return {}
        times, spent = read
        left = {w.name: max(0, w.shared_limit - len(times[w.name])) for w in (self._orders, *self._calls)}
        return {**left, "day": max(0, self._rates.calls_per_day - spent)}

    def _take(self, windows: tuple[Window, ...], *, reserved: bool) -> Over | None:
        now, day = self._time()
        with self._lock:
            if self._day != day:
                self._day, self._day_count = day, 0
            blocked = self._blocked(now, day, reserved=reserved)
            if blocked or (
                not self._trusted and (blocked := self._own_limits(windows, now, reserved=reserved))
            ):
                return blocked
            if self._shared is None:
                self._note(windows, now)
                return None
            report = self._tell_trouble
        answer = self._shared.ask(lambda r: self._ask(r, windows, now, day, reserved=reserved, report=report))
        with self._lock:
            if answer is None:
                self._lose(now)
                self._tell_trouble = True
                over = self._own_limits(windows, now, reserved=reserved)
            else:
                self._tell_trouble = self._tell_trouble and not report
                over = self._judge(answer[0], now, day, reserved=reserved)
                if over is None and not self._trusted:
                    over = self._own_limits(windows, now, reserved=reserved)
            if over is None:
                self._note(windows, now)
            return over

    def _ask(
        self,
        redis: Any,  # noqa: ANN401 - the client's own types say nothing useful
        windows: tuple[Window, ...],
        now: float,
        day: str,
        *,
        reserved: bool,
        report: bool,
    ) -> list[float]:
        keys = [self._name(), self._name(f"day:{day}"), *(self._name(w.name) for w in windows)]
        limits = [x for w in windows for x in (part(w.shared_limit, reserved=reserved), w.width_s)]
        a_day = part(self._rates.calls_per_day, reserved=reserved)
        head = [repr(now), secrets.token_hex(8), int(MINUTE_S) + 60, int(report), day, a_day, AHEAD_S]
        return [float(x) for x in redis.register_script(SCRIPT)(keys=keys, args=[*head, *limits])]

    def _judge(self, answer: list[float], now: float, day: str, *, reserved: bool) -> Over | None:
        trouble, blocked, breaches, wait = answer
        self._blocked_until = max(self._blocked_until, blocked)
        if breaches:
            self._breach_day, self._breaches = day, max(self._breaches, int(breaches))
        if now - trouble >= TRUST_AFTER_S:
            self._trusted = True
        elif self._trusted and trouble > self._lost_at:
            self._lose(now)
        if (over := self._blocked(now, day, reserved=reserved)) is not None:
            return over
        return _over(wait) if wait else None

    def _lose(self, now: float) -> None:
        """From here on Redis alone does not decide. The start of a process is no loss: it had not counted on it."""
        if self._trusted:
            self._trusted, self._lost_at = False, now

    def _own_limits(self, windows: tuple[Window, ...], now: float, *, reserved: bool) -> Over | None:
        for window in windows:
            most, width_s = window.own(now, self._lost_at)
            wait = window.wait_s(now, part(most, reserved=reserved), width_s)
            if wait:
                return _over(wait)
        if self._day_count >= part(self._rates.calls_per_day // self._rates.processes, reserved=reserved):
            return _over(3600)
        return None

    def _blocked(self, now: float, day: str, *, reserved: bool) -> Over | None:
        if now < self._blocked_until:
            message = "the broker asked to wait: its rate limit was hit"
            return Over("broker_rate_limited", message, self._blocked_until - now)
        if not reserved and self._breach_day == day and self._breaches > BREACHES_ALLOWED:
            message = "the broker's rate limit was hit twice today: only exits go out until tomorrow"
            return Over("broker_rate_limited", message, 3600)
        return None

    def _note(self, windows: tuple[Window, ...], now: float) -> None:
        self._day_count += 1
        for window in windows:
            window.note(now)

    def _time(self) -> tuple[float, str]:
        with self._lock:
            before = self._clock.monotonic()
            now: datetime = self._clock.now()
            if self._clock.monotonic() - before < LOOK_S:  # else the process stood still between the two
                offset = now.timestamp() - before
                back_s, self._offset = self._offset - offset, offset
                if back_s > SET_BACK_S:
                    self._set_right(back_s)
        return now.timestamp(), ist_date(now).isoformat()

    def _set_right(self, back_s: float) -> None:
        """The clock was ahead, and is so no more: what it wrote would count until it is as late as that again."""
        for window in (self._orders, *self._calls):
            window.set_right(back_s)
        self._blocked_until -= back_s
        self._polls_from -= back_s
        self._lost_at -= back_s

    def _name(self, part: str = "state") -> str:
        return f"{{{self._key}}}:budget:{part}"


def _over(wait_s: float) -> Over:
    return Over("rate_budget", "the budget of calls to the broker is used up for now", wait_s)
