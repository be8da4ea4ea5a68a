"""One budget of time, shared by everything that happens on behalf of one request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """An absolute point on the monotonic clock, in seconds, by which the answer has to be ready.

    The clock is a parameter everywhere: `left(now)` takes the reading, so that tests need not wait.
    """

    at: float

    def left(self, now: float) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        return now >= self.at

    def sooner(self, at: float) -> Deadline:
        """The earlier of this deadline and `at`: a step may have less than the whole, never more."""
        return Deadline(min(self.at, at))
