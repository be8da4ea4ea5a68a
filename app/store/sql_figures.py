"""The cluster's figures, in a handful of indexed reads of one short transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, func, select

from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Protection, Scope, Side
from app.domain.status import Status
from app.service.audit_check import BROKEN, VERIFY_JOB
from app.service.caps import caps_of
from app.service.figures import (
    CapUse,
    Figures,
    JobFigure,
    OrderCount,
    Slip,
    has_no_stop,
    is_near,
    slips_of,
)
from app.service.heartbeat import Watched, is_missing
from app.service.records import NO_LIMIT, Cap
from app.store.engine import Database
from app.store.sql_deliveries import SENDING, WAITING
from app.store.sql_exposure import open_now
from app.store.sql_orders import of_scope
from app.store.sql_transaction import SqlTransaction
from app.store.tables import IS_FILLED, IS_OPEN, caps, orders
from app.store.tables_notices import NOT_SPREAD, deliveries, heartbeats, job_runs, notices

MOST_GROUPS = 2_000
"""Of the day's orders by state, product and strategy; what lies beyond is left out of the strategies alone."""
MOST_FILLS = 5_000


def figures(database: Database, scope: Scope, limits: Limits, deadline: Deadline) -> Figures:
    """Raises StoreUnavailable."""
    with database.read(deadline) as connection:
        now = database.now(connection)
        tx = SqlTransaction(connection, now, writing=False)
        doubts, oldest, unaccounted, review, pending = _open(connection, scope, now)
        began = tx.last_pass(scope)
        slips, elsewhere = _slips(connection, scope, now)
        return Figures(
            orders=_counts(connection, scope, now),
            in_doubt=doubts,
            oldest_doubt_s=oldest,
            unaccounted=unaccounted,
            needs_review=review,
            exit_pending=pending,
            unprotected=_unprotected(connection, tx, scope),
            trading_state=tx.trading_state(scope).value,
            last_pass_s=(now - began).total_seconds() if began is not None else None,
            caps=_caps(connection, scope, _limited(caps_of(limits, now, Decimal(0), 0)))
            + _open_caps(connection, scope, limits, now),
            slips=slips,
            signals_elsewhere=elsewhere,
            heartbeats_missing=_missing(connection, scope, now),
            oldest_page_waiting_s=_page_waits(connection, scope, now),
            jobs=_jobs(connection, scope, now),
            audit_broken=_audit_broken(connection, scope),
        )


def _counts(connection: Connection, scope: Scope, now: datetime) -> tuple[OrderCount, ...]:
    c = orders.c
    query = (
        select(c.status, c.product, c.strategy, func.count())
        .where(of_scope(orders, scope), c.ist_date == ist_date(now))
        .group_by(c.status, c.product, c.strategy)
        .order_by(func.count().desc(), c.strategy)
        .limit(MOST_GROUPS)
    )
    return tuple(OrderCount(*row) for row in connection.execute(query))


def _open(connection: Connection, scope: Scope, now: datetime) -> tuple[int, float | None, int, int, int]:
    c = orders.c
    query = select(c.status, c.answer_by, c.sent_at, c.created_at).where(of_scope(orders, scope), IS_OPEN)
    rows = connection.execute(query).all()
    doubts = [row.sent_at or row.created_at for row in rows if row.status == Status.IN_DOUBT.value]
    lost = [
        r for r in rows if r.status == Status.SENDING.value and r.answer_by is not None and r.answer_by < now
    ]
    return (
        len(doubts),
        (now - min(doubts)).total_seconds() if doubts else None,
        len(lost),
        sum(row.status == Status.NEEDS_REVIEW.value for row in rows),
        sum(row.status == Status.EXIT_PENDING.value for row in rows),
    )


def _unprotected(connection: Connection, tx: SqlTransaction, scope: Scope) -> int:
    c = orders.c
    missing = select(c.client, c.ticker, c.product).distinct()
    missing = missing.where(of_scope(orders, scope), IS_FILLED, c.protection == Protection.MISSING.value)
    without = {(row.client, row.ticker, row.product) for row in connection.execute(missing)}
    if not without:
        return 0
    held = [h for h in tx.holdings(scope, None) if (h.client, h.ticker, h.product.value) in without]
    return sum(has_no_stop(h, tx.orders_in(scope, h.ticker, h.product)) for h in held)


def _limited(wanted: Sequence[Cap]) -> list[Cap]:
    return [cap for cap in wanted if cap.limit != NO_LIMIT]


def _caps(connection: Connection, scope: Scope, wanted: Sequence[Cap]) -> tuple[CapUse, ...]:
    if not wanted:
        return ()
    rows = connection.execute(
        select(caps.c.name, caps.c.window, caps.c.used).where(
            of_scope(caps, scope), caps.c.window.in_({cap.window for cap in wanted})
        )
    )
    used = {(row.name, row.window): row.used for row in rows}
    return tuple(CapUse(cap.name, used.get((cap.name, cap.window), 0), cap.limit) for cap in wanted)


def _open_caps(connection: Connection, scope: Scope, limits: Limits, now: datetime) -> tuple[CapUse, ...]:
    """Those that no counter has: their check adds up what is open."""
    limited = {"open_lots": limits.max_open_lots, "open_value": limits.max_open_value}
    if not any(limit is not None for limit in limited.values()):
        return ()
    used = zip(limited, open_now(connection, scope, now), strict=True)
    return tuple(CapUse(name, part, most) for name, part in used if (most := limited[name]) is not None)


def _slips(connection: Connection, scope: Scope, now: datetime) -> tuple[tuple[Slip, ...], int]:
    """The slips of the day's fills, and how many signals had a price of another instrument."""
    c = orders.c
    query = (
        select(c.product, c.purpose, c.side, c.signal_price, c.ltp, c.fill_price)
        .where(of_scope(orders, scope), c.ist_date == ist_date(now), IS_FILLED)
        .where(c.fill_price.is_not(None))
        .limit(MOST_FILLS)
    )
    slips: list[Slip] = []
    elsewhere = 0
    for row in connection.execute(query):
        if row.fill_price > 0:
            sign = Side(row.side).sign
            slips += slips_of(row.product, row.purpose, sign, row.signal_price, row.ltp, row.fill_price)
            elsewhere += row.signal_price is not None and not is_near(row.signal_price, row.fill_price)
    return tuple(slips), elsewhere


def _missing(connection: Connection, scope: Scope, now: datetime) -> int:
    b = heartbeats.c
    query = select(b.client, b.strategy, b.every_seconds, b.last_at, b.missing_since)
    rows = connection.execute(query.where(of_scope(heartbeats, scope)))
    return sum(is_missing(Watched(*row), now) for row in rows)


def _page_waits(connection: Connection, scope: Scope, now: datetime) -> float:
    """Handed to a channel, still waiting for one, or not looked at yet by the job that knows who wants it: while that one
    is stuck no page goes anywhere. What it found no channel to want is nobody's failure.
    """
    n, d = notices.c, deliveries.c
    oldest = select(func.min(n.at)).where(of_scope(notices, scope), n.page)
    handed = oldest.join(deliveries, d.notice_id == n.id).where(d.state.in_([WAITING, SENDING]))
    found = [connection.execute(query).scalar() for query in (handed, oldest.where(NOT_SPREAD))]
    return max(((now - at).total_seconds() for at in found if at is not None), default=0.0)


def _jobs(connection: Connection, scope: Scope, now: datetime) -> tuple[JobFigure, ...]:
    r = job_runs.c
    query = select(r.name, r.ok, r.last_success_at).where(of_scope(job_runs, scope))
    # A host that is gone leaves its row behind: the freshest one speaks for the job.
    by_age = query.order_by(r.name, r.last_success_at.desc().nulls_last())
    found: dict[str, JobFigure] = {}
    for row in connection.execute(by_age):
        age = (now - row.last_success_at).total_seconds() if row.last_success_at is not None else None
        found.setdefault(row.name, JobFigure(row.name, row.ok is False, age))
    return tuple(found.values())


def _audit_broken(connection: Connection, scope: Scope) -> bool:
    """By the job's last word: a run that failed for another reason leaves it standing (SqlJobRuns.end)."""
    r = job_runs.c
    query = select(r.result).where(of_scope(job_runs, scope), r.name == VERIFY_JOB, r.ok.is_(False))
    return any(str(result).startswith(BROKEN) for result in connection.execute(query).scalars())
