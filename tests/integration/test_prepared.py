"""A statement that goes straight to the driver means what it means to SQLAlchemy, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, bindparam, insert, literal, select, text, update

from app.domain.deadline import Deadline
from app.domain.order import Side
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service.records import Moved
from app.store.column_types import Exact, UtcTime
from app.store.engine import Database
from app.store.prepared import Prepared, hear
from app.store.sql import SqlStore
from app.store.tables import locks, order_events, orders, refusals
from tests.integration.store_rows import NOON, SCOPE, Asked, order, said
from tests.integration.store_rows import insert as put

INDIA = timezone(timedelta(hours=5, minutes=30))
FULL = replace(
    order(),
    signal_price=Decimal("142.350"),
    filled_quantity=75,
    fill_price=Decimal("0.05"),
    reason="“a” ; ' --",
    sent_at=NOON.astimezone(INDIA),
    filled_at=NOON + timedelta(microseconds=1),
)
ONE = select(orders).where(orders.c.id == bindparam("wanted"))


def test_every_column_is_read_as_sqlalchemy_reads_it(store: SqlStore) -> None:
    put(store, FULL)
    with store.database.read() as connection:
        expected = connection.execute(ONE, {"wanted": "A"}).one()
        found = Prepared(ONE).one_or_none(connection, {"wanted": "A"})
        assert tuple(found) == tuple(expected)
        assert [type(value) for value in found] == [type(value) for value in expected]
        assert found._fields == tuple(expected._fields)
        assert found.fill_price == Decimal("0.05")
        assert found.filled_at == NOON + timedelta(microseconds=1)
        events = select(order_events)
        assert list(map(tuple, Prepared(events).all(connection, {}))) == list(
            map(tuple, connection.execute(events))
        )
        assert Prepared(ONE).one_or_none(connection, {"wanted": "B"}) is None


def test_every_column_is_written_as_sqlalchemy_writes_it(store: SqlStore) -> None:
    put(store, FULL)
    with store.database.write() as connection:
        row = connection.execute(ONE, {"wanted": "A"}).one()._asdict()
        by_both = {}
        for name, adding in (
            ("S", lambda v: connection.execute(insert(orders), v)),
            ("P", _adding(connection)),
        ):
            adding(row | {"id": name, "tag": name})
            by_both[name] = (
                connection.exec_driver_sql(f"SELECT * FROM orders WHERE id = '{name}'").one()._asdict()
            )
    assert by_both["S"] | {"id": "P", "tag": "P"} == by_both["P"]


def _adding(connection: Connection) -> Callable[[dict[str, Any]], object]:
    return lambda values: Prepared(insert(orders)).all(connection, values)


def test_an_update_sets_the_columns_that_come_with_it(store: SqlStore) -> None:
    put(store, order())
    mark = Prepared(
        update(orders).where(orders.c.id == bindparam("wanted")).returning(orders.c.ltp, orders.c.code)
    )
    with store.database.write() as connection:
        assert tuple(mark.one_or_none(connection, {"wanted": "A", "code": "x"})) == (Decimal("142.3500"), "x")
        assert tuple(mark.one_or_none(connection, {"wanted": "A", "ltp": Decimal("1.10")})) == (
            Decimal("1.10"),
            "x",
        )
        assert mark.one_or_none(connection, {"wanted": "B", "code": "y"}) is None


def test_a_text_has_the_types_of_its_values_and_its_answer_the_names_of_its_columns(store: SqlStore) -> None:
    asked = Prepared(
        text("SELECT :n AS first, id FROM orders WHERE created_at <= :at").bindparams(
            bindparam("at", type_=UtcTime), bindparam("n", type_=Exact)
        )
    )
    put(store, order())
    with store.database.read() as connection:
        row = asked.one_or_none(
            connection, {"n": Decimal("1.50"), "at": NOON.astimezone(INDIA), "not asked for": 1}
        )
        assert (str(row.first), row.id) == ("1.50", "A")
        with pytest.raises(ValueError, match="aware"):
            asked.all(connection, {"n": Decimal(1), "at": NOON.replace(tzinfo=None)})


def test_constants_of_a_statement_go_with_it(store: SqlStore) -> None:
    both = Prepared(select(literal("x").label("kind"), orders.c.side).where(orders.c.side == Side.BUY.value))
    put(store, order())
    with store.database.read() as connection:
        assert list(map(tuple, both.all(connection, {}))) == [("x", "BUY")]


def test_a_statement_outside_of_a_transaction_is_refused(store: SqlStore) -> None:
    with store.database.engine.connect() as connection, pytest.raises(RuntimeError, match="has begun"):
        Prepared(select(orders.c.id)).all(connection, {})


def test_two_rows_are_not_one(store: SqlStore) -> None:
    put(store, order())
    put(store, order("B"))
    with store.database.read() as connection, pytest.raises(LookupError, match="were 2"):
        Prepared(select(orders.c.id)).one_or_none(connection, {})


def test_a_statement_that_fails_is_an_unavailable_store_and_keeps_nothing(store: SqlStore) -> None:
    heard = Asked()
    hear(store.database.engine, heard)

    def twice() -> None:
        with store.write() as tx:
            tx.insert_order(order("B"), said())
            tx.insert_order(replace(order("C"), tag="TAGSB"), said())

    with pytest.raises(StoreUnavailable, match=r"IntegrityError|UniqueViolation"):
        twice()
    with store.read() as tx:
        assert tx.get_order(SCOPE, "B") is None
    assert sum("INSERT INTO orders" in s for s in heard.statements) == 2
    assert len(heard.errors) == 1


def test_a_connection_that_is_lost_in_a_statement_is_not_given_to_the_next(postgres_url: str) -> None:
    database = Database(postgres_url, None)
    lost = []

    def lose() -> None:
        with database.read() as connection:
            try:
                Prepared(text("SELECT pg_terminate_backend(pg_backend_pid())")).all(connection, {})
            finally:
                lost.append(connection.invalidated)

    with pytest.raises(StoreUnavailable):
        lose()
    assert lost == [True]
    with database.read() as connection:
        assert tuple(Prepared(text("SELECT 1 AS n")).one_or_none(connection, {})) == (1,)
    database.close()


def test_what_cut_one_connection_off_has_cut_off_those_that_were_there_with_it(postgres_url: str) -> None:
    """Idle ones would each cost somebody the time that it takes to find that they are silent; those in use go when they
    are given back.
    """
    database = Database(postgres_url, None)
    mine = Prepared(text("SELECT pg_backend_pid() AS pid"))

    def pid() -> int:
        with database.read() as connection:
            return int(mine.all(connection, {})[0].pid)

    with database.read() as used:
        before = {mine.one_or_none(used, {}).pid}
        with database.read() as one, database.read() as another:  # one is cut off, one is idle meanwhile
            before |= {mine.one_or_none(idle, {}).pid for idle in (one, another)}
        assert len(before) == 3

        def cut() -> None:
            with database.read() as connection:
                Prepared(text("SELECT pg_terminate_backend(pg_backend_pid())")).all(connection, {})

        with pytest.raises(StoreUnavailable):
            cut()
    new = pid()
    there = Prepared(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"))
    with database.read() as connection:
        left = {row.pid for row in there.all(connection, {})}
    assert not before & left
    assert new in left
    database.close()


def test_a_row_that_cannot_be_read_does_not_hold_the_connection_in_the_past(sqlite_url: str) -> None:
    """Text that is not UTF-8, from another tool: SQLite's statement stays open where its rows are not read to the end."""
    database, other = Database(sqlite_url, None), Database(sqlite_url, None)
    for number, value in ((1, "CAST(x'ff' AS TEXT)"), (2, "'b'")):
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO locks (name, owner, expires_at) "
                f"VALUES ('l{number}', {value}, '2026-11-23 06:30:00.000000')"
            )
    owners = Prepared(select(locks.c.owner).order_by(locks.c.name))

    def broken() -> None:
        with database.read() as connection:
            owners.all(connection, {})

    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            broken()
    with other.write() as connection:
        connection.exec_driver_sql("UPDATE locks SET owner = 'good'")
    with database.read() as connection:
        assert [row.owner for row in owners.all(connection, {})] == ["good", "good"]
    with database.write(Deadline(time.monotonic() + 1)) as connection:
        connection.exec_driver_sql("DELETE FROM locks")
    for one in (database, other):
        one.close()


def test_one_that_is_left_in_the_middle_is_not_given_to_the_next(postgres_url: str) -> None:
    """As by the abort of a worker that hangs."""
    database = Database(postgres_url, None)

    class Cursor(psycopg.Cursor[Any]):
        def fetchall(self) -> Any:
            raise KeyboardInterrupt

    lost = []

    def leave() -> None:
        with database.read() as connection:
            raw: Any = connection.connection.dbapi_connection
            connection.info["cursor"] = Cursor(raw)
            try:
                Prepared(text("SELECT 1 AS n")).all(connection, {})
            finally:
                lost.append(connection.invalidated)

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert lost == [True]
    with database.read() as connection:
        assert tuple(Prepared(text("SELECT 1 AS n")).one_or_none(connection, {})) == (1,)
    database.close()


def test_a_change_of_a_row_gives_the_row_as_it_is_then(store: SqlStore) -> None:
    put(store, order())
    with store.write() as tx:
        moved = tx.move(order(), Status.ACCEPTED, said(status=Status.ACCEPTED), Moved(broker_order_id="7"))
    with store.read() as tx:
        assert tx.get_order(SCOPE, "A") == moved
        assert moved is not None
        assert moved.broker_order_id == "7"


def test_rows_of_refusals_take_their_number_from_the_database(store: SqlStore) -> None:
    values = {
        "mode": "paper", "account": "X", "at": NOON, "address": "::1", "client": None, "status": 400, "code": "c",
        "detail": "d", "body_hash": "h", "safe_fields": {"a": "“"}, "request_id": "r",
    }  # fmt: skip
    added = Prepared(insert(refusals).returning(refusals.c.id, refusals.c.safe_fields))
    with store.database.write() as connection:
        first, second = (added.one_or_none(connection, values) for _ in range(2))
    assert second.id > first.id
    assert first.safe_fields == {"a": "“"}
