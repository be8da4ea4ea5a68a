"""An entry that waits in its transaction for another instance's: what it does then is dated by the end of the wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic, sleep

from sqlalchemy import select, text

from app.domain.deadline import Deadline
from app.domain.order import Order
from app.service.desk import Budget
from app.service.send import armed
from app.store.engine import Database
from app.store.sql import SqlStore, connect
from app.store.tables import order_slots
from app.wiring import SystemClock
from tests.integration.store_rows import SCOPE, Clock, order
from tests.service.desk import TradingDesk

WAIT = timedelta(seconds=0.8)
"""At least; what is told apart is half of it."""
WAITS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
NOW = text("SELECT clock_timestamp()")


def test_its_times_and_its_slot_are_of_after_the_wait(postgres_url: str) -> None:
    store, other = (SqlStore(Database(postgres_url, None), SystemClock()) for _ in range(2))
    desk = replace(TradingDesk().desk, clock=SystemClock())
    budget = Budget.of(monotonic(), 20.0)

    def enter() -> tuple[datetime, Order]:
        with store.write(budget.send, queued=True) as tx:
            began = tx.now()
            tx.exposure(order("B"), None)
            assert tx.take_order_slot(SCOPE, 1)
            return began, armed(desk, tx, order("B"), budget)

    with ThreadPoolExecutor(1) as pool, other.database.without_limits() as look:
        with other.write(Deadline(monotonic() + 20)) as tx:
            tx.exposure(order("A"), None)
            entry = pool.submit(enter)
            while not look.execute(WAITS).scalar_one():
                sleep(0.005)
            seen: datetime = look.execute(NOW).scalar_one()
            while look.execute(NOW).scalar_one() < seen + WAIT:
                sleep(0.005)
            mono, now = monotonic(), look.execute(NOW).scalar_one()
        began, made = entry.result(20)
    assert began < now - WAIT
    assert made.send_by is not None
    assert made.answer_by is not None
    lost = now + timedelta(seconds=budget.send.left(mono)) - made.send_by
    assert abs(lost) < WAIT / 2, f"{lost} of its time"
    assert made.answer_by - made.send_by == timedelta(seconds=5)
    with store.database.read() as connection:
        used = connection.execute(select(order_slots.c.used_at)).scalar_one()
    assert used >= now, f"{now - used} too old"
    for one in (store, other):
        one.database.close()


def test_they_are_of_the_clock_where_the_database_has_another(postgres_url: str) -> None:
    clock = Clock()
    store = connect(postgres_url, clock)
    with store.write(queued=True) as tx:
        began = tx.now()
        clock.pass_(3)
        assert tx.now() == began
        tx.exposure(order(), None)
        assert tx.now() - began == timedelta(seconds=3)
        clock.pass_(-1)
        tx.exposure(order(), None)
        assert tx.now() - began == timedelta(seconds=3), "never back"
    store.close()
