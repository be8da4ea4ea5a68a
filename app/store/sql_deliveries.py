"""Deliveries of notices to channels: spread, claimed as grouped parcels, settled. Runs inside the caller's transaction,
under the sender's lease, so that there is one claimer at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, update

from app.domain.order import Scope
from app.service.notices import NO_SOONER, Channel, Parcel, body_of, going_to
from app.store.sql_orders import of_scope, upsert
from app.store.tables import locks, orders
from app.store.tables_config import preferences
from app.store.tables_notices import deliveries, notices

WAITING, SENDING, SENT, GONE = "waiting", "sending", "sent", "gone"
AT_ONCE = 500
LOST_AFTER = timedelta(seconds=60)
"""A claimed parcel without an answer: its sender, or the child that sends, has died."""
KEEP_NOTE = timedelta(hours=6)
KEEP_PAGE = timedelta(days=3)
"""How long a channel that does not answer is tried."""
FIRST_RETRY_S, LONGEST_RETRY_S = 5, 120
AHEAD = timedelta(seconds=10)
"""A transaction is bounded in seconds: what is further ahead of its time is of a clock that has been set back since."""
UNSERVED_AFTER = timedelta(minutes=2)
"""Due for so long while nothing goes to the channel: no instance that runs knows it. One that does tries it within
seconds, or after what it sends there before: LOST_AFTER at most."""
FOR_PAGES = 4
"""One in so many places of a channel's minute is kept free for pages."""
SENDER = "sender:"
"""Names the lease of each owner of claims. The job's lease ends with a pass; the child goes on sending after it."""
d, n = deliveries.c, notices.c


def set_right(connection: Connection, at: datetime) -> None:
    """What a clock that was ahead has said to be tried, or to be on its way, is so now: its channel would wait for it. Of
    every scope, because a channel that fails keeps the longest pause of all that wait for it.
    """
    waiting = and_(d.state == WAITING, d.next_at > at + timedelta(seconds=LONGEST_RETRY_S) + AHEAD)
    connection.execute(update(deliveries).where(waiting).values(next_at=at))
    sending = and_(d.state == SENDING, d.changed_at > at + AHEAD)
    connection.execute(update(deliveries).where(sending).values(changed_at=at))


def readdress(connection: Connection, scope: Scope, channels: Sequence[Channel], at: datetime) -> None:
    """What waits for a channel that nobody serves any more: a page is spread anew, a note is gone. The row stays: should
    an instance with other channels send it there after all, it goes under the ref that it had.
    """
    if not channels:
        return
    going = (d.state.in_((SENDING, SENT)), d.changed_at.between(at - UNSERVED_AFTER, at + AHEAD))
    served = connection.execute(select(d.channel).where(ours(scope), *going).distinct()).scalars()
    unknown = d.channel.not_in({*served, *(c.id for c in channels)})
    unserved = and_(ours(scope), d.state == WAITING, unknown, d.next_at < at - UNSERVED_AFTER)
    ids = list(connection.execute(select(d.notice_id).where(unserved).distinct().limit(AT_ONCE)).scalars())
    if not ids:
        return
    gone = update(deliveries).where(unserved, d.notice_id.in_(ids))
    connection.execute(gone.values(state=GONE, changed_at=at))
    connection.execute(update(notices).where(n.id.in_(ids), n.page).values(spread_at=None))


def spread(connection: Connection, scope: Scope, channels: Sequence[Channel], at: datetime) -> None:
    """A delivery of each new notice for each channel that wants it, or that its order's client has chosen. When it is
    spread anew a channel that had it has had it, and one that it was taken from waits for it again.
    """
    whose = select(n.id, n.code, n.page, preferences.c.value.label("preferred")).select_from(
        notices.outerjoin(orders, orders.c.id == n.subject).outerjoin(
            preferences, preferences.c.client == orders.c.client
        )
    )
    new = whose.where(of_scope(notices, scope), n.spread_at.is_(None))
    rows = connection.execute(new.order_by(n.id).limit(AT_ONCE)).all()
    if not rows:
        return
    failing = select(d.channel, func.max(d.next_at)).where(d.state == WAITING, d.attempts > 0)
    paused = {row[0]: row[1] for row in connection.execute(failing.group_by(d.channel))}
    wanted = [
        {
            "notice_id": r.id,
            "channel": c.id,
            "state": WAITING,
            "attempts": 0,
            "next_at": max(at, paused.get(c.id, at)),
            "changed_at": at,
        }
        for r in rows
        for c in going_to(channels, r.code, (r.preferred or {}).get("channels", ()), page=r.page)
    ]
    if wanted:
        row = upsert(connection)(deliveries)
        again = {name: row.excluded[name] for name in ("state", "next_at", "changed_at")}
        keys = [d.notice_id, d.channel]
        row = row.on_conflict_do_update(index_elements=keys, set_=again, where=d.state == GONE)
        connection.execute(row, wanted)
    connection.execute(update(notices).where(n.id.in_([r.id for r in rows])).values(spread_at=at))


def ours(scope: Scope) -> ColumnElement[bool]:
    """Deliveries of this scope's notices: a paper fill that waits must not go out as live after a restart."""
    of_ours = exists().where(n.id == d.notice_id, of_scope(notices, scope))
    return of_ours.correlate(deliveries)


def keep(connection: Connection, owner: str, until: datetime) -> None:
    """Nobody takes over what `owner` has claimed before then."""
    lease = upsert(connection)(locks).values(name=SENDER + owner, owner=owner, expires_at=until)
    longer = {"expires_at": lease.excluded.expires_at}
    connection.execute(lease.on_conflict_do_update(index_elements=[locks.c.name], set_=longer))


def take_over(connection: Connection, scope: Scope, owner: str, at: datetime, done: Iterable[str]) -> None:
    """What a dead sender had claimed: sent, when its receipts say so; a page is sent again under the same ref, so that
    the reader can tell; a note is not, because once is enough and perhaps it went out.
    """
    leases = locks.c.name.startswith(SENDER)
    # Deleted first: a sender that comes late with its renewal waits for this row, and so for this transaction.
    connection.execute(delete(locks).where(leases, locks.c.expires_at <= at))
    dead = and_(d.owner != owner, d.owner.not_in(select(locks.c.owner).where(leases)))
    lost = and_(d.state == SENDING, ours(scope), or_(dead, d.changed_at < at - LOST_AFTER))
    refs = list(connection.execute(select(d.ref).where(lost).distinct()).scalars())
    if not refs:
        return
    sent = [ref for ref in refs if ref in set(done)]
    mark = update(deliveries).where(lost)
    connection.execute(mark.where(d.ref.in_(sent)).values(state=SENT, changed_at=at))
    pages = select(n.id).where(n.page)
    connection.execute(mark.where(d.notice_id.in_(pages)).values(state=WAITING, next_at=at, changed_at=at))
    connection.execute(mark.values(state=GONE, changed_at=at))


def give_up(connection: Connection, scope: Scope, at: datetime) -> None:
    """What has been tried for long enough, also for a channel that is no more."""
    too_old = select(n.id).where(or_(n.at < at - KEEP_PAGE, and_(n.at < at - KEEP_NOTE, ~n.page)))
    waiting = and_(ours(scope), d.state == WAITING, d.notice_id.in_(too_old))
    connection.execute(update(deliveries).where(waiting).values(state=GONE, changed_at=at))


def claim(connection: Connection, scope: Scope, channel: Channel, owner: str, at: datetime) -> list[Parcel]:
    """The parcels that may go to this channel now. One that it has in flight is waited for first. Its minute counts
    what every scope has sent there: the limit is the channel's own, and it does not know our scopes.
    """
    of_channel = d.channel == channel.id
    mine = and_(of_channel, ours(scope))
    if connection.execute(select(d.ref).where(mine, d.state == SENDING).limit(1)).first():
        return []
    waiting = and_(mine, d.state == WAITING)
    wanted = select(d.ref, n.id, n.code, n.message, n.page).join(notices, n.id == d.notice_id)
    due = wanted.where(waiting, d.next_at <= at).order_by(n.page.desc(), n.id).limit(AT_ONCE)
    rows: list[Any] = list(connection.execute(due))
    if not rows:
        return []
    recent = (d.state == SENT, d.changed_at > at - NO_SOONER, d.changed_at < at + AHEAD)
    minute = select(func.count(func.distinct(d.ref))).where(of_channel, *recent)
    left = channel.per_minute - connection.execute(minute).scalar_one()
    codes = select(n.code).join(deliveries, d.notice_id == n.id).where(mine, *recent, ~n.page)
    silent = set(connection.execute(codes.distinct()).scalars())
    parcels = []
    for ref, group in _groups(rows):
        first = group[0]
        keep_free = 0 if first.page else channel.per_minute // FOR_PAGES
        if left <= keep_free or (not first.page and ref is None and first.code in silent):
            continue
        left -= 1
        sent_as = ref or secrets.token_hex(6)
        taken = connection.execute(
            update(deliveries)
            # Still waiting: a sender that was taken over may have told of it since the look above.
            .where(of_channel, d.notice_id.in_([r.id for r in group]), d.state == WAITING)
            .values(state=SENDING, ref=sent_as, owner=owner, changed_at=at)
            .returning(d.notice_id)
        )
        ours_now = set(taken.scalars())
        if kept := [row for row in group if row.id in ours_now]:
            parcels.append(_parcel(sent_as, channel, kept))
    return parcels


def _groups(rows: Sequence[Row[Any]]) -> Iterator[tuple[str | None, list[Row[Any]]]]:
    """What is sent again as it was; the rest by code, pages first."""
    ordered = sorted(rows, key=lambda r: (not r.page, r.ref or "", r.code, r.id))
    for (_, ref, _code), group in groupby(ordered, key=lambda r: (r.page, r.ref, "" if r.ref else r.code)):
        yield ref, list(group)


def _parcel(ref: str, channel: Channel, group: Sequence[Row[Any]]) -> Parcel:
    first = group[0]
    title = f"{'PAGE ' if first.page else ''}{first.code}"
    if len(group) > 1:
        title += f" x{len(group)}"
    body = f"{body_of([r.message for r in group])}\n(ref {ref})"
    return Parcel(ref, channel.id, title, body, first.page)


def settle(connection: Connection, owner: str, ref: str, channel: str, at: datetime, *, sent: bool) -> None:
    """A channel that fails is left alone for a while, longer each time; no other one is touched."""
    this = and_(d.ref == ref, d.channel == channel)
    if sent:
        # Also of one that was taken from its channel meanwhile: the channel has had it.
        told = update(deliveries).where(this, d.state != SENT)
        connection.execute(told.values(state=SENT, changed_at=at))
        return
    mine = and_(this, d.state == SENDING, d.owner == owner)
    if connection.execute(select(d.ref).where(mine).limit(1)).first() is None:
        return
    tried = connection.execute(select(func.max(d.attempts)).where(mine)).scalar() or 0
    pause = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(tried, 10))
    again = at + timedelta(seconds=pause)
    # A younger one that fails beside older ones does not end their longer pause: it is the channel that is down.
    failing = and_(d.channel == channel, d.state == WAITING, d.attempts > 0)
    latest = connection.execute(select(func.max(d.next_at)).where(failing)).scalar()
    again = max(again, latest) if latest is not None else again
    values = {"state": WAITING, "attempts": d.attempts + 1, "next_at": again, "changed_at": at}
    connection.execute(update(deliveries).where(mine).values(values))
    others = and_(d.channel == channel, d.state == WAITING, d.next_at < again)
    connection.execute(update(deliveries).where(others).values(next_at=again))


def give_back(connection: Connection, owner: str, ref: str, channel: str, at: datetime) -> None:
    """One that was claimed and not begun waits again, no shorter than its channel is left alone."""
    failing = and_(d.channel == channel, d.state == WAITING, d.attempts > 0)
    paused = connection.execute(select(func.max(d.next_at)).where(failing)).scalar()
    mine = and_(d.ref == ref, d.channel == channel, d.state == SENDING, d.owner == owner)
    due = at if paused is None else max(at, paused)
    connection.execute(update(deliveries).where(mine).values(state=WAITING, next_at=due, changed_at=at))


def forget(connection: Connection, old: Any) -> None:  # noqa: ANN401 - a select of notice ids
    connection.execute(delete(deliveries).where(d.notice_id.in_(old)))
