"""service.notices.Outbox on SQLite and Postgres: notices, and from the audit trail to notices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import DBAPIError

from app.domain.contract import ist_date
from app.domain.order import Scope
from app.domain.risk import TradingState
from app.service.notices import (
    BY_WORDS,
    CLAIM_LEASE,
    HAPPENS_AGAIN,
    ONE_EVENT,
    SAME_PAGE,
    TOLD_BY_TRAIL,
    Channel,
    Notice,
    Parcel,
    from_event,
    from_state,
    key_before,
)
from app.service.records import AuditEvent, StateChange
from app.store import sql_deliveries
from app.store.engine import Database
from app.store.sql_deliveries import SENDING, WAITING
from app.store.sql_orders import of_scope, upsert
from app.store.sql_rows import event_from, order_from
from app.store.tables import order_events, orders, trading_state_history
from app.store.tables_notices import NOT_SPREAD, deliveries, notices, told_orders, told_up_to

OVERLAP = timedelta(minutes=10)
"""How far back each look begins before the last one's own beginning. A transaction is bounded in seconds, and a row
shows the time at which its transaction began: none can turn up behind this."""
FIRST_LOOK = timedelta(days=7)
"""What is older is told no more: shorter than KEEP, or what was told and then forgotten would be told again."""
TOO_OLD = timedelta(hours=24)
"""Nobody wants yesterday's fill after a night's outage. A page is told however old."""
STATES = 50
"""Newest changes of the trading state that are looked at; each is told once, by its key."""
KEEP = timedelta(days=30)
AT_ONCE = 500
MOVE_MARK_AFTER = timedelta(hours=1)
FIRST_START = "service"
n, h = notices.c, trading_state_history.c


class SqlOutbox:
    def __init__(self, database: Database, scope: Scope, lease: timedelta = CLAIM_LEASE) -> None:
        self._database, self._scope, self._lease = database, scope, lease
        self._name = f"{scope.mode.value}:{scope.account}"
        self._looked = False

    def join(self, notice: Notice) -> bool:
        connection = self._database.joinable
        if connection is None:
            return False
        try:
            # A savepoint: a notice that cannot be written must not take the order with it.
            with connection.begin_nested():
                self._add(connection, [notice], self._database.now(connection))
        except (DBAPIError, self._database.driver_error):
            return False
        return True

    def add(self, notice: Notice) -> None:
        with self._database.write() as connection:
            self._add(connection, [notice], self._database.now(connection))

    def is_idle(self, now: datetime) -> bool:
        u, d = told_up_to.c, deliveries.c
        with self._database.read() as connection:
            at = self._database.now(connection)
            last = connection.execute(select(u.at).where(of_scope(told_up_to, self._scope))).scalar()
            if last is None or not self._looked:
                return False
            # Idle looks leave the mark where it is, so that the window grows; once an hour it is moved. One that lies
            # ahead is of a clock that has been set back: what is new is older than it.
            if not timedelta(0) <= at - last <= MOVE_MARK_AFTER:
                return False
            busy = (
                self._untold(now, last - OVERLAP).limit(1),
                select(n.id).where(of_scope(notices, self._scope), NOT_SPREAD).limit(1),
                select(d.ref)
                .where(d.state.in_((WAITING, SENDING)), sql_deliveries.ours(self._scope))
                .limit(1),
            )
            if any(connection.execute(query).first() for query in busy):
                return False
            return not self._states(connection, at)

    def derive(self, now: datetime) -> int:
        with self._database.write() as connection:
            at = self._database.now(connection)
            began = self._began(connection, at)
            rows = connection.execute(self._untold(now, began)).all()
            made = self._of_orders(connection, rows, at) + self._states(connection, at)
            self._add(connection, made, at)
            # With more than one look can take, the next one must begin as far back as this one.
            seen_all = len(rows) < AT_ONCE
            if seen_all:
                self._moved_on(connection, at)
        self._looked = self._looked or seen_all
        return len(made)

    def hand_out(self, channels: Sequence[Channel], owner: str, done: Iterable[str]) -> list[Parcel]:
        with self._database.write() as connection:
            at = self._database.now(connection)
            sql_deliveries.set_right(connection, at)
            sql_deliveries.readdress(connection, self._scope, channels, at)
            sql_deliveries.spread(connection, self._scope, channels, at)
            sql_deliveries.take_over(connection, self._scope, owner, at, done)
            sql_deliveries.give_up(connection, self._scope, at)
            found = [p for c in channels for p in sql_deliveries.claim(connection, self._scope, c, owner, at)]
            if found:
                sql_deliveries.keep(connection, owner, at + self._lease)
        label = self._scope.mode.value.upper()
        return [replace(p, title=f"{label} {p.title}") for p in found]

    def renew(self, owner: str) -> None:
        with self._database.write() as connection:
            sql_deliveries.keep(connection, owner, self._database.now(connection) + self._lease)

    def settle(self, owner: str, ref: str, channel: str, *, sent: bool) -> None:
        with self._database.write() as connection:
            at = self._database.now(connection)
            sql_deliveries.settle(connection, owner, ref, channel, at, sent=sent)

    def give_back(self, owner: str, ref: str, channel: str) -> None:
        with self._database.write() as connection:
            sql_deliveries.give_back(connection, owner, ref, channel, self._database.now(connection))

    def purge(self) -> int:
        """Forget what is old, delivered or not. Returns how many."""
        with self._database.write() as connection:
            before = self._database.now(connection) - KEEP
            old = select(n.id).where(of_scope(notices, self._scope), n.at < before).limit(AT_ONCE * 10)
            sql_deliveries.forget(connection, old)
            return connection.execute(delete(notices).where(n.id.in_(old))).rowcount

    def _add(self, connection: Connection, new: Sequence[Notice], at: datetime) -> None:
        told = self._told_otherwise(connection, new) | self._told_lately(connection, new, at)
        rows = [
            {
                "mode": self._scope.mode.value,
                "account": self._scope.account,
                "key": self._key(notice.key),
                "code": notice.code,
                "subject": notice.subject,
                "message": notice.message,
                "page": notice.page,
                "at": at,
            }
            for notice in new
            if notice.key not in told
        ]
        if rows:
            adding = upsert(connection)(notices).on_conflict_do_nothing(index_elements=[n.key])
            connection.execute(adding, rows)

    def _key(self, key: str) -> str:
        """What was seen has its words for a key, and another service on this database may say the very same."""
        kind, _, words = key.partition(":")
        return f"{kind}:{self._name}:{words}" if kind == BY_WORDS else key

    def _told_otherwise(self, connection: Connection, new: Sequence[Notice]) -> set[str]:
        """Keys of those that the other of the two has told first: the words of whoever saw it, or the trail."""
        twice = [notice for notice in new if notice.code in TOLD_BY_TRAIL and notice.subject]
        if not twice:
            return set()
        wanted = select(n.subject, n.code, n.key, n.at).where(n.subject.in_({x.subject for x in twice}))
        before: dict[tuple[str, str], list[tuple[str, datetime]]] = {}
        for subject, code, key, at in connection.execute(wanted):
            before.setdefault((subject, code), []).append((_kind(key), at))
        return {
            x.key
            for x in twice
            if any(
                kind != _kind(x.key) and _is_one_event(x, at)
                for kind, at in before.get((x.subject, x.code), ())
            )
        }

    def _told_lately(self, connection: Connection, new: Sequence[Notice], at: datetime) -> set[str]:
        """Keys of pages whose very words were told in the slot before this one, and within SAME_PAGE."""
        keys = {self._key(key): notice.key for notice in new if (key := key_before(notice)) is not None}
        if not keys:
            return set()
        lately = select(n.key).where(n.key.in_(keys), n.at > at - SAME_PAGE)
        return {keys[key] for key in connection.execute(lately).scalars()}

    def _began(self, connection: Connection, at: datetime) -> datetime:
        u = told_up_to.c
        last = connection.execute(
            select(u.at).where(of_scope(told_up_to, self._scope)).with_for_update()
        ).scalar()
        # The first look of a process goes further back, in case clocks were set meanwhile, and so does one whose mark
        # lies ahead: they were.
        return at - FIRST_LOOK if last is None or last > at or not self._looked else last - OVERLAP

    def _moved_on(self, connection: Connection, at: datetime) -> None:
        row = upsert(connection)(told_up_to).values(
            mode=self._scope.mode.value, account=self._scope.account, at=at
        )
        keys = [told_up_to.c.mode, told_up_to.c.account]
        connection.execute(row.on_conflict_do_update(index_elements=keys, set_={"at": row.excluded.at}))

    def _untold(self, now: datetime, began: datetime) -> Any:  # noqa: ANN401 - a select of two tables
        """Orders with more events than have been told. An order's events are numbered without a gap, so that it
        does not matter in which order transactions commit.
        """
        c, t = orders.c, told_orders.c
        since = ist_date(now) - FIRST_LOOK
        return (
            select(orders, func.coalesce(t.sequence, 0).label("told"))
            .outerjoin(told_orders, t.order_id == c.id)
            .where(
                of_scope(orders, self._scope),
                c.ist_date >= since,
                c.updated_at >= began,
                c.event_count > func.coalesce(t.sequence, 0),
            )
            .order_by(c.updated_at, c.id)
            .limit(AT_ONCE)
        )

    def _of_orders(self, connection: Connection, rows: Sequence[Any], at: datetime) -> list[Notice]:
        """What the rows of `_untold` have to tell, oldest change first. One look at the events of all: hundreds of
        looks would keep every order waiting for this transaction.
        """
        if not rows:
            return []
        e = order_events.c
        new = e.order_id.in_([row.id for row in rows]), e.sequence > min(row.told for row in rows)
        events: dict[str, list[AuditEvent]] = {row.id: [] for row in rows}
        for found in connection.execute(select(order_events).where(*new).order_by(e.order_id, e.sequence)):
            events[found.order_id].append(event_from(found))
        mark = upsert(connection)(told_orders)
        mark = mark.on_conflict_do_update(
            index_elements=[told_orders.c.order_id], set_={"sequence": mark.excluded.sequence}
        )
        connection.execute(mark, [{"order_id": row.id, "sequence": row.event_count} for row in rows])
        made = [
            (from_event(order, event), event.at)
            for row in rows
            for order in [order_from(row)]
            for event in events[row.id]
            if row.told < event.sequence <= row.event_count
        ]
        return [notice for notice, when in made if notice and (notice.page or when > at - TOO_OLD)]

    def _states(self, connection: Connection, at: datetime) -> list[Notice]:
        of_ours = of_scope(trading_state_history, self._scope)
        newest = (
            select(trading_state_history)
            .where(of_ours, h.changed_by != FIRST_START, h.changed_at > at - FIRST_LOOK)
            .order_by(h.id.desc())
            .limit(STATES)
        )
        rows = connection.execute(newest).all()
        told = select(n.key).where(n.key.in_([f"state:{self._name}:{r.id}" for r in rows]))
        known = set(connection.execute(told).scalars()) if rows else set()
        return [
            notice
            for r in reversed(rows)
            for notice in [
                from_state(
                    r.id, StateChange(TradingState(r.state), r.changed_by, r.reason, r.changed_at), self._name
                )
            ]
            if notice.key not in known
        ]


def _is_one_event(notice: Notice, at: datetime) -> bool:
    """Whether what was told at `at` was the same."""
    if notice.code not in HAPPENS_AGAIN or notice.happened_at is None:
        return True
    return abs(at - notice.happened_at) <= ONE_EVENT


def _kind(key: str) -> str:
    """Where a notice comes from: the first word of its key."""
    return key.partition(":")[0]
