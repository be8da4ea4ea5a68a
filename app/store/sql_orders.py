"""Order rows, their events, and what is held by them. Every change locks the row and appends to its chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    TextClause,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql import ColumnElement

from app.domain.alert import IST, Product
from app.domain.order import Order, Scope, Side
from app.domain.status import Status
from app.service.records import AuditEvent, Holding
from app.store.sql_rows import FIRST_HASH, chained, event_from, order_from, order_values
from app.store.tables import AT_BROKER, IS_FILLED, IS_OPEN, holding_adjustments, order_events, orders

IDS_AT_ONCE = 500
"""Both databases bound the number of values in one statement; a book has hundreds of rows at most."""
NEVER_AT_BROKER = (Status.DENIED, Status.EXIT_PENDING, Status.NOT_SENT)

_c = orders.c


def of_scope(table: Any, scope: Scope) -> ColumnElement[bool]:  # noqa: ANN401 - any table with the two columns
    return and_(table.c.mode == scope.mode.value, table.c.account == scope.account)


def in_scope(table: Any) -> ColumnElement[bool]:  # noqa: ANN401 - any table with the two columns
    """The same with bound names, for statements that are built once; `scoped` fills them."""
    return and_(table.c.mode == bindparam("in_mode"), table.c.account == bindparam("in_account"))


def scoped(scope: Scope) -> dict[str, Any]:
    return {"in_mode": scope.mode.value, "in_account": scope.account}


_SET_HEAD = update(orders).where(_c.id == bindparam("order")).values(head_hash=bindparam("head"))
_ADD_EVENT = insert(order_events)


def insert_order(connection: Connection, order: Order, event: AuditEvent) -> None:
    first = chained(order.id, 1, event, FIRST_HASH)
    values = order_values(order) | {"event_count": 1, "head_hash": first["hash"]}
    values["created_at"] = order.created_at or event.at
    values["updated_at"] = order.updated_at or event.at
    connection.execute(insert(orders), values)
    connection.execute(_ADD_EVENT, first)


def change_order(
    connection: Connection, where: ColumnElement[bool], values: Mapping[str, Any], event: AuditEvent
) -> Order | None:
    """One conditional UPDATE of one row and its event. None: no row fits the condition any more."""
    changed = update(orders).where(where).values(**values, event_count=_c.event_count + 1).returning(orders)
    row = connection.execute(changed).one_or_none()
    if row is None:
        return None
    added = chained(row.id, row.event_count, event, row.head_hash)
    connection.execute(_ADD_EVENT, added)
    connection.execute(_SET_HEAD, {"order": row.id, "head": added["hash"]})
    return order_from(row)


def find(connection: Connection, scope: Scope, order_id: str, *, lock: bool) -> Order | None:
    wanted = select(orders).where(_c.id == order_id, of_scope(orders, scope))
    row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
    return None if row is None else order_from(row)


def open_orders(
    connection: Connection, scope: Scope, client: str | None, ticker: str | None, side: Side | None
) -> tuple[Order, ...]:
    where: list[ColumnElement[bool] | TextClause] = [of_scope(orders, scope), IS_OPEN]
    if client is not None:
        where.append(_c.client == client)
    if ticker is not None:
        where.append(_c.ticker == ticker)
    if side is not None:
        where.append(_c.side == side.value)
    return _oldest_first(connection, *where)


def orders_in(connection: Connection, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
    """EXPIRED without a broker's id is a NOT_SENT row that nobody asked for again."""
    return _oldest_first(
        connection,
        of_scope(orders, scope),
        _c.ticker == ticker,
        _c.product == product.value,
        _c.status.not_in(NEVER_AT_BROKER),
        or_(_c.status != Status.EXPIRED.value, _c.broker_order_id.is_not(None)),
    )


def find_tag(connection: Connection, scope: Scope, tag: str) -> Order | None:
    """Our tags are upper case from the start (`tag_of`), so that the unique index serves."""
    row = connection.execute(
        select(orders).where(of_scope(orders, scope), _c.tag == tag.upper())
    ).one_or_none()
    return None if row is None else order_from(row)


def known_at_broker(connection: Connection, scope: Scope, ids: Collection[str]) -> frozenset[str]:
    wanted, known = sorted(set(ids)), set[str]()
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = wanted[start : start + IDS_AT_ONCE]
        query = select(_c.broker_order_id).where(
            of_scope(orders, scope), AT_BROKER, _c.broker_order_id.in_(some)
        )
        known.update(connection.execute(query).scalars())
    return frozenset(known)


def orders_by_day(
    connection: Connection, scope: Scope, day: ColumnElement[bool], statuses: Collection[Status] | None
) -> tuple[Order, ...]:
    where: list[ColumnElement[bool] | TextClause] = [of_scope(orders, scope), day]
    if statuses is not None:
        where.append(_c.status.in_(sorted(s.value for s in statuses)))
    return _oldest_first(connection, *where)


def _oldest_first(connection: Connection, *where: ColumnElement[bool] | TextClause) -> tuple[Order, ...]:
    rows = connection.execute(select(orders).where(*where).order_by(_c.created_at, _c.id))
    return tuple(order_from(row) for row in rows)


def holdings(
    connection: Connection, scope: Scope, client: str | None, before: date | None
) -> tuple[Holding, ...]:
    """Fills by side, whatever the order's state (a cancelled one may have filled in part), and adjustments."""
    a = holding_adjustments.c
    signed = case((_c.side == Side.BUY.value, _c.filled_quantity), else_=-_c.filled_quantity)
    filled = select(_c.client, _c.ticker, _c.product, signed.label("net")).where(
        of_scope(orders, scope), IS_FILLED
    )
    adjusted = select(a.client, a.ticker, a.product, a.delta.label("net")).where(
        of_scope(holding_adjustments, scope)
    )
    if client is not None:
        filled, adjusted = filled.where(_c.client == client), adjusted.where(a.client == client)
    if before is not None:
        began = datetime(before.year, before.month, before.day, tzinfo=IST).astimezone(UTC)
        filled, adjusted = filled.where(_c.ist_date < before), adjusted.where(a.at < began)
    both = union_all(filled, adjusted).subquery()
    net = func.sum(both.c.net)
    names = (both.c.client, both.c.ticker, both.c.product)
    rows = connection.execute(select(*names, net).group_by(*names).having(net != 0).order_by(*names))
    return tuple(Holding(r[0], r[1], Product(r[2]), int(r[3])) for r in rows)


def events(connection: Connection, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]:
    wanted = (
        select(order_events)
        .join(orders, _c.id == order_events.c.order_id)
        .where(of_scope(orders, scope), _c.id == order_id)
        .order_by(order_events.c.sequence)
    )
    return tuple(event_from(row) for row in connection.execute(wanted))


def verify_chain(connection: Connection, order_id: str) -> bool:
    """Whether the order's events are all there and as they were written."""
    head = connection.execute(select(_c.event_count, _c.head_hash).where(_c.id == order_id)).one_or_none()
    wanted = select(order_events).where(order_events.c.order_id == order_id).order_by(order_events.c.sequence)
    previous, count = FIRST_HASH, 0
    for count, row in enumerate(connection.execute(wanted), start=1):
        if row.sequence != count or row.prev_hash != previous:
            return False
        if chained(order_id, count, event_from(row), previous)["hash"] != row.hash:
            return False
        previous = row.hash
    return head is not None and (head.event_count, head.head_hash) == (count, previous)
