"""What one process knows of one breaker, for pybreaker. Every method is local and quick, because pybreaker calls them
under its lock; what the other instances should know is remembered here, and published by `Breaker` outside that lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pybreaker

OPEN, CLOSED, HALF_OPEN = pybreaker.STATE_OPEN, pybreaker.STATE_CLOSED, pybreaker.STATE_HALF_OPEN

STEP_S = 0.001


class Storage(pybreaker.CircuitBreakerStorage):
    """`now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__("guard")
        self.now = now
        self.lock = threading.RLock()
        self.status: str = CLOSED
        self.opened = 0.0
        self.closed = 0.0
        self.probe_started = 0.0
        self.fails = 0
        self.successes = 0
        self.unpublished_fails = 0
        self.reset_unpublished = False
        self.status_unpublished = False
        self.neutral = threading.local()

    @property
    def state(self) -> str:
        return self.status

    @state.setter
    def state(self, state: str) -> None:
        with self.lock:
            if state == self.status:
                return
            if state == CLOSED:
                self.closed = self.probe_started
            self.status_unpublished = self.status_unpublished or state != HALF_OPEN
            self.status = state

    @property
    def opened_at(self) -> datetime | None:
        """Always just now: so pybreaker never half-opens by itself, for whatever call happens to come first."""
        return datetime.now(UTC)

    @opened_at.setter
    def opened_at(self, _: datetime) -> None:
        with self.lock:
            if self.status != OPEN:  # a call of before the trip that fails late does not prolong it
                # Above every closing that is known here: another host's clock may be ahead of this one's, and its
                # earlier closing must not look like a read that has succeeded since.
                self.opened = max(self.now(), self.closed + STEP_S)

    @property
    def counter(self) -> int:
        return self.fails

    def increment_counter(self) -> None:
        with self.lock:
            self.fails += 1
            self.unpublished_fails += 1

    def reset_counter(self) -> None:
        with self.lock:
            if self.fails and not self._is_neutral():
                self.fails = self.unpublished_fails = 0
                self.reset_unpublished = True

    @property
    def success_counter(self) -> int:
        return self.successes

    def increment_success_counter(self) -> None:
        if not self._is_neutral():
            self.successes += 1

    def reset_success_counter(self) -> None:
        self.successes = 0

    def _is_neutral(self) -> bool:
        return bool(getattr(self.neutral, "on", False))
