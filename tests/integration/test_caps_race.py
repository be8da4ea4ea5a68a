"""Three instances, one database, a crowd of entries: no limit is passed by one, and every counter is what the orders say."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from sqlalchemy import create_engine, text

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.limits import Limits, Runaway
from app.domain.order import Order, Purpose, Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import ServiceError
from app.service.desk import Desk, event_of
from app.service.place_order import PlaceOrder
from app.service.records import Moved, Quote
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import LOT, NOW, SCOPE, TODAY, a_contract, a_policy, an_alert
from tests.fakes import FakeContracts, FakeNotifier

S = Status
ENTRIES, THREADS = 360, 12
OPEN = {S.SENDING, S.IN_DOUBT, S.ACCEPTED, S.NEEDS_REVIEW, S.PARTIALLY_FILLED}
FILLED_OF_CANCELLED = LOT
"""One of the two lots that a cancelled order asked for."""


class Still:
    """The wall clock stands, so that all windows are one; deadlines run."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return time.monotonic()


class Crowd:
    """A broker that takes orders from many threads; a tenth of them come to something else than an acceptance."""

    name = "crowd"

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.ledger: list[Ticket] = []
        self.sent_at: list[float] = []

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Crowd]:
        yield self

    def ready(self) -> str | None:
        return None

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        return {t: Quote(t, Decimal(100), Decimal(99), Decimal(101)) for t in tickers}

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        number = next(self.numbers)
        if number % 40 == 7:
            return NotSent("connect", "no connection")
        if (stopped := before_send()) is not None:
            return stopped
        self.sent_at.append(time.monotonic())
        if number % 40 == 17:
            return Refused("-99", "no margin")
        self.ledger.append(ticket)
        return Unknown("timed out") if number % 40 == 27 else Accepted(f"B{number}")


@dataclass
class Instances:
    """Three desks that share nothing but the database and the broker."""

    url: str
    limits: Limits
    broker: Crowd = field(default_factory=Crowd)
    notifier: FakeNotifier = field(default_factory=FakeNotifier)
    errors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        clock = Still()
        self.stores = [SqlStore(Database(self.url, clock), clock) for _ in range(3)]
        self.stores[0].ensure_scope(SCOPE)
        policy = a_policy(limits=self.limits, request_deadline_s=60.0)
        contracts = FakeContracts([a_contract()])
        self.desks = [
            Desk(store, self.broker, contracts, clock, SCOPE, policy, self.notifier)  # type: ignore[arg-type]
            for store in self.stores
        ]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    def enter(self, number: int) -> Order | None:
        desk = self.desks[number % 3]
        alert = an_alert("BUY", f"entry {number}", lots=2, strategy="s")
        try:
            row = PlaceOrder(desk)(alert, request_id="r", started=desk.clock.monotonic()).order
        except ServiceError as error:
            self.errors[error.code] += 1
            return None
        if row.status is S.ACCEPTED and int((row.broker_order_id or "B1")[1:]) % 40 == 37:
            with (
                desk.store.write() as tx
            ):  # as the reconciler would: half of it traded, the rest was cancelled
                event = event_of(Event.ORDER_CANCELLED, tx.now(), S.CANCELLED)
                change = Moved(filled_quantity=FILLED_OF_CANCELLED, fill_price=Decimal(100))
                assert tx.move(row, S.CANCELLED, event, change)
                tx.release(SCOPE, row.id, unfilled=Fraction(1, 2))
        return row

    def storm(self, entries: int = ENTRIES) -> None:
        barrier = threading.Barrier(THREADS)

        def one_after_the_other(start: int) -> None:
            barrier.wait()
            for number in range(start, entries, THREADS):
                self.enter(number)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one_after_the_other, range(THREADS)))

    def orders(self) -> list[Order]:
        with self.stores[0].read() as tx:
            return [o for o in tx.orders_on(SCOPE, TODAY) if o.purpose is Purpose.ENTRY]

    def counters(self) -> dict[str, int]:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, used FROM caps")).all()
        engine.dispose()
        return {row.name: row.used for row in rows}

    def state(self) -> TradingState:
        with self.stores[0].read() as tx:
            return tx.trading_state(SCOPE)


def recount(orders: list[Order]) -> dict[str, int]:
    """What the counters have to be, from nothing but the orders."""
    counted = [o for o in orders if o.status is not S.DENIED]
    lots = 0
    for o in counted:
        gone = {S.NOT_SENT: o.quantity, S.REJECTED: o.quantity, S.CANCELLED: o.quantity - o.filled_quantity}
        lots += (o.quantity - gone.get(o.status, 0)) // o.lot
    names = ("orders_minute", "orders_hour", "orders_day")
    return dict.fromkeys(names, len(counted)) | {"lots_day": lots, "contracts_day": lots * LOT}


def lots_open(orders: list[Order]) -> int:
    open_ = sum(o.quantity for o in orders if o.status in OPEN)
    return (open_ + sum(o.filled_quantity for o in orders if o.status not in OPEN)) // LOT


WIDE = 100_000
CASES = {
    "orders_minute": Limits(max_lots=2, max_orders_per_minute=50, max_orders_per_day=WIDE),
    "orders_hour": Limits(max_lots=2, max_orders_per_hour=50, max_lots_per_day=WIDE),
    "orders_day": Limits(max_lots=2, max_orders_per_day=50, max_orders_per_minute=WIDE),
    "lots_day": Limits(max_lots=2, max_lots_per_day=101, max_orders_per_day=WIDE),
    "open_lots": Limits(max_lots=2, max_open_lots=101),
    "open_value": Limits(max_lots=2, max_open_value=Decimal(101 * LOT * 100)),
    "repeat": Limits(max_lots=2, repeat_seconds=30),
    "all": Limits(
        max_lots=2,
        max_orders_per_minute=49,
        max_orders_per_hour=50,
        max_orders_per_day=51,
        max_lots_per_day=102,
        max_open_lots=103,
        runaway=Runaway(WIDE, 60),
    ),
}


@pytest.fixture
def instances(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Instances]:
    made = Instances(postgres_url, CASES[request.param])
    yield made
    made.close()


@pytest.mark.parametrize("instances", CASES, indirect=True)
def test_three_instances_never_pass_a_limit_by_one(instances: Instances) -> None:
    instances.storm()
    orders, limits = instances.orders(), instances.limits
    assert instances.errors == Counter()
    assert len(orders) == ENTRIES
    assert any(o.status is S.DENIED for o in orders), "no limit was met"
    truth = recount(orders)
    counters = instances.counters()
    assert counters == truth  # those without a limit count too
    for name, most in (
        ("orders_minute", limits.max_orders_per_minute),
        ("orders_hour", limits.max_orders_per_hour),
        ("orders_day", limits.max_orders_per_day),
        ("lots_day", limits.max_lots_per_day),
    ):
        assert most is None or truth[name] <= most, name
    assert lots_open(orders) <= (limits.max_open_lots or WIDE)
    assert lots_open(orders) * LOT * 100 <= (limits.max_open_value or WIDE * WIDE)
    assert len(instances.broker.ledger) == len([o for o in orders if o.broker_order_id or o.status in OPEN])
    if limits.repeat_seconds:
        assert len(instances.broker.ledger) == 1


def test_a_runaway_over_three_instances_is_stopped_at_its_number_and_told_once(postgres_url: str) -> None:
    instances = Instances(postgres_url, Limits(max_lots=2, runaway=Runaway(30, 60)))
    try:
        instances.storm(120)
        went = [o for o in instances.orders() if o.status is not S.DENIED]
        assert 0 < len(went) <= 30
        assert instances.state() is TradingState.REDUCING
        assert instances.notifier.pages == ["runaway"]
    finally:
        instances.close()
