"""What stands between the service and any broker: a breaker for orders and one for reads, and the budget of calls.

An order's "nothing was sent" is said here only for a no of our own, before the inner broker was asked; whatever the
inner broker says about an order goes out unchanged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pybreaker

from app.brokers.guard.breaker import Breaker, NothingLearntError
from app.brokers.guard.budget import CallBudget
from app.brokers.guard.exchanger import GuardedExchanger
from app.brokers.guard.patience import Patience
from app.brokers.guard.probe import ProbeTurn
from app.brokers.guard.redis_client import SharedRedis
from app.brokers.guard.retries import BREAKER_OPEN, NOT_THE_BROKERS_HEALTH, READ_TRIES, Retries
from app.domain.deadline import Deadline
from app.domain.outcome import NotSent, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed
from app.service.ports import Broker, Clock, Notifier
from app.service.ready import Unready

log = logging.getLogger(__name__)

BeforeSend = Callable[[], NotSent | None]

JUST_S = 2.0
"""How long a successful read of the exit's own request lets its order pass: one request's deadline."""
FAIR_S = 0.25
"""A broker that is well answers in this time; a call that was given less and ran out of it tells nothing."""
UNREACHABLE = frozenset({"broker_unreachable", "out_of_time"})
"""Of NotSent: the transport could not get through. Our own checks say other codes, or stop it in `before_send`."""

_T = TypeVar("_T")


class _BrokerFailedError(Exception):
    """Tells the breaker that a call failed, and carries the call's own outcome past it, unchanged."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class _NoOutcomeError(NothingLearntError):
    """An order stopped by a check of ours, or answered 429 in unknown words: it carries that outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class _NoReadingError(NothingLearntError):
    def __init__(self, error: BrokerReadFailed) -> None:
        super().__init__(error.code)
        self.error = error


def _tell(outcome: Outcome, *, was_ours: bool) -> None:
    """Raise what the breaker counts by; an answer, also a refusal, is a success and raises nothing."""
    if isinstance(outcome, NotSent) and (was_ours or outcome.code not in UNREACHABLE):
        raise _NoOutcomeError(outcome)
    if isinstance(outcome, Unknown) and outcome.rate_limited:
        raise _NoOutcomeError(outcome)  # as a read's 429: the broker is neither well nor sick by it
    if isinstance(outcome, Unknown | NotSent):
        raise _BrokerFailedError(outcome)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    fail_max: int = 5
    reset_s: float = 5.0
    throw_new_error_on_trip: bool = False
    """pybreaker's own default is True: the call that trips then reads as one that was never made."""


class Guard:
    """Implements service.ports.Broker around `inner`. `shared` is what instances have in common, None for one alone."""

    def __init__(
        self,
        inner: Broker,
        clock: Clock,
        notifier: Notifier,
        budget: CallBudget,
        *,
        policy: BreakerPolicy | None = None,
        shared: SharedRedis | None = None,
        key: str = "guard",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        policy = policy or BreakerPolicy()
        self.name = inner.name
        self._inner, self._shared = inner, shared
        self.clock, self.budget = clock, budget
        self._key = f"{{{key}}}:breakers"
        self.listeners: list[Callable[[], None]] = []
        """Called when a breaker has opened or closed."""
        self.orders, self.reads = (
            Breaker(
                name,
                clock,
                notifier,
                fail_max=policy.fail_max,
                reset_s=policy.reset_s,
                shared=shared,
                key=self._key,
                throw_new_error_on_trip=policy.throw_new_error_on_trip,
                changed=self._changed,
            )
            for name in ("orders", "reads")
        )
        self._turn = ProbeTurn(clock, shared, f"{{{key}}}:probe")
        self._patience = Patience(clock, budget, sleep)
        self._retries = Retries(clock, budget, self._patience, sleep)
        self._read_at = threading.local()

    @property
    def is_closed(self) -> bool:
        """Whether both breakers let everything pass."""
        return self.orders.is_closed and self.reads.is_closed

    def _changed(self) -> None:
        for listener in self.listeners:
            try:
                listener()
            except Exception:  # an order's outcome may be on its way through here
                log.exception("who listens to the breakers failed")

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[GuardedExchanger]:
        with self._inner.exchange(deadline, connect_by) as inner:
            yield GuardedExchanger(self, inner, deadline, once=once)

    def ready(self) -> str | None:
        """By what this process knows. Once the time for a probe has come, nothing is in its way: an alert's own quote
        is the probe.
        """
        shut = [b for b in (self.orders, self.reads) if not b.is_closed and b.wait_s() > 0]
        if shut:
            names = " and ".join(b.name for b in shut)
            return Unready(
                f"the broker failed again and again: {names} are stopped (breaker open)", BREAKER_OPEN
            )
        if (over := self.budget.unready()) is not None:
            return Unready(over.message, over.code)
        return self._inner.ready()

    def read(
        self, what: str, call: Callable[[], _T], deadline: Deadline, *, reserved: bool, once: bool = False
    ) -> _T:
        """One guarded read with its retry, but for `once`. Raises BrokerReadFailed."""
        if deadline.passed(self.clock.monotonic()):
            raise BrokerReadFailed(f"no time was left for the {what}", code="out_of_time")
        self._learn()
        token = self._probe_token(deadline)
        try:
            if token is None and not self.reads.is_closed:
                raise self._shut()
            tries = 1 if once or token is not None else READ_TRIES
            found = self._guarded_read(
                what, call, deadline, reserved=reserved, tries=tries, probe=token is not None
            )
        finally:
            if token is not None:
                self._turn.give_back(token)
        setattr(self._read_at, what, self.clock.monotonic())
        return found

    def room(self, deadline: Deadline) -> NotSent | None:
        return self._patience.room(deadline)

    def order(
        self,
        call: Callable[[BeforeSend], Outcome],
        before_send: BeforeSend | None,
        deadline: Deadline,
        *,
        passes_by: tuple[str, ...],
    ) -> Outcome:
        """One guarded order operation, made at most once. `passes_by` names the reads of which one that has just
        succeeded lets it pass an open breaker; none for an entry. `before_send` None: nobody calls it, so the budget is
        asked before the call.
        """
        left = deadline.left(self.clock.monotonic())
        if not left:
            return NotSent("out_of_time", "no time was left for the order")
        self._learn()
        reserved = bool(passes_by)
        is_open = not self.is_closed
        if is_open and not any(self._has_just_read(what) for what in passes_by):
            return self._not_sent()
        stopped: list[NotSent] = []
        is_counted = False

        def check() -> NotSent | None:
            # Again on a new connection, where one was lost: that is no other call, and `room` has promised for one.
            nonlocal is_counted
            no = None if is_counted else self._patience.order(deadline, reserved=reserved)
            is_counted = no is None
            no = no or (before_send() if before_send else None)
            stopped.extend([no] if no else [])
            return no

        if before_send is None and (no := check()) is not None:
            return no
        if is_open:
            # Its own read was the probe. It goes out beside the breaker, which a read alone may close.
            return self._heeded(call(check))
        return self._guarded_order(call, check, stopped, is_fair=left >= FAIR_S)

    def _guarded_order(
        self,
        call: Callable[[BeforeSend], Outcome],
        check: BeforeSend,
        stopped: list[NotSent],
        *,
        is_fair: bool,
    ) -> Outcome:
        entered = False
        try:
            with self.orders.calling():
                entered = True
                outcome = call(check)
                _tell(outcome, was_ours=bool(stopped) or not is_fair)
        except (_BrokerFailedError, _NoOutcomeError) as told:
            outcome = told.outcome
        except pybreaker.CircuitBreakerError:
            if entered:
                raise  # not a no of the breaker: the call was made, and nobody may take it for unsent
            return self._not_sent()
        return self._heeded(outcome)

    def _guarded_read(
        self,
        what: str,
        call: Callable[[], _T],
        deadline: Deadline,
        *,
        reserved: bool,
        tries: int,
        probe: bool,
    ) -> _T:
        started = self.clock.monotonic()
        breakers = [self.reads] + ([self.orders] if probe and self.orders.is_due else [])
        try:
            with ExitStack() as guarded:
                for breaker in breakers:
                    guarded.enter_context(breaker.calling(probe=probe and not breaker.is_closed))
                try:
                    return self._retries(what, call, deadline, reserved=reserved, tries=tries)
                except BrokerReadFailed as error:
                    if error.code in NOT_THE_BROKERS_HEALTH or not self._was_fair(started, deadline):
                        raise _NoReadingError(error) from error
                    raise
        except _NoReadingError as nothing:
            raise nothing.error from nothing.error.__cause__
        except pybreaker.CircuitBreakerError:
            raise self._shut() from None

    def _was_fair(self, started: float, deadline: Deadline) -> bool:
        """Whether a failed read had time enough; one that began at its deadline's very end says nothing."""
        return deadline.left(started) >= FAIR_S or not deadline.passed(self.clock.monotonic())

    def _heeded(self, outcome: Outcome) -> Outcome:
        """Any 429 is waited out and counted, also one that proves nothing: the fourth blocks the account."""
        match outcome:
            case (
                Refused(code="429" | "-429" | "-353", retry_after_s=wait)
                | Unknown(rate_limited=True, retry_after_s=wait)
            ):
                self.budget.heed(wait)
        return outcome

    def learn(self) -> bool:
        """Take over what the other instances know; False when nobody could be asked. One round trip to Redis, so for
        a look that no alert waits for: a guarded call does it by itself.
        """
        return self._learn()

    def _learn(self) -> bool:
        if self._shared is None:
            return False
        names = [*self.orders.fields(), *self.reads.fields()]
        answer = self._shared.ask(lambda r: r.hmget(self._key, names))
        if answer is not None:
            state, fails, read_state, read_fails = answer[0]
            self.orders.learn(state, fails)
            self.reads.learn(read_state, read_fails)
            self.orders.publish()
            self.reads.publish()
        return answer is not None

    def _probe_token(self, deadline: Deadline) -> str | None:
        """The right to be the one probe, when a probe is due."""
        if not self._probe_is_due():
            return None
        token = self._turn.take(deadline.left(self.clock.monotonic()))
        if token is None:
            return None
        self._learn()  # another instance's probe may have ended between the first look and the turn
        if self._probe_is_due():
            return token
        self._turn.give_back(token)
        return None

    def _probe_is_due(self) -> bool:
        return (self.orders.is_due or self.reads.is_due) and (self.reads.is_closed or self.reads.is_due)

    def _has_just_read(self, what: str) -> bool:
        """By this thread, and so for the request that it works on."""
        at = getattr(self._read_at, what, None)
        return at is not None and self.clock.monotonic() - at < JUST_S

    def _wait_s(self) -> int:
        return max(1, int(max(self.orders.wait_s(), self.reads.wait_s()) + 0.999))

    def _shut(self) -> BrokerReadFailed:
        text = "the broker failed again and again; the next try is a single read"
        return BrokerReadFailed(text, code=BREAKER_OPEN, retry_after_s=self._wait_s())

    def _not_sent(self) -> NotSent:
        text = "the broker failed again and again; no order goes out before a read has succeeded"
        return NotSent(BREAKER_OPEN, text, self._wait_s())
