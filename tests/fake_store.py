"""A working store in memory, and the clock it goes by."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.alert import AlertKey, Product
from app.domain.deadline import Deadline
from app.domain.order import Order, Scope, Side
from app.domain.risk import Denial, TradingState
from app.domain.status import UNSETTLED, WORKING, Status, check_move
from app.errors import StoreUnavailable
from app.service.records import (
    AuditEvent,
    Cap,
    Holding,
    Known,
    Moved,
    OrderFilter,
    OrderPage,
    Refusal,
)
from tests.builders import NOW

OPEN = UNSETTLED | WORKING | {Status.EXIT_PENDING, Status.NEEDS_REVIEW}
NEVER_SENT = {Status.DENIED, Status.EXIT_PENDING, Status.NOT_SENT}


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


@dataclass
class _Claim:
    order_id: str
    body_hash: str
    until: datetime


@dataclass
class _Data:
    orders: dict[str, Order] = field(default_factory=dict)
    events: dict[str, list[AuditEvent]] = field(default_factory=dict)
    keys: dict[tuple[Scope, str, str], _Claim] = field(default_factory=dict)
    caps: dict[tuple[Scope, str, str], int] = field(default_factory=dict)
    reserved: dict[str, list[Cap]] = field(default_factory=dict)
    adjusted: dict[tuple[Scope, str, str, Product], int] = field(default_factory=dict)
    adjustments: list[tuple[str, int, str]] = field(default_factory=list)
    locks: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    states: dict[Scope, TradingState] = field(default_factory=dict)
    refusals: list[tuple[Scope, Refusal]] = field(default_factory=list)


class FakeTransaction:
    def __init__(self, data: _Data, clock: FakeClock, *, writable: bool) -> None:
        self._data, self._clock, self._writable = data, clock, writable

    def now(self) -> datetime:
        return self._clock.now()

    def trading_state(self, scope: Scope) -> TradingState:
        return self._data.states.get(scope, TradingState.HALTED)

    def find_key(self, scope: Scope, client: str, key: AlertKey) -> Known | None:
        claim = self._data.keys.get((scope, client, key.digest))
        if claim is None or claim.until <= self.now() or claim.order_id not in self._data.orders:
            return None
        return Known(self._data.orders[claim.order_id], claim.body_hash)

    def claim_key(self, scope: Scope, client: str, key: AlertKey, order_id: str, ttl: timedelta) -> bool:
        self._must_write()
        claim = self._data.keys.get((scope, client, key.digest))
        if claim is not None and claim.until > self.now():
            return False
        until = self.now() + ttl
        self._data.keys[scope, client, key.digest] = _Claim(order_id, key.body_hash, until)
        return True

    def reserve(self, scope: Scope, order_id: str, caps: Sequence[Cap]) -> Denial | None:
        self._must_write()
        had = {(c.name, c.window) for c in self._data.reserved.get(order_id, [])}
        caps = [c for c in caps if (c.name, c.window) not in had]
        for cap in caps:
            used = self._data.caps.get((scope, cap.name, cap.window), 0)
            if used + cap.amount > cap.limit:
                return Denial(f"cap_{cap.name}", f"{cap.name}: {used} of {cap.limit} used")
        for cap in caps:
            slot = (scope, cap.name, cap.window)
            self._data.caps[slot] = self._data.caps.get(slot, 0) + cap.amount
        self._data.reserved.setdefault(order_id, []).extend(caps)
        return None

    def release(self, scope: Scope, order_id: str) -> None:
        self._must_write()
        reserved = self._data.reserved.get(order_id, [])
        for cap in [c for c in reserved if c.returnable]:
            self._data.caps[scope, cap.name, cap.window] -= cap.amount
            reserved.remove(cap)

    def insert_order(self, order: Order, event: AuditEvent) -> None:
        self._must_write()
        if order.id in self._data.orders:
            raise AssertionError(f"expected a new id, was {order.id} again")
        self._keep(order, event)

    def restart_order(self, order: Order, event: AuditEvent, before: Status) -> bool:
        self._must_write()
        if self._data.orders[order.id].status is not before:
            return False
        check_move(before, order.status)
        self._keep(order, event)
        return True

    def get_order(self, scope: Scope, order_id: str, *, lock: bool = False) -> Order | None:
        order = self._data.orders.get(order_id)
        return order if order is not None and order.scope == scope else None

    def move(
        self, order: Order, after: Status, event: AuditEvent, change: Moved | None = None
    ) -> Order | None:
        self._must_write()
        check_move(order.status, after)
        row = self._data.orders[order.id]
        if (row.status, row.attempt) != (order.status, order.attempt):
            return None
        return self._keep(replace(_changed(row, change), status=after), event)

    def record(self, order: Order, event: AuditEvent, change: Moved | None = None) -> Order:
        self._must_write()
        return self._keep(_changed(self._data.orders[order.id], change), event)

    def holdings(self, scope: Scope, client: str | None) -> tuple[Holding, ...]:
        nets = {key: delta for key, delta in self._data.adjusted.items() if key[0] == scope}
        for order in self._data.orders.values():
            if order.scope == scope:
                key = (scope, order.client, order.ticker, order.product)
                nets[key] = nets.get(key, 0) + order.side.sign * order.filled_quantity
        return tuple(
            Holding(who, ticker, product, net)
            for (_, who, ticker, product), net in nets.items()
            if net and client in (None, who)
        )

    def open_orders(
        self,
        scope: Scope,
        client: str | None = None,
        *,
        ticker: str | None = None,
        side: Side | None = None,
    ) -> tuple[Order, ...]:
        rows = (o for o in self._data.orders.values() if o.scope == scope and o.status in OPEN)
        return tuple(
            o
            for o in rows
            if client in (None, o.client) and ticker in (None, o.ticker) and side in (None, o.side)
        )

    def orders_in(self, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
        return tuple(
            o
            for o in self._data.orders.values()
            if (o.scope, o.ticker, o.product) == (scope, ticker, product) and o.status not in NEVER_SENT
        )

    def adjust_holding(
        self, scope: Scope, client: str, ticker: str, product: Product, delta: int, reason: str
    ) -> None:
        self._must_write()
        key = (scope, client, ticker, product)
        self._data.adjusted[key] = self._data.adjusted.get(key, 0) + delta
        self._data.adjustments.append((client, delta, reason))

    def owns_lock(self, name: str, owner: str) -> bool:
        held = self._data.locks.get(name)
        return held is not None and held[0] == owner and held[1] > self.now()

    def free_lock(self, name: str, owner: str) -> None:
        if self._data.locks.get(name, ("",))[0] == owner:
            del self._data.locks[name]

    def _must_write(self) -> None:
        if not self._writable:
            raise AssertionError("expected no change in a reading transaction")

    def _keep(self, order: Order, event: AuditEvent) -> Order:
        order = replace(order, updated_at=self.now())
        events = self._data.events.setdefault(order.id, [])
        events.append(replace(event, sequence=len(events) + 1))
        self._data.orders[order.id] = order
        return order


def _changed(order: Order, change: Moved | None) -> Order:
    if change is None:
        return order
    names = Moved.__dataclass_fields__
    values: dict[str, Any] = {n: getattr(change, n) for n in names if getattr(change, n) is not None}
    return replace(order, **values)


class FakeStore:
    """In memory; a block that raises leaves nothing behind. `before_write` sees each write's number."""

    def __init__(self, clock: FakeClock, scope: Scope) -> None:
        self.clock, self.data = clock, _Data()
        self._lock = threading.RLock()
        self.down = False
        self.before_write: Callable[[int], None] | None = None
        self.writes = 0
        self.ensure_scope(scope)

    @contextmanager
    def write(self, deadline: Deadline | None = None) -> Iterator[FakeTransaction]:
        with self._lock:
            self._up()
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
            if held is not None and held[1] > self.clock.now():
                return False
            self.data.locks[name] = (owner, self.clock.now() + ttl)
            return True

    def ensure_scope(self, scope: Scope) -> None:
        self.data.states.setdefault(scope, TradingState.ACTIVE)

    def tag_prefix(self, configured: str | None) -> str:
        return configured or "TEST"

    def list_orders(self, scope: Scope, wanted: OrderFilter) -> OrderPage:
        rows = [o for o in reversed(self.data.orders.values()) if o.scope == scope]
        rows = [o for o in rows if wanted.client in (None, o.client) and wanted.status in (None, o.status)]
        return OrderPage(tuple(rows[: wanted.limit]), None)

    def events(self, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]:
        return tuple(self.data.events.get(order_id, ()))

    def record_refusal(self, scope: Scope, refusal: Refusal) -> None:
        self.data.refusals.append((scope, refusal))

    def list_refusals(self, scope: Scope, limit: int) -> tuple[Refusal, ...]:
        return tuple(r for s, r in reversed(self.data.refusals) if s == scope)[:limit]

    def check(self) -> str | None:
        return "down" if self.down else None

    @property
    def orders(self) -> list[Order]:
        return list(self.data.orders.values())

    def _up(self) -> None:
        if self.down:
            raise StoreUnavailable("the database is down")
