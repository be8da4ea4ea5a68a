"""What a transaction on Postgres leaves behind: nothing of its settings, and no lock of a process that was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from time import monotonic, sleep

import pytest
from sqlalchemy import Connection, TextClause, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database
from app.store.pool import POSTGRES_CONNECTIONS
from app.store.prepared import Prepared
from app.store.sql_audit import SqlAudit

LOCK = text("SELECT pg_advisory_xact_lock(42)")
STOPS = """
import os, signal, sys
from time import monotonic
from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database
from sqlalchemy import text

database = Database(sys.argv[1], None)
try:
    with database.write(Deadline(monotonic() + 0.5)) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(42)"))
        print("locked", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
except StoreUnavailable:
    print("lost")
else:
    print("kept")
"""


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    made = Database(postgres_url, None)
    yield made
    made.close()


def within(seconds: float) -> Deadline:
    return Deadline(monotonic() + seconds)


def until(there: Callable[[], bool]) -> None:
    ends = monotonic() + 20
    while not there():
        assert monotonic() < ends
        sleep(0.005)


def settings(connection: Connection) -> tuple[str, ...]:
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_read_only",
        "transaction_isolation",
    )
    wanted = ", ".join(f"current_setting('{name}')" for name in names)
    return tuple(connection.execute(text(f"SELECT {wanted}")).one())


def test_a_process_stopped_in_a_transaction_does_not_stop_the_others(
    postgres_url: str, database: Database
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPS, postgres_url], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        try:
            assert victim.stdout.readline() == "locked\n"
            with database.write(within(5)) as connection:
                connection.execute(LOCK)
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        assert victim.communicate(timeout=30)[0] == "lost\n"


def test_a_transaction_with_a_failed_statement_is_not_called_committed(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE kept (number int PRIMARY KEY)"))

    def fail() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO kept VALUES (1)"))
            with pytest.raises(DBAPIError):
                connection.execute(text("INSERT INTO kept VALUES (1)"))

    with pytest.raises(StoreUnavailable):
        fail()
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM kept")).scalar() == 0


def test_no_setting_outlives_its_transaction(database: Database) -> None:
    with database.read(within(3)) as connection:
        inside = settings(connection)
        process = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        with pytest.raises(DBAPIError, match="read-only"):
            connection.execute(text("CREATE TABLE kept (number int)"))
    assert (inside[3:], "0" in inside[:3]) == (("on", "read committed"), False)
    with SqlAudit(
        database
    ).reading() as reading:  # it sets the connection's isolation, which is the pool's again then
        assert list(reading.links()) == []
    with database.write(within(3)) as connection:
        assert settings(connection)[3:] == ("off", "read committed")
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == process
    with database.engine.connect() as outside:
        assert settings(outside) == ("0", "0", "0", "off", "read committed")


def test_entries_that_wait_for_another_instances_leave_the_connections_to_exits(
    database: Database, postgres_url: str
) -> None:
    """Another instance is in the middle of an entry. However many entries of this one wait for it, they have one
    connection, and whoever else wants one gets it at once.
    """
    many = POSTGRES_CONNECTIONS * 3
    other = Database(postgres_url, None)

    def enter() -> None:
        with database.write(within(20), queued=True) as connection:
            connection.execute(LOCK)

    with ThreadPoolExecutor(many) as pool:
        with other.write(within(20)) as elsewhere:
            elsewhere.execute(LOCK)
            waiting = [pool.submit(enter) for _ in range(many)]
            until(lambda: database.writers.waiting == many - 1)
            assert database.busy == 1
            for _ in range(POSTGRES_CONNECTIONS):
                with database.write(within(1)) as connection:
                    connection.execute(text("SELECT 1"))
        for entry in waiting:
            entry.result(20)
    assert database.busy == 0
    other.close()


def test_an_entry_whose_turn_does_not_come_in_time_has_had_no_connection(database: Database) -> None:
    first, done = Event(), Event()

    def enter() -> None:
        with database.write(within(20), queued=True):
            first.set()
            done.wait(20)

    def late() -> None:
        with database.write(within(0.05), queued=True):
            pytest.fail("expected no turn")

    with ThreadPoolExecutor(1) as pool:
        entry = pool.submit(enter)
        first.wait(20)
        with pytest.raises(StoreUnavailable, match="did not get done"):
            late()
        assert (database.busy, database.writers.waiting) == (1, 0)
        done.set()
        entry.result(20)
    with database.write(within(1), queued=True) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_whoever_is_in_a_transaction_reads_in_it_and_waits_for_no_second_connection(
    database: Database,
) -> None:
    """More of them than there are connections, all of which wait for what the first one has locked."""

    def change(_: int) -> bool:
        with database.write(within(20)) as connection:
            connection.execute(LOCK)
            with database.read(within(20)) as again:
                return again is connection and again.execute(text("SELECT 1")).scalar_one() == 1

    with ThreadPoolExecutor(POSTGRES_CONNECTIONS * 2) as pool:
        assert all(pool.map(change, range(POSTGRES_CONNECTIONS * 4)))


def test_an_audit_that_reads_for_long_has_one_of_the_connections(database: Database) -> None:
    with SqlAudit(database).reading(), ExitStack() as others:
        for _ in range(POSTGRES_CONNECTIONS - 1):
            others.enter_context(database.read(within(5)))
        with pytest.raises(StoreUnavailable, match="became free"):
            others.enter_context(database.read(within(0.05)))


def backends(database: Database) -> set[int]:
    """Of all connections that there may be, by their processes."""
    with ExitStack() as all_of_them:
        connections = [
            all_of_them.enter_context(database.read(within(5))) for _ in range(POSTGRES_CONNECTIONS)
        ]
        return {c.execute(text("SELECT pg_backend_pid()")).scalar_one() for c in connections}


@pytest.mark.parametrize(
    "asks", [Connection.execute, lambda c, s: Prepared(s).all(c, {})], ids=["SQLAlchemy", "Prepared"]
)
def test_a_late_wait_for_a_lock_costs_no_other_connection(
    database: Database, postgres_url: str, asks: Callable[[Connection, TextClause], object]
) -> None:
    """The server's time-out counts from the statement on, our watchdog from the transaction: it is the first then."""
    other = Database(postgres_url, None)
    before = backends(database)

    def wait() -> None:
        with database.write(within(0.3)) as connection:
            asks(connection, text("SELECT pg_sleep(0.15)"))
            asks(connection, LOCK)

    with other.write(within(20)) as elsewhere:
        elsewhere.execute(LOCK)
        with pytest.raises(StoreUnavailable):
            wait()
    assert len(before & backends(database)) == POSTGRES_CONNECTIONS - 1
    other.close()


def test_a_begin_without_an_answer_is_the_silence_of_all(database: Database) -> None:
    before = backends(database)
    for process in before:
        os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable), database.read(within(0.3)):
            pytest.fail("expected no transaction")
    finally:
        for process in before:
            os.kill(process, signal.SIGCONT)
    assert not before & backends(database)


def test_a_transaction_is_read_committed_whatever_the_databases_default_is(postgres_url: str) -> None:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    default = "SET default_transaction_isolation TO 'repeatable read'"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {make_url(postgres_url).database} {default}")
    with engine.connect() as connection:
        connection.invalidate()
    with engine.connect() as connection:
        assert (
            connection.exec_driver_sql("SHOW default_transaction_isolation").scalar_one() == "repeatable read"
        )
    engine.dispose()
    database = Database(postgres_url, None)
    for begun in (database.write, database.read):
        with begun(within(5)) as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    database.close()
