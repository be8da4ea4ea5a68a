"""service.heartbeat.Heartbeats on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from app.domain.order import Scope
from app.service.heartbeat import Beat, Watched, missing_text
from app.service.ports import Notifier
from app.store.engine import Database
from app.store.sql_orders import of_scope, upsert
from app.store.tables import orders
from app.store.tables_notices import heartbeats

b, o = heartbeats.c, orders.c


class SqlHeartbeats:
    def __init__(self, database: Database, scope: Scope) -> None:
        self._database, self._scope = database, scope

    def came(self, beat: Beat) -> bool:
        with self._database.write() as connection:
            now = self._database.now(connection)
            own = (of_scope(heartbeats, self._scope), b.client == beat.client, b.strategy == beat.strategy)
            row = connection.execute(select(b.missing_since).where(*own).with_for_update()).one_or_none()
            new = upsert(connection)(heartbeats).values(
                mode=self._scope.mode.value,
                account=self._scope.account,
                client=beat.client,
                strategy=beat.strategy,
                every_seconds=beat.every_seconds,
                last_at=now,
                missing_since=None,
            )
            changed = ("every_seconds", "last_at", "missing_since")
            new = new.on_conflict_do_update(
                index_elements=[b.mode, b.account, b.client, b.strategy],
                set_={name: new.excluded[name] for name in changed},
            )
            connection.execute(new)
            return row is not None and row.missing_since is not None

    def watched(self) -> tuple[Watched, ...]:
        wanted = select(b.client, b.strategy, b.every_seconds, b.last_at, b.missing_since)
        with self._database.read() as connection:
            rows = connection.execute(wanted.where(of_scope(heartbeats, self._scope)))
            return tuple(Watched(*row) for row in rows)

    def missed(self, ones: Sequence[Watched], tell: Notifier) -> int:
        with self._database.write() as connection:
            now = self._database.now(connection)
            marked = [one for one in ones if self._mark(connection, one, now)]
            if marked:
                tell.notify("heartbeat_missing", missing_text(marked), page=True)
            return len(marked)

    def _mark(self, connection: Connection, one: Watched, now: datetime) -> bool:
        mark = update(heartbeats).where(
            of_scope(heartbeats, self._scope),
            b.client == one.client,
            b.strategy == one.strategy,
            b.last_at == one.last_at,
            b.missing_since.is_(None),
        )
        return connection.execute(mark.values(missing_since=now)).rowcount == 1

    def bursts(self, within: timedelta, more_than: int) -> tuple[tuple[str, str, int], ...]:
        count = func.count()
        with self._database.read() as connection:
            since = self._database.now(connection) - within
            rows = connection.execute(
                select(o.client, o.strategy, count)
                .where(of_scope(orders, self._scope), o.created_at > since)
                .group_by(o.client, o.strategy)
                .having(count > more_than)
            )
            return tuple((row[0], row[1], row[2]) for row in rows)
