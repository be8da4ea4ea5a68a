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
from app.store.making import Attempts, NotMade
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


class _Asking(threading.local):
    """What a thread that asks for a connection has, while it does."""

    until = float("inf")
    asked_at = 0.0
    """When what it waits for was begun, by whomever."""


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
        self._asking = _Asking()
        self._attempts, self._watchdog = Attempts(CONNECT_BOUND_S), watchdog
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
        if self._known is self.engine.pool:
            return self._connect(ends)
        if not self._first.acquire(timeout=within_s):
            raise StoreUnavailable("the first database connection was not made before the deadline")
        try:
            if self._known is not self.engine.pool:
                pool, connection = self.engine.pool, self._connect(ends)
                self._known = pool
                return connection
        finally:
            self._first.release()
        return self._connect(ends)

    def answered(self) -> None:
        """By a BEGIN, on whichever connection: the database is not silent."""
        self._answered_at = time.monotonic()

    def close(self) -> None:
        self.engine.dispose()
        self._attempts.drop()

    def _connect(self, ends: float) -> Connection:
        began = time.monotonic()
        if began < self._silent_until and not self._has_idle():
            raise StoreUnavailable("the database did not answer a moment ago")
        asking = self._asking
        asking.asked_at, asking.until = began, ends
        try:
            while True:
                connection = self.engine.connect()
                if connection.info["made"] >= self._lost_at:
                    return connection
                connection.close()  # which parts with it
        except DBAPIError:
            ended, asked_at = time.monotonic(), asking.asked_at
            # What somebody was answered meanwhile says more.
            if ended - asked_at > SILENT_S and self._answered_at <= asked_at:
                self._silent_until = ended + REST_S
                self.engine.dispose()  # of what the pool has, nothing is worth another wait
                self._lost_at = time.monotonic()
            raise
        finally:
            asking.until = _Asking.until

    def _make(
        self,
        dialect: Dialect,
        record: ConnectionPoolEntry,
        args: Sequence[Any],
        named: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401 - the driver's connection
        """Instead of SQLAlchemy's own call of the driver; SQLite's connects to a file, and waits for nobody."""
        record.info["made"], record.info["pool"] = time.monotonic(), self.engine.pool
        if dialect.name == "sqlite":
            return None
        until = min(self._asking.until, time.monotonic() + CONNECT_BOUND_S)
        record.info["until"] = until
        try:
            attempt = self._attempts.next(lambda: _checked(dialect.connect(*args, **named), self._watchdog))
            self._asking.asked_at = attempt.began
            try:
                raw, record.info["made"] = attempt.result(until)
            except NotMade:
                self._attempts.keep(attempt)
                raise
        except NotMade as error:
            raise dialect.loaded_dbapi.OperationalError(str(error)) from None
        return raw

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
        if raw is None:
            return
        if record.info["made"] < self._lost_at or record.info["pool"] is not self.engine.pool:
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

    # SQLAlchemy's own listener between these two asks a new database for its version and more.
    @event.listens_for(engine, "connect", insert=True)
    def watch(raw: Any, record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's connection
        left = record.info["until"] - time.monotonic()
        record.info["new"] = _watched(raw, watchdog, min(CHECKED_S, left))

    @event.listens_for(engine, "connect")
    def asked(_: object, record: ConnectionPoolEntry) -> None:
        watchdog.end(record.info.pop("new"))

    return engine


def _checked(raw: Any, watchdog: Watchdog) -> Any:  # noqa: ANN401 - the driver's connection
    """A new one of Postgres, set and asked for what it must be set to."""
    watch = _watched(raw, watchdog, CHECKED_S)
    try:
        setting = raw.execute("SHOW synchronous_commit").fetchone()[0]
        # What is looked at under a lock, and right before a send, must be what others have committed meanwhile.
        raw.execute("SET default_transaction_isolation TO 'read committed'")
        raw.commit()
    except BaseException:
        raw.close()
        raise
    finally:
        watchdog.end(watch)
    if setting == "off":
        raw.close()
        raise StoreUnavailable(
            "expected synchronous_commit on, was off: a committed order could be forgotten by a crash"
        )
    return raw


def _watched(raw: Any, watchdog: Watchdog, within_s: float) -> Watch:  # noqa: ANN401 - the driver's connection
    try:
        return watchdog.begin(raw.fileno(), within_s)
    except (OSError, RuntimeError) as error:
        raw.close()
        raise StoreUnavailable(f"a new connection cannot be watched: {error}") from error
