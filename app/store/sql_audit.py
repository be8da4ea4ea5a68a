"""service.audit_check.AuditLog on SQLite and Postgres.

Why a seal never skips an event, and never waits for a slow transaction. A seal does not cover "all events below a
position": a position that a running transaction took earlier would appear below it later. It names heads, (order,
event count, hash), of rows that one statement saw committed, and the next seal looks for every order whose head is not
named yet. What a running transaction has written is not seen, so it is not named, and it is found by the first seal
after its commit, however late that is: a seal covers only what lies below the oldest running transaction of each order.
A named head stays true: its order's row was locked by whoever wrote the event, so that events of one order never commit
out of sequence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Select, Text, cast, exists, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql import ColumnElement

from app.domain.alert import IST
from app.errors import StoreUnavailable
from app.service.audit_check import (
    FIRST_HASH,
    SEAL_ORDERS_AT_ONCE,
    Entry,
    Head,
    Link,
    Seal,
    SealHash,
    Witness,
)
from app.store.engine import Database
from app.store.sql_rows import hash_of
from app.store.tables import order_events, orders
from app.store.tables_audit import audit_seal_heads, audit_seals

ROWS_AT_ONCE = 500
SEAL_LOCK = 7_141_802
"""Any number of our own: two instances that seal at once must not both write the next number."""
SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"

o, e, s, h = orders.c, order_events.c, audit_seals.c, audit_seal_heads.c
_IS_SEALED = exists().where(h.order_id == o.id, h.event_count >= o.event_count)
_SEALED_SO_FAR = select(func.max(h.event_count)).where(h.order_id == o.id).scalar_subquery()
_CHANGED = (
    select(o.id, o.event_count, o.head_hash, func.coalesce(_SEALED_SO_FAR, 0).label("before"))
    .where(~_IS_SEALED)
    .order_by(o.id)
    .limit(SEAL_ORDERS_AT_ONCE)
)
_LAST = select(audit_seals).order_by(s.number.desc()).limit(1)


class SqlAudit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def seal(self) -> Seal | None:
        # What changed is looked up without the write lock: on SQLite it takes longer than the write.
        with self._database.read() as connection:
            last = _seal_from(connection.execute(_LAST).one_or_none())
            changed = connection.execute(_CHANGED).all()
        if not changed:
            return None
        with self._database.write() as connection:
            if not self._database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": SEAL_LOCK})
            if _seal_from(connection.execute(_LAST).one_or_none()) != last:
                return None  # another has sealed meanwhile
            heads = [Head(row.id, row.event_count, row.head_hash) for row in changed]
            upto = (last.upto if last else 0) + sum(row.event_count - row.before for row in changed)
            made = _next(last, heads, upto, self._database.now(connection))
            values = {name: getattr(made, name) for name in Seal.__slots__}
            connection.execute(insert(audit_seals), values)
            connection.execute(
                insert(audit_seal_heads),
                [
                    {
                        "seal": made.number,
                        "place": place,
                        "order_id": head.order_id,
                        "event_count": head.event_count,
                        "head_hash": head.head_hash,
                    }
                    for place, head in enumerate(heads)
                ],
            )
        return made

    def newest(self, limit: int) -> tuple[Seal, ...]:
        return self._seals(select(audit_seals).order_by(s.number.desc()).limit(limit))

    def after(self, number: int, limit: int) -> tuple[Seal, ...]:
        return self._seals(select(audit_seals).where(s.number > number).order_by(s.number).limit(limit))

    def _seals(self, wanted: Select[Any]) -> tuple[Seal, ...]:
        with self._database.read() as connection:
            found = (_seal_from(row) for row in connection.execute(wanted))
            return tuple(seal for seal in found if seal is not None)

    @contextmanager
    def reading(self) -> Iterator[SqlReading]:
        """Its own transaction, without a statement's time limit: a whole audit takes as long as it takes."""
        try:
            with self._database.without_limits() as connection:
                if self._database.is_sqlite:
                    connection.begin()
                    connection.exec_driver_sql("BEGIN")
                    yield SqlReading(connection)
                else:
                    one = connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                    yield SqlReading(one)
        except (DBAPIError, PoolTimeout) as error:
            cause = type(getattr(error, "orig", None) or error).__name__
            raise StoreUnavailable(f"the database failed: {cause}") from error


class SqlReading:
    """service.audit_check.Reading. Times and JSON are read as text on SQLite, which keeps whatever was put there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._as_text = connection.dialect.name == "sqlite"

    def links(self) -> Iterator[Link]:
        wanted = (
            select(
                o.id,
                o.event_count,
                o.head_hash,
                e.sequence,
                e.event,
                self._time(e.at).label("at"),
                e.status,
                cast(e.detail, Text).label("detail"),
                e.prev_hash,
                e.hash,
            )
            .select_from(orders.outerjoin(order_events, e.order_id == o.id))
            .order_by(o.id, e.sequence)
        )
        for row in self._rows(wanted):
            computed = None if row.sequence is None else _computed(row)
            yield Link(
                row.id, row.event_count, row.head_hash, row.sequence, row.prev_hash, row.hash, computed
            )

    def orphans(self) -> Iterator[tuple[str, int]]:
        wanted = select(e.order_id, e.sequence).where(~exists().where(o.id == e.order_id))
        for row in self._rows(wanted.order_by(e.order_id, e.sequence)):
            yield row.order_id, row.sequence

    def witnesses(self) -> Iterator[Witness]:
        joined = audit_seals.outerjoin(audit_seal_heads, h.seal == s.number)
        joined = joined.outerjoin(order_events, (e.order_id == h.order_id) & (e.sequence == h.event_count))
        wanted = (
            select(
                s.number,
                s.upto,
                self._time(s.sealed_at).label("sealed_at"),
                s.prev_hash,
                s.hash,
                h.order_id,
                h.event_count,
                h.head_hash,
                e.hash.label("found"),
            )
            .select_from(joined)
            .order_by(s.number, h.place)
        )
        for row in self._rows(wanted):
            seal = Seal(row.number, row.upto, _moment(row.sealed_at), row.prev_hash, row.hash)
            head = None if row.order_id is None else Head(row.order_id, row.event_count, row.head_hash)
            yield Witness(seal, head, row.found)

    def heads_without_seal(self) -> Iterator[int]:
        wanted = select(h.seal).where(~exists().where(s.number == h.seal)).distinct().order_by(h.seal)
        for row in self._rows(wanted):
            yield row.seal

    def unsealed(self) -> int:
        return self._connection.execute(
            select(func.count()).select_from(orders).where(~_IS_SEALED)
        ).scalar_one()

    def entries(self, first: date | None, last: date | None) -> Iterator[Entry]:
        facts = (o.mode, o.account, o.client, o.ticker, o.side, o.quantity)
        wanted = select(
            self._time(e.at).label("at"),
            e.order_id,
            e.sequence,
            e.event,
            e.status,
            *facts,
            cast(e.detail, Text).label("detail"),
            e.prev_hash,
            e.hash,
        ).select_from(order_events.outerjoin(orders, o.id == e.order_id))
        if first is not None:
            wanted = wanted.where(e.at >= _midnight(first))
        if last is not None:
            wanted = wanted.where(e.at < _midnight(last + timedelta(days=1)))
        for row in self._rows(wanted.order_by(e.at, e.order_id, e.sequence)):
            values = row._asdict()
            yield Entry(**{**values, "at": _moment(values["at"])})

    def _time(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(column, Text) if self._as_text else column

    def _rows(self, wanted: Any) -> Iterator[Any]:  # noqa: ANN401 - a SELECT, and its rows
        """A few hundred at a time, from a cursor that is closed also when its reader has seen enough."""
        found = self._connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
        try:
            yield from found
        finally:
            found.close()


def _seal_from(row: Any) -> Seal | None:  # noqa: ANN401 - a row of audit_seals
    return None if row is None else Seal(row.number, row.upto, row.sealed_at, row.prev_hash, row.hash)


def _next(last: Seal | None, heads: list[Head], upto: int, now: datetime) -> Seal:
    number, previous = (1, FIRST_HASH) if last is None else (last.number + 1, last.hash)
    made = SealHash(number, upto, now, previous)
    for head in heads:
        made.add(head)
    return Seal(number, upto, now, previous, made.hex())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), IST).astimezone(UTC)


def _moment(value: object) -> datetime | None:
    """Only as it is written: another spelling of the same moment was written by somebody else."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        moment = datetime.strptime(str(value), SQLITE_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment if moment.strftime(SQLITE_TIME) == value else None


def _computed(row: Any) -> str | None:  # noqa: ANN401 - an event's row
    at = _moment(row.at)
    try:
        detail = json.loads(row.detail, object_pairs_hook=_once)
    except (TypeError, ValueError, RecursionError):
        return None
    if at is None:
        return None
    return hash_of(row.id, row.sequence, row.event, at, row.status, detail, row.prev_hash)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A name that stands twice reads differently to different readers."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made
