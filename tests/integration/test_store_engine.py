"""Transactions, their deadlines, and the schema, on SQLite and on Postgres."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, event, make_url, text

from app.brokers.paper import sql as paper
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Side
from app.domain.risk import TradingState
from app.domain.status import UNSETTLED
from app.errors import CommitUnknown, StoreUnavailable
from app.store import (
    migrate,
    tables,
    tables_audit,
    tables_clients,
    tables_config,
    tables_notices,
    tables_reconcile,
)
from app.store.engine import Database
from app.store.head import HEAD, is_at_head
from app.store.prepared import hear
from app.store.sql import SqlStore, connect
from app.store.writers import WriterQueue
from tests.integration.store_rows import NOON, SCOPE, TICKER, Asked, Clock, insert, order, said


def test_migrations_build_exactly_the_metadata(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        both = MetaData(naming_convention=tables.metadata.naming_convention)
        others = (
            tables_audit,
            tables_clients,
            tables_config,
            tables_notices,
            tables_reconcile,
        )  # all must be loaded
        assert all(one.metadata is tables.metadata for one in others)
        for table in (*tables.metadata.sorted_tables, *paper.metadata.sorted_tables):
            table.to_metadata(both)  # the paper exchange defines its own
        assert compare_metadata(context, both) == []
        assert migrate.at_head(connection)
        script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
        assert script.get_heads() == [HEAD]
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))
        assert not migrate.at_head(connection)
    engine.dispose()


def test_upgrade_twice_changes_nothing_and_check_names_an_empty_database(
    database_url: str, store: SqlStore, clock: Clock, tmp_path: Path
) -> None:
    store.ensure_scope(SCOPE)
    migrate.upgrade(database_url)
    assert store.check() is None
    with store.read() as tx:
        assert tx.trading_state(SCOPE) is TradingState.ACTIVE
    empty = connect(f"sqlite:///{tmp_path / 'empty.db'}", clock)
    assert "migrate" in (empty.check() or "")
    empty.close()


def test_a_start_migrates_no_file_that_is_at_head_and_every_other(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "with a blank.db"
    url = f"sqlite:///{tmp_path}/with%20a blank.db"
    assert not is_at_head(url)
    path.write_bytes(b"no database at all, and longer than a header would be" * 40)
    assert not is_at_head(url)
    path.write_bytes(b"")
    assert not is_at_head(url)
    migrate.upgrade(url)
    assert is_at_head(url)
    store = connect(url, clock)
    store.ensure_scope(SCOPE)  # a writer beside it, and a log that is not copied back yet
    assert is_at_head(url)
    assert not is_at_head(f"{url}?timeout=5")  # not ours to take apart
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    assert not is_at_head(url)
    store.close()
    assert not is_at_head("postgresql+psycopg://u@h/d")
    assert not is_at_head(f"sqlite:///{tmp_path}/{'a' * 300}.db")


def test_a_raising_block_leaves_nothing(store: SqlStore) -> None:
    def fail() -> None:
        with store.write() as tx:
            tx.insert_order(order(), said())
            raise KeyError("boom")

    with pytest.raises(KeyError):
        fail()
    with store.read() as tx:
        assert tx.get_order(SCOPE, "A") is None


def test_no_time_left_is_said_before_the_database_is_asked(store: SqlStore, clock: Clock) -> None:
    for block in (store.write, store.read):
        with pytest.raises(StoreUnavailable), block(Deadline(clock.monotonic())):
            pytest.fail("expected no transaction")


def test_a_driver_error_is_store_unavailable(store: SqlStore) -> None:
    insert(store, order())
    with pytest.raises(StoreUnavailable):
        insert(store, order())


def _in_turn(queue: WriterQueue, names: str, work: Callable[[str], None]) -> list[threading.Thread]:
    """Threads that queue one after the other, each known to wait before the next starts."""
    threads = []
    for n, name in enumerate(names, start=1):
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        while queue.waiting < n:
            thread.join(0.001)
        threads.append(thread)
    return threads


def test_sqlite_writers_go_first_in_first_out(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)
    went: list[str] = []

    def write(name: str) -> None:
        with store.write(Deadline(clock.monotonic() + 30)):
            went.append(name)

    with store.write():
        threads = _in_turn(store.database.writers, "abcde", write)
        with store.read() as tx:  # readers do not queue
            assert tx.open_orders(SCOPE) == ()
    for thread in threads:
        thread.join(5)
    assert went == list("abcde")
    store.close()


def test_a_queued_sqlite_writer_gives_up_at_its_deadline_and_the_queue_goes_on(
    sqlite_url: str, clock: Clock
) -> None:
    store = connect(sqlite_url, clock)
    with store.write():
        with pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.01)):
            pytest.fail("expected no transaction")
        assert store.database.writers.waiting == 0
    with store.write():
        pass
    store.close()


def test_a_foreign_process_holding_sqlite_is_waited_for_no_longer_than_the_deadline(
    sqlite_url: str, clock: Clock
) -> None:
    store, other = connect(sqlite_url, clock), connect(sqlite_url, clock)
    with other.write(), pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.02)):
        pytest.fail("expected no transaction")
    with store.database.read() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")
        ]
        assert pragmas == ["wal", 2]
    store.close()
    other.close()


def test_postgres_ends_a_wait_for_a_row_at_the_deadline(postgres_url: str, clock: Clock) -> None:
    store = connect(postgres_url, clock)
    insert(store, order())
    with store.write() as tx:
        tx.get_order(SCOPE, "A", lock=True)
        with pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.02)) as late:
            late.get_order(SCOPE, "A", lock=True)
    with pytest.raises(StoreUnavailable), store.read() as tx:
        tx.free_lock("a read transaction changes nothing", "x")
    store.close()


def test_postgres_goes_by_its_own_clock_and_wants_synchronous_commit(postgres_url: str, clock: Clock) -> None:
    store = SqlStore(Database(postgres_url, None), clock)
    with store.read() as tx:
        assert abs(tx.now() - datetime.now(UTC)) < timedelta(minutes=1)
        assert tx.now() == tx.now()
    store.close()
    weak = make_url(postgres_url).update_query_dict({"options": "-c synchronous_commit=off"})
    unsafe = Database(weak.render_as_string(hide_password=False), None)
    with pytest.raises(StoreUnavailable, match="synchronous_commit"), unsafe.read():
        pytest.fail("expected no transaction")
    assert "synchronous_commit on, was off" in (SqlStore(unsafe, clock).check() or "")
    unsafe.close()


def _killed(postgres_url: str, pid: object) -> None:
    other = create_engine(postgres_url)
    with other.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    other.dispose()


def test_a_connection_lost_in_commit_is_commit_unknown_and_before_it_is_not(
    postgres_url: str, clock: Clock
) -> None:
    store = connect(postgres_url, clock)
    pid = text("SELECT pg_backend_pid()")

    @event.listens_for(store.database.engine, "commit")
    def lose(connection: Connection) -> None:
        _killed(postgres_url, connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]

    with pytest.raises(CommitUnknown), store.write() as tx:
        tx.insert_order(order(), said())
    with pytest.raises(StoreUnavailable) as read, store.read() as tx:
        tx.get_order(SCOPE, "A")
    assert not isinstance(read.value, CommitUnknown)  # nothing was to be kept
    event.remove(store.database.engine, "commit", lose)

    def lose_early() -> None:
        with store.database.write() as connection:
            _killed(postgres_url, connection.execute(pid).scalar_one())
            connection.execute(pid)

    with pytest.raises(StoreUnavailable) as early:
        lose_early()
    assert not isinstance(early.value, CommitUnknown)
    insert(store, order("B"))  # the next transaction has a connection again
    store.close()


def test_a_connection_that_died_in_the_pool_is_replaced_unseen(postgres_url: str, clock: Clock) -> None:
    store = connect(postgres_url, clock)
    with store.database.read() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    _killed(postgres_url, pid)
    insert(store, order())
    with store.read() as tx:
        assert tx.get_order(SCOPE, "A") is not None
    store.close()


def test_a_read_within_a_writing_transaction_has_a_time_of_its_own(store: SqlStore, clock: Clock) -> None:
    """The last look before a send: what was paused since the transaction began must be late there."""
    with store.write() as tx:
        began = tx.now()
        clock.pass_(3)
        with store.read() as look:
            assert (look.now() - began).total_seconds() == 3
        assert tx.now() == began


def test_that_time_is_the_databases_own_where_there_is_no_other_clock(database_url: str) -> None:
    database = Database(database_url, None)
    with database.write() as connection:
        began = database.now(connection)
        with database.read() as look:
            assert timedelta() < database.now(look) - began < timedelta(minutes=1)
    database.close()


def test_a_failing_commit_on_sqlite_is_commit_unknown(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)

    @event.listens_for(store.database.engine, "commit")
    def lose(_: Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(CommitUnknown, match="COMMIT"):
        insert(store, order())
    event.remove(store.database.engine, "commit", lose)
    insert(store, order())  # the writers' queue and the connection are free again
    store.close()


def test_the_frequent_reads_use_their_partial_indexes(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)
    asked = Asked()
    hear(store.database.engine, asked)
    with store.read() as tx:
        tx.open_orders(SCOPE, "trader", ticker=TICKER, side=Side.SELL)
        tx.holdings(SCOPE, "trader")
        tx.known_at_broker(SCOPE, ["1", "2"])
        tx.orders_on(SCOPE, NOON.date())
        tx.find_tag(SCOPE, "TAGSA")
        tx.orders_before(SCOPE, NOON.date(), UNSETTLED)
        tx.stake(SCOPE, "trader", TICKER, Product.INTRADAY)
        tx.exposure(order(), timedelta(seconds=60))
        tx.orders_in(SCOPE, TICKER, Product.INTRADAY)
    reads = [one for one in asked.statements if one.startswith("SELECT")]
    with store.database.read() as connection:
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?")).all())
            for sql in reads
        ]
    assert "ix_orders_open (mode=? AND account=? AND ticker=? AND side=?)" in plans[0]
    assert "ix_orders_filled" in plans[1]
    assert "ix_orders_broker_id (mode=? AND account=? AND broker_order_id=?)" in plans[2]
    assert "ix_orders_day (mode=? AND account=? AND ist_date=?)" in plans[3]
    assert "sqlite_autoindex_orders" in plans[4]
    assert "ix_orders_open (mode=? AND account=?)" in plans[5]
    place = "COVERING INDEX ix_orders_filled (mode=? AND account=? AND client=? AND ticker=? AND product=?)"
    assert place in plans[6]
    assert plans[6].count("ix_orders_open (mode=? AND account=? AND ticker=? AND side=?)") == len(Side)
    assert "COVERING INDEX ix_orders_held (mode=? AND account=? AND session_end>?)" in plans[7]
    assert "ix_orders_open (mode=? AND account=?)" in plans[7]
    for plan in plans[7:]:
        assert "ix_orders_contract (mode=? AND account=? AND ticker=?)" in plan
    assert "TEMP B-TREE" not in plans[8]
    assert "ix_orders_newest (mode=? AND account=? AND created_at>?)" in plans[7]
    store.close()


def test_a_serving_process_does_not_load_alembic() -> None:
    code = "import sys, app.store.sql; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
