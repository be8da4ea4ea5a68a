"""One circuit breaker: pybreaker's states and counting, on a storage whose truth is local and shared when it can be.

pybreaker's own habits are dangerous around orders, so here: `calling()` instead of `call()`, which holds its lock
while the guarded code runs; no new error on the call that trips, because that call's order may have gone out; and the
half-open state is entered by the guard alone, for one read at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pybreaker

from app.brokers.guard.redis_client import SharedRedis
from app.brokers.guard.storage import CLOSED, HALF_OPEN, OPEN, Storage
from app.service.ports import Clock, Notifier

log = logging.getLogger(__name__)

APART_S = 60.0
"""What the clocks of two instances differ by at most."""


class NothingLearntError(Exception):
    """The guarded call told nothing about the broker's health: neither a success nor a failure."""


class Breaker:
    """`name` is orders or reads. Times are seconds since the epoch on the given clock."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        notifier: Notifier,
        *,
        fail_max: int,
        reset_s: float,
        shared: SharedRedis | None = None,
        key: str = "guard",
        throw_new_error_on_trip: bool,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when it has opened or closed."""
        self.name, self._notifier, self._fail_max, self._reset_s = name, notifier, fail_max, reset_s
        self._shared, self._key = shared, key
        self._clock = clock
        self._announced, self._changed = CLOSED, changed
        self.storage = Storage(self._now)
        self._breaker: Any = pybreaker.CircuitBreaker(  # its methods are not all typed
            fail_max=fail_max,
            reset_timeout=reset_s,
            exclude=[NothingLearntError],
            state_storage=self.storage,
            name=name,
            throw_new_error_on_trip=throw_new_error_on_trip,
        )

    def _now(self) -> float:
        return self._clock.now().timestamp()

    @property
    def is_closed(self) -> bool:
        return self.storage.status == CLOSED

    @property
    def is_due(self) -> bool:
        """Open for so long that a read may find out."""
        return not self.is_closed and self.wait_s() <= 0

    def wait_s(self) -> float:
        """Until a probe may go out; zero when it may now, and when the clock has been set back by much since it opened."""
        left = self.storage.opened + self._reset_s - self._now()
        return 0.0 if left > self._reset_s + APART_S else max(0.0, left)

    @contextmanager
    def calling(self, *, probe: bool = False) -> Iterator[None]:
        """Guard a block. It raises what it means: an error is a failure of the broker, NothingLearntError is none.

        Raises pybreaker.CircuitBreakerError, before the block, when another thread has just opened it.
        """
        if probe:
            self.storage.probe_started = self._now()
            self._breaker.half_open()
        try:
            with self._breaker.calling(), self._neutral_when_nothing_learnt():
                yield
        finally:
            if probe and self.storage.status == HALF_OPEN:  # the probe proved nothing: as open as before
                self.storage.status = OPEN
            self.publish()

    @contextmanager
    def _neutral_when_nothing_learnt(self) -> Iterator[None]:
        """Pybreaker takes an excluded error for a success; here it must not reset a count or close anything."""
        self.storage.neutral.on = False
        try:
            yield
        except NothingLearntError:
            self.storage.neutral.on = True
            raise

    def _announce(self) -> None:
        """Log and tell a change between closed and not closed, once, whoever caused it."""
        with self.storage.lock:
            was, self._announced = self._announced, OPEN if self.storage.status != CLOSED else CLOSED
            now = self._announced
        if was == now:
            return
        log.warning("breaker of %s: %s -> %s", self.name, was, now)
        if now == CLOSED:
            self._notifier.notify("breaker_closed", f"the broker answers again: {self.name} go out")
        else:
            text = f"the broker failed {self._fail_max} times in a row: {self.name} stopped"
            self._notifier.notify("breaker_open", text)
        self._changed()

    def fields(self) -> tuple[str, str]:
        """Where its state and its count stand in the shared hash."""
        return f"{self.name}.state", f"{self.name}.fails"

    def learn(self, state: str | None, fails: str | None) -> None:
        """Take over what the other instances published. Nothing published proves nothing: an open one stays open
        until a read has succeeded somewhere after it opened, and tells the others so.
        """
        storage = self.storage
        with storage.lock:
            word, _, text = (state or "").partition(":")
            at = _number(text)
            if word == OPEN and storage.status == CLOSED:
                if at > storage.closed:
                    storage.status, storage.opened = OPEN, at
                else:
                    storage.status_unpublished = True
            elif word == OPEN:
                storage.opened = max(storage.opened, at)
            elif word == CLOSED and storage.status == OPEN and at > storage.opened:
                storage.status, storage.closed = CLOSED, at
            elif word == CLOSED and storage.status == CLOSED:
                storage.closed = max(storage.closed, at)
            elif storage.status != CLOSED:
                storage.status_unpublished = True
            if not storage.reset_unpublished and storage.status == CLOSED:
                storage.fails = int(_number(fails)) + storage.unpublished_fails
        self._announce()

    def publish(self) -> None:
        """Tell the others what has changed here since the last time."""
        self._announce()
        storage = self.storage
        with storage.lock:
            tell, reset, delta = (
                storage.status_unpublished,
                storage.reset_unpublished,
                storage.unpublished_fails,
            )
            is_open = storage.status != CLOSED
            state = f"{OPEN}:{storage.opened!r}" if is_open else f"{CLOSED}:{storage.closed!r}"
        if self._shared is None or not (tell or reset or delta):
            return
        state_field, fails_field = self.fields()

        def write(redis: Any) -> int:  # noqa: ANN401 - the client's own types say nothing useful
            pipe = redis.pipeline(transaction=True)
            if tell:
                pipe.hset(self._key, state_field, state)
            if reset:
                pipe.hset(self._key, fails_field, 0)
            pipe.hincrby(self._key, fails_field, delta)
            return int(pipe.execute()[-1])

        answer = self._shared.ask(write)
        if answer is None:
            return
        with storage.lock:
            storage.unpublished_fails -= min(delta, storage.unpublished_fails)
            storage.reset_unpublished = storage.reset_unpublished and not reset
            storage.status_unpublished = storage.status_unpublished and not tell
            trips = delta > 0 and answer[0] >= self._fail_max and storage.status == CLOSED
        if trips:  # others had counted the rest
            self._breaker.open()
            self.publish()


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
