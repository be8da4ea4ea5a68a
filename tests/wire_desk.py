"""The service in this process: real store, real contract index, real wire to the simulator; the clock can be set."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import text

from app.brokers.fyers.broker import FyersBroker
from app.brokers.fyers.client import FyersClient
from app.brokers.fyers.login import StaticTokens
from app.brokers.fyers.symbols import IndexedContracts, build_from_bytes
from app.domain.alert import Alert
from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.order import Mode, Order, Purpose, Scope
from app.domain.risk import Limits, TradingState
from app.domain.status import Status
from app.service import adopt, place_order
from app.service.desk import Desk
from app.service.place_order import Answer, PlaceOrder
from app.service.reconcile import FirstPass, Reconcile
from app.service.records import Cap, OrderFilter
from app.service.settle import Settle
from app.store.engine import Database
from app.store.migrate import upgrade
from app.store.sql import SqlStore
from tests.builders import a_policy, an_alert
from tests.fakes import FakeNotifier
from tests.fyers_sim import FyersSim, SimClock, nifty_ticker, sample_masters

SCOPE = Scope(Mode.LIVE, "X-200")
MORNING = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)
"""Wednesday, 10:00 IST; NIFTY's weekly ends on Tuesday."""
TICKER = nifty_ticker(ist_date(MORNING))
LOT = 65
OTHER = nifty_ticker(ist_date(MORNING), strike=24600)
REQUEST_S = 5.0
"""A request's time, and the transport's time-outs: longer than a busy machine stands still."""
SOON_S = 2.0
"""The read time-out of a desk that has to meet a broker who does not answer."""
NEVER_SENT = (Status.DENIED, Status.EXIT_PENDING)


class Clock:
    """The simulator's day for everybody, real seconds for deadlines."""

    def __init__(self, sim_clock: SimClock) -> None:
        self._now = sim_clock

    def now(self) -> datetime:
        return self._now()

    def monotonic(self) -> float:
        return monotonic()


class SimSeconds(Clock):
    """Monotonic seconds that go with the simulator's clock, for what compares the two."""

    def monotonic(self) -> float:
        return self.now().timestamp()


class WireDesk:
    """One instance. Several may share a database and a simulator."""

    def __init__(
        self,
        directory: Path,
        sim: FyersSim,
        clock: SimClock,
        *,
        url: str | None = None,
        settle: Settle | None = None,
        first_pass: bool = False,
        read_timeout_s: float = REQUEST_S,
        **policy: Any,
    ) -> None:
        self.sim, self.sim_clock, self.clock = sim, clock, Clock(clock)
        self.url = url or f"sqlite:///{directory / 'orders.sqlite3'}"
        upgrade(self.url)
        self.store = SqlStore(Database(self.url, self.clock), self.clock)
        self.store.ensure_scope(SCOPE)
        self.index = directory / "contracts"
        if not self.index.exists():
            build_from_bytes(self.index, sample_masters(ist_date(clock())))
        self.contracts = IndexedContracts(self.index, self.clock)
        client = FyersClient(
            sim.base_url, sim.data_url, connect_timeout_s=REQUEST_S, read_timeout_s=read_timeout_s
        )
        client.load()
        tokens = StaticTokens("t", clock() + timedelta(weeks=9))
        self.broker = FyersBroker(client, "X-200", tokens, self.clock)
        self.notifier = FakeNotifier()
        self._numbers = itertools.count(1)
        values = {"limits": Limits(max_lots=10), "request_deadline_s": REQUEST_S}
        self.desk = Desk(
            self.store,
            self.broker,
            self.contracts,
            self.clock,
            SCOPE,
            a_policy(**(values | policy)),
            self.notifier,
            reconciled=FirstPass(SimSeconds(clock), SCOPE) if first_pass else lambda _: True,
        )
        self.place = PlaceOrder(self.desk)
        self.reconcile = Reconcile(self.desk, settle or Settle())

    def close(self) -> None:
        self.broker.close()
        self.contracts.close()
        self.store.close()

    # --- what comes from outside ----------------------------------------------------------------------------

    def an_alert(self, action: str = "BUY", key: str | None = None, **changes: Any) -> Alert:
        """Without a key each is an alert of its own."""
        body = changes.pop("body", key or f"body {next(self._numbers)}")
        if "strike" in changes:
            changes["strike"] = Decimal(changes["strike"])
        return an_alert(action, key, body, received_at=self.clock.now(), **changes)

    def deliver(self, alert: Alert) -> Answer:
        return self.place(alert, request_id="r", started=self.clock.monotonic())

    def alert(self, action: str = "BUY", key: str | None = None, **changes: Any) -> Order:
        return self.deliver(self.an_alert(action, key, **changes)).order

    def bought(self, **changes: Any) -> Order:
        """An entry that has filled, as far as the broker knows."""
        order = self.alert(**changes)
        assert order.status is Status.ACCEPTED, order
        return order

    def in_doubt(self, fault: str = "reset_created", **changes: Any) -> Order:
        """An entry whose answer got lost."""
        self.sim.faults.next_order(fault, appear_after=changes.pop("appear_after", None))
        order = self.alert(**changes)
        assert order.status is Status.IN_DOUBT, order
        return order

    def witness(self) -> str:
        """A trade of somebody else in another contract: it shows that the book is alive."""
        return self.sim.place_by_hand(OTHER, 1, LOT)

    def pass_on(self, seconds: float = 0.0, *, witness: bool = False) -> tuple[Order, ...]:
        """Time goes by, and then one whole pass."""
        self.sim_clock.advance(seconds)
        if witness:
            self.witness()
        return self.reconcile().changed

    # --- what came of it ------------------------------------------------------------------------------------

    def row(self, order: Order) -> Order:
        with self.store.read() as tx:
            found = tx.get_order(SCOPE, order.id)
        assert found is not None
        return found

    def rows(self) -> tuple[Order, ...]:
        return self.store.list_orders(SCOPE, OrderFilter(limit=200)).items

    def events(self, order: Order) -> list[Event]:
        return [e.event for e in self.store.events(SCOPE, order.id)]

    def state(self) -> TradingState:
        with self.store.read() as tx:
            return tx.trading_state(SCOPE)

    def sends(self, order: Order) -> int:
        """Order POSTs under an order's tag, whatever became of them."""
        return Counter(line["body"].get("orderTag") for line in self.sim.ledger.orders())[order.tag]

    def sold(self) -> list[tuple[str, int]]:
        lines = (line["body"] for line in self.sim.ledger.placed())
        return [(b["symbol"], b["qty"]) for b in lines if b["side"] == -1]

    def net(self, ticker: str = TICKER, product: str = "INTRADAY") -> int:
        found = (p["netQty"] for p in self.sim.positions() if p["id"] == f"{ticker}-{product}")
        return next(found, 0)

    def caps(self, name: str) -> int:
        """What the counter says, over all days."""
        with self.store.database.read() as connection:
            used = connection.execute(text("SELECT sum(used) FROM caps WHERE name = :name"), {"name": name})
            return int(used.scalar() or 0)

    def recount(self) -> dict[str, int]:
        """What the counters have to say, worked out from the orders alone."""
        entries = [o for o in self.rows() if o.purpose is Purpose.ENTRY and o.status not in NEVER_SENT]
        return {"orders": len(entries), "contracts": sum(map(_counted, entries))}

    def assert_caps(self) -> None:
        assert {name: self.caps(name) for name in ("orders", "contracts")} == self.recount()


def _counted(order: Order) -> int:
    """Contracts that an entry still counts for."""
    ended = order.status in (Status.CANCELLED, Status.EXPIRED, Status.REJECTED, Status.NOT_SENT)
    return order.filled_quantity if ended else order.quantity


def count_contracts(monkeypatch: Any) -> None:
    """A count of orders, which is kept, and one of contracts, which is given back: every release shows in one."""

    def caps_of(_: object, at: datetime, _lots: Decimal, contracts: int) -> tuple[Cap, ...]:
        day = ist_date(at).isoformat()
        return (
            Cap("orders", day, 10**6, 1, returnable=False),
            Cap("contracts", day, 10**6, contracts, returnable=True),
        )

    for module in (adopt, place_order):
        monkeypatch.setattr(module, "caps_of", caps_of)


@contextmanager
def simulated(directory: Path, start: datetime = MORNING, **changes: Any) -> Iterator[FyersSim]:
    """A simulator on a clock that stands still."""
    clock = SimClock(start, running=False)
    with FyersSim(
        ledger=directory / "ledger.jsonl", clock=clock, rate_limits=False, fsync=False, **changes
    ) as sim:
        yield sim


class Desks(ExitStack):
    """Instances of one simulator; all end with the test."""

    def __init__(self, directory: Path, sim: FyersSim) -> None:
        super().__init__()
        self.directory, self.sim = directory, sim
        assert isinstance(sim.clock, SimClock)
        self.clock = sim.clock

    def start(self, **changes: Any) -> WireDesk:
        desk = WireDesk(changes.pop("directory", self.directory), self.sim, self.clock, **changes)
        self.callback(desk.close)
        return desk


def seconds_to(clock: SimClock, to: datetime) -> float:
    return (to - clock()).total_seconds()


def was_taken(sim: FyersSim, order: Order) -> bool:
    """Whether the broker has an order under this tag that it did not reject: its own book, hidden rows too."""
    mine = [o for o in sim.exchange.orders.values() if o.intent.tag.upper() == order.tag.upper()]
    return any(o.status != 5 for o in mine)
