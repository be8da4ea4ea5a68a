"""A desk of the service that can die or be paused at any of its steps, on a broker whose book may lag, freeze or be empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.domain.deadline import Deadline
from app.domain.order import Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Unknown
from app.service.ports import Store
from app.service.records import BookOrder, BookStatus, Trade
from tests.fake_data import Data, Reserved
from tests.fake_store import FakeClock, FakeStore
from tests.fake_transaction import FakeTransaction
from tests.fakes import FakeBroker
from tests.wire_brokers import Crash


def copy_of(data: Data) -> Data:
    """A rollback's copy: rows are frozen, so that only what is changed in place has to be copied."""
    made = Data(**{name: value.copy() for name, value in vars(data).items()})
    made.events = {ident: list(events) for ident, events in data.events.items()}
    made.slots = {scope: list(times) for scope, times in data.slots.items()}
    made.reserved = {
        ident: [Reserved(r.cap, r.returned, r.released) for r in rows]
        for ident, rows in data.reserved.items()
    }
    return made


class QuickStore(FakeStore):
    """The working store in memory, without its deep copies."""

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[FakeTransaction]:
        with self._lock:
            kept = copy_of(self.data)
            try:
                yield FakeTransaction(self.data, self.clock, writable=True)
            except BaseException:
                self.data = kept
                raise


class Street(FakeBroker):
    """What is true at the exchange, and what the broker's book shows of it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.frozen: tuple[tuple[BookOrder, ...], tuple[Trade, ...]] | None = None
        self.late_s = 0.0
        self.sides: dict[str, int] = {}
        """Which way a contract may be held."""
        self.turned = 0
        """Contracts traded past zero, the other way."""
        self.taken: set[str | None] = set()
        """Tags of what the broker has accepted."""
        self.appears: dict[str, datetime] = {}
        self.beside: dict[str, set[str]] = {}
        """By position: the orders that rested on its closing side when a fill brought the stop it has now."""

    def freeze(self, *, empty: bool) -> None:
        self.frozen = ((), ()) if empty else (self.order_book(), self.trades())

    def thaw(self) -> None:
        self.frozen = None

    def order_book(self) -> tuple[BookOrder, ...]:
        self._read("order_book")
        return (
            self.frozen[0] if self.frozen else tuple(r for r in self.book if self._shown(r.broker_order_id))
        )

    def trades(self) -> tuple[Trade, ...]:
        self._read("trades")
        if self.frozen:
            return self.frozen[1]
        return tuple(t for t in self.fills_of_today if self._shown(t.broker_order_id))

    def _shown(self, ident: str) -> bool:
        return ident not in self.appears or self.appears[ident] <= self.clock.now()

    def take(self, ticket: Ticket) -> str:
        self.taken.add(ticket.tag)
        ident = super().take(ticket)
        if self.late_s:
            self.appears[ident] = self.clock.now() + timedelta(seconds=self.late_s)
        return ident

    def fill_part(self, ident: str, quantity: int, price: Decimal = Decimal(101)) -> None:
        before = dict(self.protected)
        super().fill_part(ident, quantity, price)
        self._look()
        for position_id in (p for p, legs in self.protected.items() if before.get(p) is not legs):
            row = next(r for r in self.book if r.broker_order_id == ident)
            closing = (r for r in self.working() if r.ticker == row.ticker and r.side is not row.side)
            self.beside[position_id] = {r.broker_order_id for r in closing}

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        said = super().set_protection(position_id, stop_distance, target_distance, quantity)
        if isinstance(said, Accepted):
            self.beside.pop(position_id, None)
        return said

    def is_a_race(self, position_id: str) -> bool:
        """A fill has brought a stop beside an exit that rests, and no pass has seen it yet: the broker lets both fill."""
        return any(r.broker_order_id in self.beside.get(position_id, ()) for r in self.working())

    def _look(self) -> None:
        nets = [net * self.sides.get(ticker, 0) for (ticker, _), net in self.net.items()]
        self.turned = min(self.turned, *nets)

    def working(self) -> list[BookOrder]:
        return [row for row in self.book if row.status == BookStatus.PENDING]

    def end(self, ident: str, status: int) -> None:
        """The exchange's word on what is left of an order."""
        at = next(n for n, row in enumerate(self.book) if row.broker_order_id == ident)
        self.book[at] = replace(self.book[at], status=status)

    def night(self) -> None:
        """Day orders and INTRADAY positions end, and the next day's books begin empty."""
        self.book.clear()
        self.appears.clear()
        self.net = {place: net for place, net in self.net.items() if place[1] != "INTRADAY"}
        self.protected.clear()
        self.fills_of_today.clear()
        self.frozen = None


@dataclass
class Plan:
    """At the `left`-th step from now on, do `act`."""

    left: int
    act: Callable[[], None]


@dataclass
class Life:
    """One process. Whatever it does after its death does not happen."""

    plan: Plan | None = None
    dead: bool = False
    passed: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        if self.dead:
            raise Crash
        self.passed.append(name)
        if self.plan is None:
            return
        self.plan.left -= 1
        if self.plan.left == 0:
            plan, self.plan = self.plan, None
            plan.act()

    def die(self) -> None:
        self.dead = True
        raise Crash


class Door:
    """The store as one process sees it."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store, self._life = store, life

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[Any]:
        self._life.step("before commit")
        with self._store.write(deadline, queued=queued) as tx:
            yield tx
        self._life.step("after commit")

    @contextmanager
    def read(self, deadline: Deadline | None = None) -> Iterator[Any]:
        self._life.step("read")
        with self._store.read(deadline) as tx:
            yield tx

    def take_lock(self, name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        self._life.step("before lock")
        taken = self._store.take_lock(name, owner, ttl, Deadline(0.0))
        self._life.step("after lock")
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Wire:
    """The broker as one process reaches it; a request that is written late is carried out all the same."""

    name = "wire"

    def __init__(self, broker: Street, life: Life, clock: FakeClock, late: set[str | None]) -> None:
        self._broker, self._life, self._clock, self._late = broker, life, clock, late
        self._connect_by = Deadline(0.0)

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Wire]:
        made = Wire(self._broker, self._life, self._clock, self._late)
        made._connect_by = connect_by or deadline
        yield made

    def __getattr__(self, name: str) -> Any:
        there = getattr(self._broker, name)
        if name not in ("quotes", "order_book", "trades", "positions", "cancel", "set_protection"):
            return there

        def call(*given: Any) -> Any:
            self._life.step(f"before {name}")
            answer = there(*given)
            self._life.step(f"after {name}")
            return answer

        return call

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        self._life.step("before place")
        if (stopped := before_send()) is not None:
            return stopped
        self._life.step("after the last check")
        if self._connect_by.passed(self._clock.monotonic()):
            return NotSent("out_of_time", "the transport looks at the time too")
        self._life.step("in the write")
        late = self._connect_by.passed(self._clock.monotonic())
        if late:
            self._late.add(ticket.tag)
        outcome = self._broker.place(ticket, lambda: None, reduces=reduces)
        self._life.step("after place")
        return (
            replace(outcome, sent_late=True) if late and isinstance(outcome, Accepted | Unknown) else outcome
        )
