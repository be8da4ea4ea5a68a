"""ports.Store on SQLite and Postgres."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, or_, select, update

from app.domain.deadline import Deadline
from app.domain.order import TAG_PREFIX_LENGTH, Scope
from app.errors import CommitUnknown, FieldError, InvalidAlert, StoreUnavailable
from app.service.observe import transaction
from app.service.ports import Clock
from app.service.records import AuditEvent, OrderFilter, OrderPage, Refusal
from app.store import sql_control, sql_orders
from app.store.engine import Database
from app.store.head import HEAD
from app.store.migrate import at_head
from app.store.sql_orders import of_scope, upsert
from app.store.sql_rows import order_from, refusal_from
from app.store.sql_transaction import SqlTransaction
from app.store.tables import deployment, locks, orders, refusals

MAX_PAGE = 200
MAX_REFUSALS = 1000
"""Per (mode, account): a flood of refused requests must not fill the disk."""
ONE_TRY_S = 0.25
"""What a single try for a lease may take of the database's time."""
LOCK_POLL_S = 0.02
"""Two steps of a hundred a second are nothing to the database and little to an exit."""
TRIED = "write tried"
"""The lease that is nobody's: a row to write to."""
AHEAD = timedelta(seconds=30)
"""A lease that ends this much later than a new one would is of a clock that was ahead and has been set right."""


class SqlStore:
    def __init__(
        self, database: Database, clock: Clock, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self.database = database
        self._clock = clock
        self._pause = pause

    @contextmanager
    def write(self, deadline: Deadline | None = None, *, queued: bool = False) -> Iterator[SqlTransaction]:
        with transaction(writing=True), self.database.write(deadline, queued=queued) as connection:
            now, clock = self.database.now(connection), self.database.clock
            yield SqlTransaction(connection, now, writing=True, clock=clock)

    @contextmanager
    def read(self, deadline: Deadline | None = None) -> Iterator[SqlTransaction]:
        with transaction(writing=False), self.database.read(deadline) as connection:
            yield SqlTransaction(connection, self.database.now(connection), writing=False)

    def take_lock(self, name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        # One try even when the deadline has passed: whoever must not wait may still ask.
        ends, seen_taken = Deadline(max(deadline.at, self._clock.monotonic() + ONE_TRY_S)), False
        while True:
            try:
                if self._try_lock(name, owner, ttl, ends):
                    return True
            except CommitUnknown:
                raise
            except StoreUnavailable:
                if seen_taken:
                    return False  # it was another's at the last look, and there was no time for one more
                raise
            seen_taken = True
            left = deadline.left(self._clock.monotonic())
            if left > 0:
                self._pause(min(LOCK_POLL_S, left))
            if deadline.passed(self._clock.monotonic()):
                return False

    def _try_lock(self, name: str, owner: str, ttl: timedelta, ends: Deadline) -> bool:
        with self.database.write(ends) as connection:
            now = self.database.now(connection)
            lease = upsert(connection)(locks).values(name=name, owner=owner, expires_at=now + ttl)
            lease = lease.on_conflict_do_update(
                index_elements=[locks.c.name],
                set_={"owner": lease.excluded.owner, "expires_at": lease.excluded.expires_at},
                where=or_(
                    locks.c.expires_at <= now, locks.c.owner == owner, locks.c.expires_at > now + ttl + AHEAD
                ),
            )
            return connection.execute(lease.returning(locks.c.name)).one_or_none() is not None

    def try_write(self, turn: Deadline) -> None:
        row = select(locks.c.name).where(locks.c.name == TRIED)
        # Another's, who may have been stopped in the middle, is not waited for: that he could write it is seen too.
        free = row.with_for_update(skip_locked=True).scalar_subquery()
        with self.database.write(turn if self.database.is_sqlite else None) as connection:
            now = self.database.now(connection)
            written = connection.execute(update(locks).where(locks.c.name == free).values(expires_at=now))
            if not written.rowcount and connection.execute(row).one_or_none() is None:
                made = upsert(connection)(locks).values(name=TRIED, owner="", expires_at=now)
                connection.execute(made.on_conflict_do_nothing())

    def ensure_scope(self, scope: Scope) -> None:
        with self.database.write() as connection:
            sql_control.ensure_scope(connection, scope, self.database.now(connection))

    def tag_prefix(self, configured: str | None) -> str:
        """Raises ValueError when the configured prefix is malformed or not the one this database has."""
        wanted = configured or base64.b32encode(secrets.token_bytes(5)).decode()[:TAG_PREFIX_LENGTH]
        if len(wanted) != TAG_PREFIX_LENGTH or not wanted.isalnum() or wanted != wanted.upper():
            raise ValueError(f"expected {TAG_PREFIX_LENGTH} upper-case letters or digits, was {wanted!r}")
        with self.database.write() as connection:
            made = upsert(connection)(deployment).values(id=1, tag_prefix=wanted).on_conflict_do_nothing()
            connection.execute(made)
            kept = connection.execute(select(deployment.c.tag_prefix)).scalar_one()
        if configured and kept != configured:
            raise ValueError(
                f"expected ORDER_TAG_PREFIX {kept}, which this database was made with, was {configured}"
            )
        return str(kept)

    def list_orders(self, scope: Scope, wanted: OrderFilter) -> OrderPage:
        c = orders.c
        query = select(orders).where(of_scope(orders, scope))
        for column, value in (
            (c.client, wanted.client),
            (c.status, wanted.status and wanted.status.value),
            (c.strategy, wanted.strategy),
        ):
            if value is not None:
                query = query.where(column == value)
        if wanted.symbol is not None:
            query = query.where(or_(c.underlying == wanted.symbol, c.ticker == wanted.symbol))
        if wanted.date_from is not None:
            query = query.where(c.ist_date >= wanted.date_from)
        if wanted.date_to is not None:
            query = query.where(c.ist_date <= wanted.date_to)
        if wanted.cursor is not None:
            at, order_id = _place_of(wanted.cursor)
            query = query.where(or_(c.created_at < at, (c.created_at == at) & (c.id < order_id)))
        limit = max(1, min(wanted.limit, MAX_PAGE))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit + 1)).all()
        items = tuple(order_from(row) for row in rows[:limit])
        more = len(rows) > limit
        return OrderPage(items, _cursor_at(rows[limit - 1].created_at, rows[limit - 1].id) if more else None)

    def events(self, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]:
        with self.database.read() as connection:
            return sql_orders.events(connection, scope, order_id)

    def record_refusal(self, scope: Scope, refusal: Refusal, deadline: Deadline | None = None) -> None:
        values = {name: getattr(refusal, name) for name in Refusal.__slots__}
        r = refusals.c
        beyond = (
            select(r.id)
            .where(of_scope(refusals, scope))
            .order_by(r.id.desc())
            .offset(MAX_REFUSALS)
            .limit(1)
            .scalar_subquery()
        )
        with self.database.write(deadline) as connection:
            row = values | {"mode": scope.mode.value, "account": scope.account}
            connection.execute(insert(refusals), row)
            connection.execute(delete(refusals).where(of_scope(refusals, scope), r.id <= beyond))

    def list_refusals(self, scope: Scope, limit: int) -> tuple[Refusal, ...]:
        wanted = select(refusals).where(of_scope(refusals, scope)).order_by(refusals.c.id.desc())
        with self.database.read() as connection:
            rows = connection.execute(wanted.limit(max(1, min(limit, MAX_REFUSALS))))
            return tuple(refusal_from(row) for row in rows)

    def check(self) -> str | None:
        try:
            with self.database.read() as connection:
                current = at_head(connection)
        except StoreUnavailable as error:
            return error.detail
        return (
            None if current else f"the schema is not at revision {HEAD}: run `flask --app app.wsgi migrate`"
        )

    def close(self) -> None:
        self.database.close()


def connect(url: str, clock: Clock) -> SqlStore:
    """A store whose waiting and time both go by `clock`."""
    return SqlStore(Database(url, clock), clock)


def _cursor_at(at: datetime, order_id: str) -> str:
    return base64.urlsafe_b64encode(f"{at.isoformat()} {order_id}".encode()).decode().rstrip("=")


def _place_of(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        # A NUL, which Postgres takes in no value, makes it one part too many.
        at, order_id = text.replace("\0", " ").split(" ")
        return datetime.fromisoformat(at).astimezone(UTC), order_id
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidAlert((FieldError("cursor", "expected a cursor of an earlier answer"),)) from None
