"""The kill switch over three instances on one Postgres while a crowd of alerts comes in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Self

import pytest
from sqlalchemy import create_engine, text

from app.domain.limits import Limits
from app.domain.order import Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.control import Control
from app.service.flatten import KillSwitch
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from app.service.settle import Settle
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import an_alert
from tests.fakes import FakeBroker
from tests.integration.test_caps_race import Instances, Still

LIMITS = Limits(max_lots=2)
LOADERS = 6


@pytest.fixture
def three(postgres_url: str) -> Iterator[Instances]:
    made = Instances(postgres_url, LIMITS)
    yield made
    made.close()


class Load:
    """Alerts on all instances until it is told to end. `sent_at` of the broker says when entries went out."""

    def __init__(self, three: Instances) -> None:
        self.three, self.ends = three, threading.Event()
        self.threads = [threading.Thread(target=self._fire, args=(n,)) for n in range(LOADERS)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def _fire(self, first: int) -> None:
        number = first
        while not self.ends.is_set():
            self.three.enter(number)
            number += LOADERS


def wait_for(what: Callable[[], bool], within_s: float = 30) -> None:
    give_up = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < give_up
        threading.Event().wait(0.01)


@pytest.mark.alone
@pytest.mark.parametrize("state", [TradingState.HALTED, TradingState.REDUCING])
def test_a_second_after_it_no_instance_sends_an_entry_and_a_restart_changes_nothing(
    three: Instances, state: TradingState
) -> None:
    sent = three.broker.sent_at
    with Load(three):
        wait_for(lambda: len(sent) > 30)
        called = time.monotonic()
        Control(three.desks[2]).set_state(state, "test", "enough of it")
        answered = len(three.orders())
        wait_for(lambda: time.monotonic() > called + 1.5 and len(three.orders()) > answered + 20)
    assert max(sent) - called < 1
    with_new_store = Instances(three.url, LIMITS, broker=three.broker)
    try:
        before = len(sent)
        row = with_new_store.enter(999_999)
        assert row is not None
        assert (row.code, len(sent)) == ("trading_state", before)
    finally:
        with_new_store.close()


def test_what_cannot_be_read_is_halted(three: Instances) -> None:
    assert three.enter(1) is not None
    engine = create_engine(three.url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM trading_state"))
    engine.dispose()
    for number in range(2, 5):
        row = three.enter(number)
        assert row is not None
        assert (row.status, row.code) == (Status.DENIED, "trading_state")
    assert three.state() is TradingState.HALTED
    assert len(three.broker.sent_at) == 1


class Walking(Still):
    """The wall clock goes on when it is told to."""

    def __init__(self) -> None:
        self.walked = 0.0

    def walk(self, seconds: float) -> None:
        self.walked += seconds

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.walked)


class Market(FakeBroker):
    """Fills at once, from many threads; every ninth entry is in doubt, and some of those never arrived."""

    def __init__(self, clock: Still) -> None:
        super().__init__(clock)  # type: ignore[arg-type]
        self.lock = threading.RLock()
        self.lowest = self.count = 0
        self.sent_at: list[float] = []

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        if (stopped := before_send()) is not None:
            return stopped
        with self.lock:
            self.sent_at.append(time.monotonic())
            self.count += 1
            if not reduces and self.count % 9 == 4:
                return Unknown("timed out")
            self.fills = reduces or self.count % 7 != 3
            ident = self.take(ticket)
            self.lowest = min(self.lowest, *self.net.values())
            return Unknown("timed out") if not reduces and self.count % 9 == 8 else Accepted(ident)

    def cancel(self, broker_order_id: str) -> Outcome:
        with self.lock:
            return super().cancel(broker_order_id)


def test_flatten_under_load_with_orders_in_doubt_ends_flat_and_never_short(postgres_url: str) -> None:
    three = Instances(postgres_url, LIMITS)
    clock = Walking()
    market = Market(clock)
    three.stores.append(SqlStore(Database(postgres_url, clock), clock))
    three.desks = [replace(desk, broker=market) for desk in three.desks]
    operator = replace(three.desks[0], store=three.stores[3], clock=clock)
    reconcile = Reconcile(operator, Settle(2, 1))
    try:
        with Load(three):
            wait_for(lambda: market.count > 40)
            KillSwitch(operator).flatten("test", "enough of it")
        for _ in range(12):
            clock.walk(30)
            with market.lock:
                market.by_hand("NSE:OTHER", 65)
            reconcile()
            done = KillSwitch(operator).flatten("test", "enough of it")
        assert done.problems == []
        assert market.lowest >= 0
        ours = {n for (ticker, _), n in market.net.items() if ticker != "NSE:OTHER"}
        assert ours == {0}
        in_doubt = [o for o in three.orders() if o.status in (Status.SENDING, Status.IN_DOUBT)]
        assert in_doubt == []
    finally:
        three.close()


def test_reducing_lets_exits_and_cancels_pass(three: Instances) -> None:
    clock = Still()
    market = Market(clock)
    desks = [replace(d, broker=market) for d in three.desks]
    enter = PlaceOrder(desks[0])
    held = enter(an_alert("BUY", "a", lots=2), request_id="r", started=clock.monotonic()).order
    market.count = 2  # the next one waits in the book
    waiting = enter(an_alert("BUY", "b", lots=1), request_id="r", started=clock.monotonic()).order
    assert (held.status, waiting.status) == (Status.ACCEPTED, Status.ACCEPTED)
    Control(desks[1]).set_state(TradingState.REDUCING, "test", "enough of it")
    denied = PlaceOrder(desks[2])(
        an_alert("BUY", "c", lots=1), request_id="r", started=clock.monotonic()
    ).order
    assert denied.code == "trading_state"
    out = PlaceOrder(desks[2])(an_alert("EXIT", "d"), request_id="r", started=clock.monotonic()).order
    assert (out.status, out.quantity) == (Status.ACCEPTED, 130)
    assert [row.broker_order_id for row in market.book if row.is_working] == []
