"""What is open and under way in an account, in one statement: the risk checks ask for it at every entry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Integer,
    Row,
    Select,
    TextClause,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    text,
    union_all,
)

from app.domain.alert import ADMIN_CLIENT, Action, Product
from app.domain.order import Order, Purpose, Scope, Side
from app.domain.risk import Exposure
from app.domain.status import Status
from app.service.records import SENT_AGAIN_WITHIN, Stake
from app.store.column_types import UtcTime
from app.store.prepared import Prepared
from app.store.sql_orders import in_scope, scoped
from app.store.tables import HAS_LEFT, IS_FILLED, IS_OPEN, holding_adjustments, orders

_c = orders.c
_PAISA = Decimal("0.01")

_price = cast(func.coalesce(_c.fill_price, _c.ltp, 0), Float)
"""A limit is compared with it, nobody is paid by it: a float is exact enough, and both databases can sum it."""
_buys = case((_c.side == Side.BUY.value, _c.filled_quantity), else_=0)
_sells = case((_c.side == Side.SELL.value, _c.filled_quantity), else_=0)
_ENTRY = _c.purpose == Purpose.ENTRY.value
_waiting = _c.quantity - _c.filled_quantity

_a = holding_adjustments.c
_NONE, _NO_VALUE, _NEVER = cast(null(), BigInteger), cast(null(), Float), cast(null(), UtcTime)


def _sums(
    kind: str, *sums: ColumnElement[Any], where: tuple[ColumnElement[bool] | TextClause, ...]
) -> Select[Any]:
    """By contract and product, of all orders but the one that asks, in sessions that have not ended."""
    return (
        select(
            literal(kind).label("kind"),
            _c.ticker,
            _c.product,
            func.max(_c.lot).label("lot"),
            *sums,
            _NEVER.label("last"),
        )
        .where(in_scope(orders), *where, _c.session_end > bindparam("now"), _c.id != bindparam("self"))
        .group_by(_c.ticker, _c.product)
    )


_HELD = _sums(
    "held",
    cast(func.sum(_buys), BigInteger).label("bought"),
    func.sum(_buys * _price).label("paid"),
    cast(func.sum(_sells), BigInteger).label("sold"),
    func.sum(_sells * _price).label("got"),
    where=(IS_FILLED,),
)
_WAITING = _sums(
    "waiting",
    cast(func.sum(_waiting), BigInteger),
    func.sum(_waiting * _price),
    _NONE,
    _NO_VALUE,
    where=(IS_OPEN, _ENTRY),
)
_ADJUSTED = (
    select(
        literal("adjusted"),
        _a.ticker,
        _a.product,
        cast(null(), Integer),
        cast(func.sum(_a.delta), BigInteger),
        *(_NO_VALUE, _NONE, _NO_VALUE, _NEVER),
    )
    .where(in_scope(holding_adjustments))
    .group_by(_a.ticker, _a.product)
)
_LAST_SAME = (
    select(_c.created_at)
    .where(
        in_scope(orders),
        HAS_LEFT,
        _c.ticker == bindparam("ticker"),
        _c.client == bindparam("client"),
        _c.side == bindparam("side"),
        _ENTRY,
        _c.id != bindparam("self"),
    )
    .order_by(_c.created_at.desc())
    .limit(1)
)
"""Not max(): the first row from the index's end is enough."""
_TRIED = select(func.count()).where(
    in_scope(orders),
    _c.client == bindparam("client"),
    _c.strategy == bindparam("strategy"),
    _c.purpose == Purpose.ENTRY.value,
    _c.created_at > bindparam("since"),
    _c.id != bindparam("self"),
)
_BEFORE = select(
    literal("before"),
    literal(""),
    literal(""),
    cast(null(), Integer),
    cast(_TRIED.scalar_subquery(), BigInteger),
    *(_NO_VALUE, _NONE, _NO_VALUE),
    _LAST_SAME.scalar_subquery(),
)
_OPEN = Prepared(union_all(_HELD, _WAITING, _ADJUSTED))
_ALL = Prepared(union_all(_HELD, _WAITING, _ADJUSTED, _BEFORE))

_ONE_PLACE = (
    _c.client == bindparam("client"),
    _c.ticker == bindparam("ticker"),
    _c.product == bindparam("product"),
)
_STAKE = Prepared(
    select(
        select(func.coalesce(func.sum(_buys - _sells), 0))
        .where(in_scope(orders), IS_FILLED, *_ONE_PLACE)
        .scalar_subquery()
        + select(func.coalesce(func.sum(_a.delta), 0))
        .where(
            in_scope(holding_adjustments),
            _a.client == bindparam("client"),
            _a.ticker == bindparam("ticker"),
            _a.product == bindparam("product"),
        )
        .scalar_subquery(),
        *(
            select(_c.id)
            .where(in_scope(orders), IS_OPEN, _ENTRY, _c.side == side.value, *_ONE_PLACE)
            .exists()
            for side in Side
        ),
        *(
            select(_c.id)
            .where(in_scope(orders), _c.created_at > bindparam("since"), _ENTRY, _c.side == side.value)
            .where(_c.status == Status.NOT_SENT.value, *_ONE_PLACE)
            .exists()
            for side in Side
        ),
        select(_c.id)
        .where(in_scope(orders), IS_OPEN, _c.purpose == Purpose.EXIT.value, _c.client == ADMIN_CLIENT)
        .where(_c.ticker == bindparam("ticker"), _c.product == bindparam("product"))
        .exists(),
    )
)

_EXIT_SINCE = Prepared(
    select(_c.id)
    .where(in_scope(orders), _c.created_at > bindparam("since"), _c.purpose == Purpose.EXIT.value)
    .where(_c.ticker == bindparam("ticker"), _c.product == bindparam("product"))
    .where(or_(_c.client == bindparam("client"), _c.client == ADMIN_CLIENT))
    .where(
        or_(
            _c.action == Action.EXIT.value,
            and_(_c.side == bindparam("closing"), _c.status == Status.DENIED.value),
        )
    )
    .order_by(_c.created_at)
    .limit(1)
)

_ONE_AT_A_TIME = Prepared(
    text("SELECT clock_timestamp() AS now FROM pg_advisory_xact_lock(hashtextextended(:scope, 0))")
)
"""Two instances that read the same exposure and then both commit an entry would pass a limit together. A lock on the
trading state's row would do too, but then a halt would have to queue behind the entries that it is to stop."""


def entries_wait(connection: Connection, of: Scope) -> datetime | None:
    """Until this transaction ends no other reads the exposure in order to enter. The database's time after the wait for
    those before; None on SQLite, which has one writer anyway: he waits before his transaction begins.
    """
    if connection.dialect.name == "sqlite":
        return None
    scope = f"entries {of.mode} {of.account}"
    now: datetime = _ONE_AT_A_TIME.all(connection, {"scope": scope})[0].now
    return now.astimezone(UTC)


def stake(
    connection: Connection, scope: Scope, client: str, ticker: str, product: Product, now: datetime
) -> Stake:
    place = scoped(scope) | {"client": client, "ticker": ticker, "product": product.value}
    net, *some, operator = _STAKE.one_or_none(connection, place | {"since": now - SENT_AGAIN_WITHIN})
    entering, unsent = some[: len(Side)], some[len(Side) :]
    return Stake(int(net), _sides(entering), _sides(unsent), bool(operator))


def _sides(flags: Sequence[object]) -> frozenset[Side]:
    return frozenset(side for side, flag in zip(Side, flags, strict=True) if flag)


def exit_since(connection: Connection, order: Order, at: datetime) -> str | None:
    place = {"client": order.client, "ticker": order.ticker, "product": order.product.value}
    about = scoped(order.scope) | place | {"closing": order.side.opposite.value, "since": at}
    found = _EXIT_SINCE.one_or_none(connection, about)
    return None if found is None else str(found.id)


def tried(connection: Connection, order: Order, now: datetime, within: timedelta) -> int:
    about = scoped(order.scope) | {"self": order.id, "client": order.client, "strategy": order.strategy}
    return 1 + int(connection.execute(_TRIED, about | {"since": now - within}).scalar_one())


def exposure(connection: Connection, order: Order, now: datetime, runaway: timedelta | None) -> Exposure:
    """Of everything but `order` itself; `tried` counts it too. Contracts whose session has ended are settled.

    A holding is adjusted only where fills of ours stand in the same place (`position.look`, `takeover`).
    """
    about = scoped(order.scope) | {
        "self": order.id,
        "now": now,
        "ticker": order.ticker,
        "side": order.side.value,
        "client": order.client,
        "strategy": order.strategy,
        "since": now - (runaway or timedelta(0)),
    }
    rows = _ALL.all(connection, about)
    (before,) = (row for row in rows if row.kind == "before")
    lots, value = _open(rows)
    return Exposure(
        open_lots=lots,
        open_value=value,
        last_same=before.last,
        tried=1 if runaway is None else 1 + int(before.bought),
    )


def open_now(connection: Connection, scope: Scope, now: datetime) -> tuple[Decimal, Decimal]:
    """Lots and value of all that is open and under way: what the next entry's exposure begins with."""
    return _open(_OPEN.all(connection, scoped(scope) | {"self": "", "now": now}))


def _open(rows: Sequence[Row[Any]]) -> tuple[Decimal, Decimal]:
    """Lots and value of all that is open and under way."""
    adjusted = {(row.ticker, row.product): row.bought for row in rows if row.kind == "adjusted"}
    lots, value = Decimal(0), 0.0
    for row in (row for row in rows if row.kind == "held"):
        net = row.bought - row.sold + adjusted.get((row.ticker, row.product), 0)
        average = (
            (row.paid / row.bought if row.bought else 0.0)
            if net > 0
            else (row.got / row.sold if row.sold else 0.0)
        )
        lots += Decimal(abs(int(net))) / row.lot
        value += abs(int(net)) * float(average)
    for row in (row for row in rows if row.kind == "waiting"):
        lots += Decimal(int(row.bought)) / row.lot
        value += float(row.paid)
    return lots, Decimal(str(value)).quantize(_PAISA)
