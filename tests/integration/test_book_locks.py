"""An exit and a pass that bring the same rows to what the book says, at once: neither fails on the other's locks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.domain.order import Order
from app.domain.status import Status
from app.service.follow import record_book
from app.service.records import BookOrder, BookStatus, Cap
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.integration.store_rows import NOON, SCOPE, Clock, insert, key, order

LOTS = Cap("lots_day", "2026-11-23", 100, 1, returnable=True)
WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


@pytest.fixture
def store(postgres_url: str) -> Iterator[SqlStore]:
    made = SqlStore(Database(postgres_url, None), Clock())
    yield made
    made.close()


def accepted(ident: str) -> Order:
    made = order(ident, key=key(ident), status=Status.ACCEPTED, broker_order_id=f"b{ident}", fence=None)
    return replace(made, ticker=f"{made.ticker}{ident}")


def rejected(one: Order) -> BookOrder:
    return BookOrder(
        broker_order_id=one.broker_order_id or "",
        ticker=one.ticker,
        side=one.side,
        quantity=one.quantity,
        filled_quantity=0,
        status=BookStatus.REJECTED,
        product=one.product.value,
        tag=one.tag,
        placed_at=NOON,
    )


def used(store: SqlStore) -> int:
    with store.database.read() as connection:
        return int(connection.execute(text("SELECT used FROM caps WHERE name = 'lots_day'")).scalar_one())


def test_neither_waits_for_the_others_row_with_a_counter_in_hand(store: SqlStore) -> None:
    first, second = accepted("A"), accepted("B")
    insert(store, first, second)
    with store.write() as tx:
        for one in (first, second):
            assert tx.reserve(SCOPE, one.id, (LOTS,)) is None
    book = [rejected(first), rejected(second)]

    def whole_pass() -> list[str]:
        with store.write() as tx:
            return [one.id for one in record_book(tx, (first, second), book)]

    def is_waited_for() -> bool:
        with store.database.read() as connection:
            return bool(connection.execute(WAITING).scalar())

    with ThreadPoolExecutor(1) as threads:
        with store.write() as tx:  # an exit, in the second contract
            tx.get_order(SCOPE, second.id, lock=True)
            passing = threads.submit(whole_pass)
            while not is_waited_for():
                assert not passing.done()
            assert len(record_book(tx, (second,), book)) == 1
        assert passing.result() == [first.id]  # the exit was the first at the second
    with store.read() as tx:
        assert [row.status for row in tx.orders_on(SCOPE, first.ist_date)] == [Status.REJECTED] * 2
    assert used(store) == 0
