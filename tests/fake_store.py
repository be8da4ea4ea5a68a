"""A working store in memory, and the clock it goes by."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from app.domain.deadline import Deadline
from app.domain.order import Order, Scope
from app.domain.risk import TradingState
from app.errors import StoreBusy, StoreUnavailable
from app.service.ports import Clock
from app.service.records import AuditEvent, OrderFilter, OrderPage, Refusal
from tests.builders import NOW
from tests.fake_data import Data
from tests.fake_transaction import FakeTransaction


class FakeClock:
    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self._mono = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._mono

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._mono += seconds

    def set_back(self, seconds: float) -> None:
        """By NTP or by hand: the time of day, not the time that goes by."""
        self._now -= timedelta(seconds=seconds)


class FakeStore:
    """In memory; a block that raises leaves nothing behind. `before_write` sees each write's number; while
    `is_queue_stuck` no queued one gets its turn.
    """

    def __init__(self, clock: Clock, scope: Scope) -> None:
        self.clock, self.data = clock, Data()
        self._lock = threading.RLock()
        self.down = self.is_queue_stuck = self.is_read_only = False
        self.before_write: Callable[[int], None] | None = None
        self.writes = 0
        self.ensure_scope(scope)

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[FakeTransaction]:
        with self._lock:
            self._writable(queued=queued)
            self.writes += 1
            if self.before_write is not None:
                self.before_write(self.writes)
            kept = copy.deepcopy(self.data)
            try:
                yield FakeTransaction(self.data, self.clock, writable=True)
            except BaseException:
                self.data = kept
                raise

    @contextmanager
    def read(self, deadline: Deadline | None = None) -> Iterator[FakeTransaction]:
        with self._lock:
            self._up()
            yield FakeTransaction(self.data, self.clock, writable=False)

    def take_lock(self, name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        with self._lock:
            held = self.data.locks.get(name)
            if held is not None and held[0] != owner and held[1] > self.clock.now():
                return False
            self.data.locks[name] = (owner, self.clock.now() + ttl)
            return True

    def try_write(self, turn: Deadline) -> None:
        with self._lock:
            self._writable(queued=True)

    def ensure_scope(self, scope: Scope) -> None:
        if scope not in self.data.states:
            with self.write() as tx:
                tx.set_trading_state(scope, TradingState.ACTIVE, "service", "first start")
            self.writes -= 1

    def tag_prefix(self, configured: str | None) -> str:
        return configured or "TEST"

    def list_orders(self, scope: Scope, wanted: OrderFilter) -> OrderPage:
        rows = [o for o in reversed(self.data.orders.values()) if o.scope == scope]
        rows = [o for o in rows if wanted.client in (None, o.client) and wanted.status in (None, o.status)]
        return OrderPage(tuple(rows[: wanted.limit]), None)

    def events(self, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]:
        return tuple(self.data.events.get(order_id, ()))

    def record_refusal(self, scope: Scope, refusal: Refusal, deadline: Deadline | None = None) -> None:
        self.data.refusals.append((scope, refusal))

    def list_refusals(self, scope: Scope, limit: int) -> tuple[Refusal, ...]:
        return tuple(r for s, r in reversed(self.data.refusals) if s == scope)[:limit]

    def check(self) -> str | None:
        return "down" if self.down else None

    @property
    def orders(self) -> list[Order]:
        return list(self.data.orders.values())

    def _writable(self, *, queued: bool) -> None:
        self._up()
        if self.is_read_only:
            raise StoreUnavailable("the database failed: ReadOnly")
        if queued and self.is_queue_stuck:
            raise StoreBusy("those before did not get done before the deadline")

    def _up(self) -> None:
        if self.down:
            raise StoreUnavailable("the database is down")
