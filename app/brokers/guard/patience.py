"""Waiting for the budget: what must not be refused in its middle waits while there is time, everything else is told no."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.brokers.guard.budget import CallBudget, Over
from app.domain.deadline import Deadline
from app.domain.outcome import NotSent
from app.service.ports import Clock

CALL_S = 0.12
"""What a call of the broker's takes as a rule."""
MOST_WAITS = 2
"""Each ends when by the count there is room again; not so after the second, others take it all."""
PROMISED_S = 0.5
"""By then an exit has made its calls, or they stand in the budget."""
ORDERS, READS = 2, 1
"""The legs off, a look at the position, and the exit."""


class Patience:
    """The budget of one guard, waited for by cancels, exits and followers alone."""

    def __init__(self, clock: Clock, budget: CallBudget, sleep: Callable[[float], None]) -> None:
        self._clock, self._budget, self._sleep = clock, budget, sleep
        self._promised: list[float] = []
        self._lock = threading.Lock()

    def read(self, deadline: Deadline, *, reserved: bool) -> Over | None:
        """None: it is counted, and may be made."""
        return self._wait(lambda: self._budget.take_read(reserved=reserved), deadline, patient=reserved)

    def order(self, deadline: Deadline, *, reserved: bool) -> NotSent | None:
        over = self._wait(lambda: self._budget.take_order(reserved=reserved), deadline, patient=reserved)
        return None if over is None else over.not_sent()

    def room(self, deadline: Deadline) -> NotSent | None:
        """Whether an exit can be made once its legs are off. Asked before: refused between the two, the position would
        have neither its stop nor its exit. What one exit of this process was told, the next one counts as used.
        """
        now = self._clock.monotonic()
        with self._lock:
            self._promised = [at for at in self._promised if at > now]
            others = len(self._promised)
            wait_s = self._budget.ready_in(ORDERS * (others + 1), (others + 1) * READS)
            if max(wait_s + CALL_S, (ORDERS + READS) * CALL_S) <= deadline.left(now):
                self._promised.append(now + PROMISED_S)
                return None
        text = "the budget of calls to the broker does not hold this exit now: its legs stay on"
        return Over("rate_budget", text, max(wait_s, PROMISED_S)).not_sent()

    def _wait(self, take: Callable[[], Over | None], deadline: Deadline, *, patient: bool) -> Over | None:
        over = take()
        for _ in range(MOST_WAITS if patient else 0):
            if over is None or over.wait_s + CALL_S > deadline.left(self._clock.monotonic()):
                break
            self._sleep(over.wait_s)
            over = take()
        return over
