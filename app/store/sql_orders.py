"""Order rows, their events, and what is held by them. Every change locks the row and appends to its chain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from app.domain.alert import IST, Product
from app.domain.audit import Event
from app.domain.order import Order, Scope, Side
from app.domain.status import Status
from app.service.holding import bare
from app.service.records import AuditEvent, Holding
from app.store.prepared import Prepared
from app.store.sql_rows import FIRST_HASH, chained, event_from, order_from, order_values
from app.store.tables import (
    AT_BROKER,
    HAS_LEFT,
    IS_FILLED,
    IS_OPEN,
    OPEN,
    holding_adjustments,
    order_events,
    orders,
)

IDS_AT_ONCE = 500
"""Both databases bound the number of values in one statement; a book has hundreds of rows at most."""

_c = orders.c


def of_scope(table: Any, scope: Scope) -> ColumnElement[bool]:  # noqa: ANN401 - any table with the two columns
    return and_(table.c.mode == scope.mode.value, table.c.account == scope.account)


def in_scope(table: Any) -> ColumnElement[bool]:  # noqa: ANN401 - any table with the two columns
    """The same with bound names, for statements that are built once; `scoped` fills them."""
    return and_(table.c.mode == bindparam("in_mode"), table.c.account == bindparam("in_account"))


def scoped(scope: Scope) -> dict[str, Any]:
    return {"in_mode": scope.mode.value, "in_account": scope.account}


_INSERT = Prepared(insert(orders))
_ADD_EVENT = Prepared(insert(order_events))
_EVENT_CTE = (
    insert(order_events).values({c: bindparam(f"event_{c.name}") for c in order_events.c}).cte("event")
)
"""Postgres takes an event and what it happened to in one statement; SQLite, where a statement costs no way, in two."""
_INSERT_WITH_EVENT = Prepared(
    insert(orders).values({c: bindparam(f"order_{c.name}") for c in orders.c}).add_cte(_EVENT_CTE)
)


def upsert(connection: Connection) -> type[postgresql.Insert | sqlite.Insert]:
    """INSERT … ON CONFLICT: the same words on both, in two classes."""
    return sqlite.Insert if connection.dialect.name == "sqlite" else postgresql.Insert


_NEW_HEAD = update(orders).where(_c.id == bindparam("order")).values(head_hash=bindparam("head"))
_SET_HEAD, _SET_HEAD_WITH_EVENT = Prepared(_NEW_HEAD), Prepared(_NEW_HEAD.add_cte(_EVENT_CTE))
# The columns to set are the names of the values that come with the call.
_ONE = (
    update(orders)
    .where(_c.id == bindparam("in_id"), in_scope(orders))
    .values(event_count=_c.event_count + 1)
    .returning(orders)
)
_RECORD = Prepared(_ONE)
_MOVE = Prepared(_ONE.where(_c.status == bindparam("before"), _c.attempt == bindparam("of_attempt")))
_RESTART = Prepared(_ONE.where(_c.status == bindparam("before"), _c.attempt <= bindparam("of_attempt")))
_BY_ID = select(orders).where(_c.id == bindparam("in_id"), in_scope(orders))
_FIND, _FIND_LOCKED = Prepared(_BY_ID), Prepared(_BY_ID.with_for_update())


_FIND_TAG = Prepared(select(_c.id).where(_c.tag == bindparam("in_tag"), in_scope(orders)))


def insert_order(connection: Connection, order: Order, event: AuditEvent) -> None:
    first = chained(order.id, 1, event, FIRST_HASH)
    values = order_values(order)
    values["event_count"], values["head_hash"] = 1, first["hash"]
    values["created_at"] = order.created_at or event.at
    values["updated_at"] = order.updated_at or event.at
    if connection.dialect.name == "sqlite":
        _INSERT.all(connection, values)
        _ADD_EVENT.all(connection, first)
    else:
        row = {f"order_{c.name}": values.get(c.name) for c in orders.c}
        _INSERT_WITH_EVENT.all(connection, row | _event_values(first))


def move(connection: Connection, order: Order, values: dict[str, Any], event: AuditEvent) -> Order | None:
    """From exactly the state and attempt of `order`. None: the row is no longer there."""
    fits = {"before": order.status.value, "of_attempt": order.attempt}
    return _change(connection, _MOVE, order, values | fits, event)


def restart(
    connection: Connection, order: Order, values: dict[str, Any], event: AuditEvent, before: Status
) -> Order | None:
    # A waiting exit has sent nothing under its attempt yet, so that its first send may keep the number.
    last = order.attempt if before is Status.EXIT_PENDING else order.attempt - 1
    return _change(connection, _RESTART, order, values | {"before": before.value, "of_attempt": last}, event)


def record(connection: Connection, order: Order, values: dict[str, Any], event: AuditEvent) -> Order | None:
    return _change(connection, _RECORD, order, values, event)


def _change(
    connection: Connection, statement: Prepared, order: Order, values: dict[str, Any], event: AuditEvent
) -> Order | None:
    """One conditional UPDATE of one row and its event. None: no row fits the condition any more."""
    place = {"in_id": order.id, **scoped(order.scope)}
    row = statement.one_or_none(connection, values | place)
    if row is None:
        return None
    if event.status is not None:  # of a caller whose reading of the row may be an old one
        event = replace(event, status=Status(row.status))
    added = chained(row.id, row.event_count, event, row.head_hash)
    head = {"order": row.id, "head": added["hash"]}
    if connection.dialect.name == "sqlite":
        _ADD_EVENT.all(connection, added)
        _SET_HEAD.all(connection, head)
    else:
        _SET_HEAD_WITH_EVENT.all(connection, head | _event_values(added))
    return order_from(row)


def _event_values(event: dict[str, Any]) -> dict[str, Any]:
    return {f"event_{name}": value for name, value in event.items()}


def find(connection: Connection, scope: Scope, order_id: str, *, lock: bool) -> Order | None:
    if "\0" in order_id:  # Postgres takes none in a value, and no order has one
        return None
    place = {"in_id": order_id, **scoped(scope)}
    row = (_FIND_LOCKED if lock else _FIND).one_or_none(connection, place)
    return None if row is None else order_from(row)


@cache
def _open_query(*, client: bool, ticker: bool, side: bool) -> Prepared:
    wanted = select(orders).where(in_scope(orders), IS_OPEN)
    for column, given in ((_c.client, client), (_c.ticker, ticker), (_c.side, side)):
        if given:
            wanted = wanted.where(column == bindparam(f"in_{column.name}"))
    return Prepared(wanted)


def open_orders(
    connection: Connection, scope: Scope, client: str | None, ticker: str | None, side: Side | None
) -> tuple[Order, ...]:
    query = _open_query(client=client is not None, ticker=ticker is not None, side=side is not None)
    given = {"in_client": client, "in_ticker": ticker, "in_side": side and side.value}
    values = scoped(scope) | {name: value for name, value in given.items() if value is not None}
    # Sorted here: an ORDER BY makes SQLite walk all of history in order rather than sort the few open rows.
    rows = sorted(query.all(connection, values), key=lambda row: (row.created_at, row.id))
    return tuple(order_from(row) for row in rows)


def orders_in(connection: Connection, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
    """Of those that may be at the broker. EXPIRED without his id is a NOT_SENT row that nobody asked for again."""
    return _oldest_first(
        connection,
        of_scope(orders, scope),
        HAS_LEFT,
        _c.ticker == ticker,
        _c.product == product.value,
        _c.status != Status.EXIT_PENDING.value,
        or_(_c.status != Status.EXPIRED.value, _c.broker_order_id.is_not(None)),
    )


def find_tag(connection: Connection, scope: Scope, tag: str) -> Order | None:
    """Our tags are upper case from the start (`tag_of`), so that the unique index serves."""
    found = _FIND_TAG.one_or_none(connection, scoped(scope) | {"in_tag": tag.upper()})
    return None if found is None else find(connection, scope, found.id, lock=False)


def known_at_broker(connection: Connection, scope: Scope, ids: Collection[str]) -> frozenset[str]:
    wanted, known = sorted({*ids, *map(bare, ids)}), set[str]()
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = _c.broker_order_id.in_(wanted[start : start + IDS_AT_ONCE])
        query = select(_c.broker_order_id).where(of_scope(orders, scope), AT_BROKER, some)
        known.update(connection.execute(query).scalars())
    return frozenset(i for i in ids if i in known or bare(i) in known)


def orders_on(
    connection: Connection, scope: Scope, day: date, statuses: Collection[Status] | None
) -> tuple[Order, ...]:
    where = [of_scope(orders, scope), _c.ist_date == day]
    if statuses is not None:
        where.append(_c.status.in_(_words(statuses)))
    return _oldest_first(connection, *where)


def orders_before(
    connection: Connection, scope: Scope, day: date, statuses: Collection[Status]
) -> tuple[Order, ...]:
    """Open orders are few and have their own index; the days before are all of history."""
    words = _words(statuses)
    if set(words) <= set(OPEN):
        found = open_orders(connection, scope, None, None, None)
        return tuple(o for o in found if o.ist_date < day and o.status in statuses)
    return _oldest_first(connection, of_scope(orders, scope), _c.ist_date < day, _c.status.in_(words))


def _words(statuses: Collection[Status]) -> list[str]:
    return sorted(s.value for s in statuses)


def _oldest_first(connection: Connection, *where: ColumnElement[bool] | TextClause) -> tuple[Order, ...]:
    rows = connection.execute(select(orders).where(*where).order_by(_c.created_at, _c.id))
    return tuple(order_from(row) for row in rows)


@cache
def _holdings_query(*, client: bool, before: bool) -> Prepared:
    a = holding_adjustments.c
    signed = case((_c.side == Side.BUY.value, _c.filled_quantity), else_=-_c.filled_quantity)
    filled = select(_c.client, _c.ticker, _c.product, signed.label("net")).where(in_scope(orders), IS_FILLED)
    adjusted = select(a.client, a.ticker, a.product, a.delta.label("net")).where(
        in_scope(holding_adjustments)
    )
    if client:
        one: BindParameter[str] = bindparam("in_client")
        filled, adjusted = filled.where(_c.client == one), adjusted.where(a.client == one)
    if before:
        filled = filled.where(_c.ist_date < bindparam("before"))
        adjusted = adjusted.where(a.at < bindparam("began"))
    both = union_all(filled, adjusted).subquery()
    net = func.sum(both.c.net)
    names = (both.c.client, both.c.ticker, both.c.product)
    return Prepared(select(*names, net).group_by(*names).having(net != 0).order_by(*names))


def holdings(
    connection: Connection, scope: Scope, client: str | None, before: date | None
) -> tuple[Holding, ...]:
    """Fills by side, whatever the order's state (a cancelled one may have filled in part), and adjustments."""
    values = scoped(scope)
    if client is not None:
        values["in_client"] = client
    if before is not None:
        began = datetime(before.year, before.month, before.day, tzinfo=IST).astimezone(UTC)
        values |= {"before": before, "began": began}
    query = _holdings_query(client=client is not None, before=before is not None)
    return tuple(Holding(r[0], r[1], Product(r[2]), int(r[3])) for r in query.all(connection, values))


def adjusted(connection: Connection, scope: Scope, reasons: Sequence[str]) -> tuple[Holding, ...]:
    a, net = holding_adjustments.c, func.sum(holding_adjustments.c.delta)
    names = (a.client, a.ticker, a.product)
    wanted = select(*names, net).where(of_scope(holding_adjustments, scope), a.reason.in_(reasons))
    rows = connection.execute(wanted.group_by(*names).having(net != 0).order_by(*names))
    return tuple(Holding(row[0], row[1], Product(row[2]), int(row[3])) for row in rows)


def events_of(
    connection: Connection, scope: Scope, ids: Collection[str], kinds: Collection[Event]
) -> dict[str, tuple[AuditEvent, ...]]:
    wanted, words, found = sorted(set(ids)), sorted(kinds), dict[str, tuple[AuditEvent, ...]]()
    e = order_events.c
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = e.order_id.in_(wanted[start : start + IDS_AT_ONCE])
        query = select(order_events).join(orders, _c.id == e.order_id).where(of_scope(orders, scope), some)
        for row in connection.execute(query.where(e.event.in_(words)).order_by(e.order_id, e.sequence)):
            found[row.order_id] = (*found.get(row.order_id, ()), event_from(row))
    return found


def events(connection: Connection, scope: Scope, order_id: str) -> tuple[AuditEvent, ...]:
    wanted = (
        select(order_events)
        .join(orders, _c.id == order_events.c.order_id)
        .where(of_scope(orders, scope), _c.id == order_id)
        .order_by(order_events.c.sequence)
    )
    return tuple(event_from(row) for row in connection.execute(wanted))
