"""service.heartbeat.Heartbeats on SQLite and Postgres."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from app.domain.alert import ADMIN_CLIENT
from app.domain.order import Scope
from app.service.heartbeat import Beat, Watched, missing_text
from app.service.ports import Notifier
from app.service.slo import SERVER_ERROR
from app.store.engine import Database
from app.store.sql_orders import of_scope, upsert
from app.store.tables import locks, orders, refusals
from app.store.tables_notices import heartbeats

LISTENS = "listens"
b, o, r = heartbeats.c, orders.c, refusals.c


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

    def listens(self, silence: timedelta) -> datetime:
        """A lease without a holder: what stands in the holder's place is the moment it was taken. One of a clock that was
        ahead counts as taken now.
        """
        name = f"{LISTENS}:{self._scope.mode.value}:{self._scope.account}"
        with self._database.write() as connection:
            now = self._database.now(connection)
            held = select(locks.c.owner).where(locks.c.name == name, locks.c.expires_at >= now)
            taken = connection.execute(held.with_for_update()).scalar()
            since = now if taken is None else min(now, datetime.fromisoformat(taken))
            values = {"owner": since.isoformat(), "expires_at": now + silence}
            lease = upsert(connection)(locks).values(name=name, **values)
            connection.execute(lease.on_conflict_do_update(index_elements=[locks.c.name], set_=values))
            return since

    def bursts(self, within: timedelta, more_than: int) -> tuple[tuple[str, str, int], ...]:
        alerts: Counter[tuple[str, str]] = Counter()
        with self._database.read() as connection:
            since = self._database.now(connection) - within
            taken = (
                select(o.client, o.strategy, func.count())
                .where(of_scope(orders, self._scope), o.created_at > since, o.client != ADMIN_CLIENT)
                .group_by(o.client, o.strategy)
            )
            for client, strategy, count in connection.execute(taken):
                alerts[client, strategy] += count
            refused = select(r.client, r.safe_fields).where(
                of_scope(refusals, self._scope),
                r.at > since,
                r.client.is_not(None),
                r.client != ADMIN_CLIENT,
                r.status < SERVER_ERROR,  # TradingView sends a 503 again: it has not fired for that
            )
            for client, fields in connection.execute(refused):
                if "strategy" in fields:
                    alerts[client, _name_in(fields["strategy"])] += 1
        return tuple((*whose, n) for whose, n in sorted(alerts.items()) if n > more_than)


def _name_in(shown: str) -> str:
    """A strategy as an order's row has it: the record shows a text in quotes. One that was cut, or has escapes, stays."""
    is_quoted = shown[:1] in ("'", '"') and shown[1:].endswith(shown[0]) and "\\" not in shown
    return shown[1:-1] if is_quoted else shown
