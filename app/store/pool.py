"""The connections of one process: how many, which of them may still be used, and how long one is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import StoreUnavailable
from app.store.making import NotMade, made_within
from app.store.watchdog import Watch, Watchdog

POSTGRES_CONNECTIONS = 5
"""Per process. A transaction holds one for milliseconds and never during a broker call. Twice as many are more changes
between processes and no more work done: a sixth fewer alerts a second (measured).
"""
SQLITE_CONNECTIONS = 32
SQLITE_BUSY_S = 5.0
CONNECT_BOUND_S = 2
"""Or until the deadline of whoever asks, when that is sooner."""
CHECKED_S = 1.0
"""For what is asked on a new connection before it is used, SQLAlchemy's questions to a new database among it."""
SILENT_S = 0.9
"""Less than the second that a scrape has. A connect that failed after this long met a database that says nothing, not one that says no."""
REST_S = 0.5
"""For this long after it nobody else waits CONNECT_BOUND_S for the same silence."""
WATCH = "watch"
"""In a connection's `info`: over the transaction that it is in, or was in last, from the answer to its BEGIN on."""


class Pool:
    """SQLAlchemy's, with a seat for everybody who has a connection, and without those that a loss has cut off."""

    def __init__(self, url: str, watchdog: Watchdog, *, is_sqlite: bool) -> None:
        size = SQLITE_CONNECTIONS if is_sqlite else POSTGRES_CONNECTIONS
        self._seats = threading.BoundedSemaphore(size)
        self._silent_until = 0.0
        self._answered_at = float("-inf")
        self._lost_at = float("-inf")
        self._first = threading.Lock()
        self._known: object | None = None
        self._own = threading.local()
        self.engine = _sqlite(url, size) if is_sqlite else _postgres(url, size, watchdog)
        event.listen(self.engine, "do_connect", self._make)
        event.listen(self.engine, "handle_error", _leave_the_others)
        event.listen(self.engine, "invalidate", self._note_loss)
        event.listen(self.engine, "checkin", self._part_with_old)

    @property
    def busy(self) -> int:
        checked_out = getattr(self.engine.pool, "checkedout", None)
        return int(checked_out()) if checked_out is not None else 0

    @contextmanager
    def seat(self, within_s: float) -> Iterator[None]:
        """The right to one of the connections: without it somebody would wait for his past his deadline."""
        if not self._seats.acquire(timeout=within_s):
            raise StoreUnavailable("no database connection became free before the deadline")
        try:
            yield
        finally:
            self._seats.release()

    def connect(self, within_s: float = CONNECT_BOUND_S) -> Connection:
        """For whoever has a seat: one that was made since the last loss.

        The first ones of a pool are made one by one: SQLAlchemy makes them under a lock that is waited for without end.
        """
        ends = time.monotonic() + within_s
        pool = self.engine.pool
        if self._known is pool:
            return self._connect(ends)
        if not self._first.acquire(timeout=within_s):
            raise StoreUnavailable("the first database connection was not made before the deadline")
        try:
            connection = self._connect(ends)
            self._known = pool
            return connection
        finally:
            self._first.release()

    def _connect(self, ends: float) -> Connection:
        began = time.monotonic()
        if began < self._silent_until and not self._has_idle():
            raise StoreUnavailable("the database did not answer a moment ago")
        self._own.until = min(ends, began + CONNECT_BOUND_S)
        try:
            while True:
                connection = self.engine.connect()
                if (made := connection.info["made"]) >= self._lost_at:
                    self._answered_at = max(self._answered_at, made)
                    return connection
                connection.close()  # which parts with it
        except DBAPIError:
            ended = time.monotonic()
            # An answer to somebody who asked later says more than the silence before it.
            if ended - began > SILENT_S and self._answered_at <= began:
                self._silent_until = ended + REST_S
                self.engine.dispose()  # of what the pool has, nothing is worth another wait
                self._lost_at = time.monotonic()
            raise

    def _make(
        self,
        dialect: Dialect,
        record: ConnectionPoolEntry,
        args: Sequence[Any],
        named: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401 - the driver's connection
        """Instead of SQLAlchemy's own call of the driver; SQLite's connects to a file, and waits for nobody."""
        record.info["made"] = time.monotonic()
        if dialect.name == "sqlite":
            return None
        until: float = self._own.until
        record.info["until"] = until
        try:
            return made_within(lambda: dialect.connect(*args, **named), until - record.info["made"])
        except NotMade as error:
            raise dialect.loaded_dbapi.OperationalError(str(error)) from None

    def _note_loss(self, _: object, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        """What cut one connection off has cut off those that were there with it: each would cost somebody his time. One
        that is from before the last loss says nothing of those made since; and one that our own watchdog shut down, as
        its transaction lasted too long (a wait for a lock that the server's time-out was too late for), of no other.
        """
        watch: Watch | None = record.info.get(WATCH)
        if watch is not None and watch.is_over:
            return
        if isinstance(error, Exception) and record.info["made"] >= self._lost_at:
            self._lost_at = time.monotonic()

    def _part_with_old(self, raw: object | None, record: ConnectionPoolEntry) -> None:
        """Given back to the pool, or to the one that was the pool before it was disposed of and that nobody asks."""
        if raw is not None and record.info["made"] < self._lost_at:
            record.invalidate()

    def _has_idle(self) -> bool:
        checked_in = getattr(self.engine.pool, "checkedin", None)
        return checked_in is not None and checked_in() > 0


def _leave_the_others(found: ExceptionContext) -> None:
    """SQLAlchemy would part with the whole pool at each loss; which others it has cut off, `_note_loss` knows better."""
    found.invalidate_pool_on_disconnect = False


def _sqlite(url: str, size: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": SQLITE_BUSY_S},
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

    @event.listens_for(engine, "connect", insert=True)
    def watch(raw: Any, record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's connection
        # First of all: SQLAlchemy's own listener asks a new database for its version and more.
        left = record.info["until"] - time.monotonic()
        record.info["new"] = watchdog.begin(raw.fileno(), min(CHECKED_S, left))

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's connection
        try:
            setting = raw.execute("SHOW synchronous_commit").fetchone()[0]
            # What is looked at under a lock, and right before a send, must be what others have committed meanwhile.
            raw.execute("SET default_transaction_isolation TO 'read committed'")
            raw.commit()
        finally:
            watchdog.end(record.info.pop("new"))
        if setting == "off":
            raw.close()
            raise StoreUnavailable(
                "expected synchronous_commit on, was off: a committed order could be forgotten by a crash"
            )

    return engine
