"""Transactions on SQLite and Postgres, none of which waits past its deadline; driver errors become StoreUnavailable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from app.domain.deadline import Deadline
from app.errors import CommitUnknown, StoreUnavailable
from app.service.ports import Clock
from app.store.watchdog import Watchdog
from app.store.writers import WriterQueue

DEFAULT_BOUND_S = 5.0
"""What a transaction without a deadline may take: never for ever."""
POSTGRES_CONNECTIONS = 5
"""Per process. A transaction holds one for milliseconds and never during a broker call. Twice as many are more changes
between processes and no more work done: a sixth fewer alerts a second (measured).
"""
SQLITE_CONNECTIONS = 32
CONNECT_BOUND_S = 2
SILENT_S = 1.0
"""A connect that failed after this long met a database that says nothing, not one that says no."""
REST_S = 0.5
"""For this long after it nobody else waits CONNECT_BOUND_S for the same silence."""
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
        size = SQLITE_CONNECTIONS if self.is_sqlite else POSTGRES_CONNECTIONS
        self._seats = threading.BoundedSemaphore(size)
        self._writers = WriterQueue()
        self._own = threading.local()
        self._silent_until = 0.0
        self._lost_at = float("-inf")
        self._watchdog = Watchdog()
        self.engine = _sqlite(url, size) if self.is_sqlite else _postgres(url, size, self._watchdog)
        event.listen(self.engine, "connect", _made)
        event.listen(self.engine, "invalidate", self._note_loss)
        event.listen(self.engine, "checkin", self._part_with_old)
        self.driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error

    @property
    def writers(self) -> WriterQueue:
        return self._writers

    @property
    def busy(self) -> int:
        """Connections that transactions have now."""
        checked_out = getattr(self.engine.pool, "checkedout", None)
        return int(checked_out()) if checked_out is not None else 0

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
            raise StoreUnavailable("the database's writers did not get done before the deadline")
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
            began, own.info["now"] = own.info["now"], self._fresh_now(own)
            try:
                yield own
            finally:
                own.info["now"] = began
            return
        with self._transaction(self._ends(deadline), write=False) as connection:
            yield connection

    @contextmanager
    def seat(self, deadline: Deadline | None = None) -> Iterator[None]:
        """The right to one of the pool's connections: without it somebody would wait for his past his deadline."""
        if not self._seats.acquire(timeout=self._left(self._ends(deadline))):
            raise StoreUnavailable("no database connection became free before the deadline")
        try:
            yield
        finally:
            self._seats.release()

    def now(self, connection: Connection) -> datetime:
        """The time of the transaction, aware UTC; the same from its first statement to its last."""
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
        self.engine.dispose()

    def _ends(self, deadline: Deadline | None) -> Deadline:
        return deadline or Deadline(self._monotonic() + DEFAULT_BOUND_S)

    def _left(self, ends: Deadline) -> float:
        left = ends.left(self._monotonic())
        if left <= 0:
            raise StoreUnavailable("no time left for the database")
        return left

    @contextmanager
    def _transaction(self, ends: Deadline, *, write: bool) -> Iterator[Connection]:
        with self.seat(ends):
            try:
                # The watch ends after the connection is given back: a ROLLBACK is waited for too.
                with ExitStack() as watch, self._started(ends, watch, write=write) as connection:
                    yield connection
                    self._commit(connection, write=write)
            except (DBAPIError, PoolTimeout, PendingRollbackError, self.driver_error, _Dead) as error:
                raise StoreUnavailable(f"the database failed: {_cause(error)}") from error

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
        """A connection in its transaction. One that died in the pool shows here, and the whole pool is new then."""
        try:
            return self._begin(self._connect(), ends, watch, write=write)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        except _Dead:
            self.engine.dispose()  # its neighbours in the pool were cut off by the same cause
        watch.close()
        self._left(ends)  # or it was no dead connection but a database that says nothing
        return self._begin(self._connect(), ends, watch, write=write)

    def _connect(self) -> Connection:
        began = time.monotonic()
        if began < self._silent_until and not self._has_idle():
            raise StoreUnavailable("the database did not answer a moment ago")
        try:
            while True:
                connection = self.engine.connect()
                if connection.info["made"] >= self._lost_at:
                    return connection
                connection.close()  # which parts with it
        except DBAPIError:
            if (ended := time.monotonic()) - began > SILENT_S:
                self._silent_until = ended + REST_S
            raise

    def _note_loss(self, _raw: Any, _record: object, error: BaseException | None) -> None:  # noqa: ANN401
        """What cut one connection off has cut off those that were there with it: each would cost somebody his time."""
        if isinstance(error, Exception):
            self._lost_at = time.monotonic()

    def _part_with_old(self, raw: object | None, record: ConnectionPoolEntry) -> None:
        """Given back to the pool, or to the one that was the pool before the loss and that nobody asks any more."""
        if raw is not None and record.info["made"] < self._lost_at:
            record.invalidate()

    def _has_idle(self) -> bool:
        checked_in = getattr(self.engine.pool, "checkedin", None)
        return checked_in is not None and checked_in() > 0

    def _begin(self, connection: Connection, ends: Deadline, watch: ExitStack, *, write: bool) -> Connection:
        try:
            milliseconds = max(1, int(self._left(ends) * 1000))
            if self.is_sqlite:
                now = _begin_sqlite(connection, milliseconds, write=write)
            else:
                watch.enter_context(self._watchdog.over(_descriptor(connection), self._left(ends) + GRACE_S))
                now = self._begin_postgres(connection, milliseconds, write=write)
            connection.info["now"] = now if self._clock is None else self._clock.now().astimezone(UTC)
        except BaseException:
            connection.close()
            raise
        return connection

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


def _made(_raw: Any, record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's connection
    record.info["made"] = time.monotonic()


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
    return type(getattr(error, "orig", None) or error).__name__


def _sqlite(url: str, size: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": DEFAULT_BOUND_S},
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _: object) -> None:  # noqa: ANN401 - the driver's connection
        raw.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            raw.execute(f"PRAGMA {pragma}").close()

    return engine


def _postgres(url: str, size: int, watchdog: Watchdog) -> Engine:
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",  # the driver must not begin transactions of its own: BEGIN is in _START
        pool_size=size,
        max_overflow=0,
        connect_args={"connect_timeout": CONNECT_BOUND_S, "tcp_user_timeout": CONNECT_BOUND_S * 1000},
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _: object) -> None:  # noqa: ANN401 - the driver's connection
        with watchdog.over(raw.fileno(), GRACE_S * 10):
            setting = raw.execute("SHOW synchronous_commit").fetchone()[0]
            raw.rollback()
        if setting == "off":
            raw.close()
            raise StoreUnavailable(
                "expected synchronous_commit on, was off: a committed order could be forgotten by a crash"
            )

    return engine
