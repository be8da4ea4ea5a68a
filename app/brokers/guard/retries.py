"""The budget and the retry of one read. Orders never come here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from app.brokers.guard.budget import CallBudget
from app.brokers.guard.patience import Patience
from app.domain.deadline import Deadline
from app.errors import BrokerReadFailed
from app.service.ports import Clock

READ_TRIES = 2
JITTER_S = (0.02, 0.08)
WORTH_A_TRY_S = 0.15
"""A read is not repeated with less than this left of its deadline."""
BREAKER_OPEN = "breaker_open"
RATE_LIMITED = "broker_rate_limited"
NOT_THE_BROKERS_HEALTH = frozenset(
    {"token_expired", "out_of_time", "rate_budget", RATE_LIMITED, "broker_refused", BREAKER_OPEN}
)
"""Failed reads by a check of ours, or answered in full with a no: the broker is neither well nor sick by them."""

_T = TypeVar("_T")


class Retries:
    def __init__(
        self, clock: Clock, budget: CallBudget, patience: Patience, sleep: Callable[[float], None]
    ) -> None:
        self._clock, self._budget, self._patience, self._sleep = clock, budget, patience, sleep

    def __call__(
        self, what: str, call: Callable[[], _T], deadline: Deadline, *, reserved: bool, tries: int
    ) -> _T:
        """The read, and again after a short random wait, when the broker failed and time and budget are left."""
        failed: BrokerReadFailed | None = None

        def attempt() -> _T:
            nonlocal failed
            over = self._patience.read(deadline, reserved=reserved)
            if over is not None:
                no = BrokerReadFailed(
                    f"{over.message} ({what})", code=over.code, retry_after_s=over.retry_after_s
                )
                raise failed or no  # the budget for a repeat is no reason to forget why one was wanted
            try:
                return call()
            except BrokerReadFailed as error:
                failed = error
                if error.code == RATE_LIMITED:
                    self._budget.heed(error.retry_after_s)
                raise

        def may_help(error: BaseException) -> bool:
            left = deadline.left(self._clock.monotonic())
            is_theirs = isinstance(error, BrokerReadFailed) and error.code not in NOT_THE_BROKERS_HEALTH
            return is_theirs and left > WORTH_A_TRY_S + JITTER_S[1]

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(tries),
            wait=tenacity.wait_random(*JITTER_S),
            retry=tenacity.retry_if_exception(may_help),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)
