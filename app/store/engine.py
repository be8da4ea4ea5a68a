"""Transactions on SQLite and Postgres, none of which waits past its deadline; driver errors become StoreUnavailable."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.domain.deadline import Deadline
from app.errors import CommitUnknown, StoreBusy, StoreUnavailable
from app.service.ports import Clock
from app.store.pool import WATCH, Pool
from app.store.watchdog import Watch, Watchdog
from app.store.writers import WriterQueue

DEFAULT_BOUND_S = 5.0
"""What a transaction without a deadline may take: never for ever."""
GRACE_S = 0.05
"""For the server's own time-out, which leaves the connection usable, to be the first."""

_START = (
    "SELECT clock_timestamp(), set_config('statement_timeout', '{ms}', true), set_config('lock_timeout', '{ms}', true), "
    "set_config('idle_in_transaction_session_timeout', '{ms}', true); BEGIN {access}"
)
"""One message. What stands before BEGIN in the same message belongs to the transaction that it begins. The idle one is
for a process that was stopped in the middle: the locks that it holds must not stop all the others with it."""
_CLOCK = text("SELECT clock_timestamp()")


class Database:
    """Where transactions come from. With a clock, `now` is that clock's; without one it is the database's own
    (on SQLite this machine's, which is the only one there).
    """

    def __init__(self, url: str, clock: Clock | None) -> None:
        self._clock = clock
        self._monotonic = time.monotonic if clock is None else clock.monotonic
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._writers = WriterQueue()
        self._own = threading.local()
        self._watchdog = Watchdog()
        self._pool = Pool(url, self._watchdog, is_sqlite=self.is_sqlite)
        self.engine = self._pool.engine
        self.driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error

    @property
    def writers(self) -> WriterQueue:
        return self._writers

    @property
    def clock(self) -> Clock | None:
        """What `now` goes by; None: the database's own."""
        return self._clock

    @property
    def busy(self) -> int:
        """Connections that transactions have now."""
        return self._pool.busy

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[Connection]:
        """A transaction that may change things; committed at the block's end, rolled back when it raises. `queued`: it
        waits for those of this process that are queued too. SQLite has one writer at a time, so that there all are.
        """
        ends = self._ends(deadline)
        if not (self.is_sqlite or queued):
            with self._transaction(ends, write=True) as connection, self._joinable(connection):
                yield connection
            return
        if not self._writers.acquire(self._left(ends)):
            raise StoreBusy("the database's writers did not get done before the deadline")
        try:
            with self._transaction(ends, write=True) as connection, self._joinable(connection):
                yield connection
        finally:
            self._writers.release()

    @property
    def joinable(self) -> Connection | None:
        """The writing transaction that this thread is in: what belongs to it is kept or undone together with it."""
        return getattr(self._own, "connection", None)

    @contextmanager
    def _joinable(self, connection: Connection) -> Iterator[None]:
        self._own.connection = connection
        try:
            yield
        finally:
            self._own.connection = None

    @contextmanager
    def read(self, deadline: Deadline | None = None) -> Iterator[Connection]:
        """A transaction for reading: no write lock, and on Postgres no right to change anything. A thread that is in a
        writing one reads in that: for a second connection it might wait for those who wait for it.
        """
        if (own := self.joinable) is not None:
            info = own.info
            began, info["now"] = info["now"], self._fresh_now(own)
            try:
                yield own
            finally:
                info["now"] = began
            return
        with self._transaction(self._ends(deadline), write=False) as connection:
            yield connection

    @contextmanager
    def without_limits(self) -> Iterator[Connection]:
        """One of the connections, in no transaction of ours: without a statement's time limit."""
        with self._pool.seat(DEFAULT_BOUND_S), self._pool.connect(DEFAULT_BOUND_S) as connection:
            yield connection

    def now(self, connection: Connection) -> datetime:
        """The time of the transaction, aware UTC: of its first statement, or of the end of its wait for others' entries."""
        now: datetime = connection.info["now"]
        return now

    def _fresh_now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock.now().astimezone(UTC)
        if self.is_sqlite:
            return datetime.now(UTC)
        now: datetime = connection.execute(_CLOCK).scalar_one()
        return now.astimezone(UTC)

    def close(self) -> None:
        self._pool.close()

    def _ends(self, deadline: Deadline | None) -> Deadline:
        return deadline or Deadline(self._monotonic() + DEFAULT_BOUND_S)

    def _left(self, ends: Deadline) -> float:
        left = ends.left(self._monotonic())
        if left <= 0:
            raise StoreBusy("no time left for the database")
        return left

    @contextmanager
    def _transaction(self, ends: Deadline, *, write: bool) -> Iterator[Connection]:
        with self._pool.seat(self._left(ends)):
            try:
                # The watch ends after the connection is given back: a ROLLBACK is waited for too.
                with ExitStack() as watch, self._started(ends, watch, write=write) as connection:
                    yield connection
                    self._commit(connection, write=write)
            except (DBAPIError, PoolTimeout, PendingRollbackError, self.driver_error, _Dead) as error:
                kind = StoreBusy if _is_busy(error) else StoreUnavailable
                raise kind(f"the database failed: {_cause(error)}") from error

    def _commit(self, connection: Connection, *, write: bool) -> None:
        if write and not self.is_sqlite and _status(connection) == "INERROR":
            # Postgres answers such a COMMIT with a ROLLBACK and no error: what is not kept would read as kept.
            raise StoreUnavailable("a statement of the transaction had failed")
        try:
            connection.commit()
        except (DBAPIError, self.driver_error) as error:
            connection.invalidate()  # it may still be in the transaction, and must not serve the next one
            if not write:
                raise
            raise CommitUnknown(f"the database was lost during COMMIT: {_cause(error)}") from error

    def _started(self, ends: Deadline, watch: ExitStack, *, write: bool) -> Connection:
        """A connection in its transaction. One that died in the pool shows here, and so does none of the others."""
        try:
            return self._begin(self._pool.connect(self._left(ends)), ends, watch, write=write)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        except _Dead:
            pass
        watch.close()
        left = self._left(ends)  # or it was no dead connection but a database that says nothing
        return self._begin(self._pool.connect(left), ends, watch, write=write)

    def _begin(self, connection: Connection, ends: Deadline, watch: ExitStack, *, write: bool) -> Connection:
        try:
            milliseconds = max(1, int(self._left(ends) * 1000))
            if self.is_sqlite:
                now = _begin_sqlite(connection, milliseconds, write=write)
            else:
                over = self._watch(connection, ends, watch)
                now = self._begin_postgres(connection, milliseconds, write=write)
                # Not before: a BEGIN without an answer is the silence of the whole database.
                connection.info[WATCH] = over
            self._pool.answered()
            connection.info["now"] = now if self._clock is None else self._clock.now().astimezone(UTC)
        except BaseException:
            connection.close()
            raise
        return connection

    def _watch(self, connection: Connection, ends: Deadline, watch: ExitStack) -> Watch:
        try:
            return watch.enter_context(
                self._watchdog.over(_descriptor(connection), self._left(ends) + GRACE_S)
            )
        except (OSError, RuntimeError) as error:
            raise StoreUnavailable(f"the connection cannot be watched: {error}") from error

    def _begin_postgres(self, connection: Connection, milliseconds: int, *, write: bool) -> datetime:
        """Straight to the driver, like SQLite's: one way to the server instead of two, at every transaction."""
        connection.begin()
        raw: Any = connection.connection.dbapi_connection
        start = _START.format(ms=milliseconds, access="READ WRITE" if write else "READ ONLY")
        try:
            now: datetime = raw.execute(start, prepare=False).fetchone()[0]
        except self.driver_error as error:
            if not raw.closed:
                raise
            connection.invalidate(error)
            raise _Dead(error) from error
        return now.astimezone(UTC)


class _Dead(Exception):
    """The pool gave a connection that the server, or something in between, had closed."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(str(orig))
        self.orig = orig


def _begin_sqlite(connection: Connection, busy_ms: int, *, write: bool) -> datetime:
    """Straight to the driver: these two are a third of all statements, and have neither values nor rows."""
    connection.begin()
    raw: Any = connection.connection.dbapi_connection
    raw.execute(f"PRAGMA busy_timeout={busy_ms}").close()
    raw.execute("BEGIN IMMEDIATE" if write else "BEGIN").close()
    return datetime.now(UTC)


def _descriptor(connection: Connection) -> int:
    raw: Any = connection.connection.dbapi_connection
    return int(raw.fileno())


def _status(connection: Connection) -> str:
    raw: Any = connection.connection.dbapi_connection
    return str(raw.info.transaction_status.name)


def _cause(error: Exception) -> str:
    return type(_driver_error(error)).__name__


def _is_busy(error: Exception) -> bool:
    """SQLite's one writer was another process's all the time."""
    code: int = getattr(_driver_error(error), "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY  # what is above it says why


def _driver_error(error: Exception) -> Exception:
    return getattr(error, "orig", None) or error
