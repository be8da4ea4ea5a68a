"""What a transaction on Postgres leaves behind: nothing of its settings, and no lock of a process that was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database
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
