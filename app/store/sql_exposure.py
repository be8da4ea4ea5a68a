"""What is open and under way in an account, in one statement: the risk checks ask for it at every entry."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Integer,
    Row,
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

from app.domain.alert import Product
from app.domain.order import Order, Purpose, Scope, Side
from app.domain.risk import Exposure
from app.service.records import Stake
from app.store.column_types import UtcTime
from app.store.sql_orders import in_scope, scoped
from app.store.tables import IS_OPEN, holding_adjustments, orders

_c = orders.c
_PAISA = Decimal("0.01")

_price = cast(func.coalesce(_c.fill_price, _c.ltp, 0), Float)
"""A limit is compared with it, nobody is paid by it: a float is exact enough, and both databases can sum it."""
_buys = case((_c.side == Side.BUY.value, _c.filled_quantity), else_=0)
_sells = case((_c.side == Side.SELL.value, _c.filled_quantity), else_=0)
_ENTRY = _c.purpose == Purpose.ENTRY.value
_waiting = case((IS_OPEN & _ENTRY, _c.quantity - _c.filled_quantity), else_=0)

_a = holding_adjustments.c
_NONE, _NO_VALUE, _NEVER = cast(null(), BigInteger), cast(null(), Float), cast(null(), UtcTime)
_OPEN = (
    select(
        literal("open").label("kind"),
        _c.ticker,
        _c.product,
        func.max(_c.lot).label("lot"),
        cast(func.sum(_buys), BigInteger).label("bought"),
        func.sum(_buys * _price).label("paid"),
        cast(func.sum(_sells), BigInteger).label("sold"),
        func.sum(_sells * _price).label("got"),
        cast(func.sum(_waiting), BigInteger).label("waiting"),
        func.sum(_waiting * _price).label("worth"),
        _NEVER.label("last"),
    )
    .where(
        in_scope(orders),
        _c.session_end > bindparam("now"),
        _c.id != bindparam("self"),
        or_(_c.filled_quantity > 0, IS_OPEN),
    )
    .group_by(_c.ticker, _c.product)
)
_ADJUSTED = (
    select(
        literal("adjusted"),
        _a.ticker,
        _a.product,
        cast(null(), Integer),
        cast(func.sum(_a.delta), BigInteger),
        *(_NO_VALUE, _NONE, _NO_VALUE, _NONE, _NO_VALUE, _NEVER),
    )
    .where(in_scope(holding_adjustments))
    .group_by(_a.ticker, _a.product)
)
_LAST_SAME = select(func.max(_c.created_at)).where(
    in_scope(orders),
    _c.ticker == bindparam("ticker"),
    _c.side == bindparam("side"),
    _c.client == bindparam("client"),
    _c.purpose == Purpose.ENTRY.value,
    _c.status.not_in(("DENIED", "NOT_SENT")),
    _c.id != bindparam("self"),
)
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
    *(_NO_VALUE, _NONE, _NO_VALUE, _NONE, _NO_VALUE),
    _LAST_SAME.scalar_subquery(),
)
_ALL = union_all(_OPEN, _ADJUSTED, _BEFORE)

_STAKE = select(
    func.coalesce(func.sum(_buys - _sells), 0)
    + select(func.coalesce(func.sum(_a.delta), 0))
    .where(
        in_scope(holding_adjustments),
        _a.client == bindparam("client"),
        _a.ticker == bindparam("ticker"),
        _a.product == bindparam("product"),
    )
    .scalar_subquery(),
    *(
        func.coalesce(func.max(case((IS_OPEN & _ENTRY & (_c.side == side.value), 1), else_=0)), 0)
        for side in Side
    ),
).where(
    in_scope(orders),
    _c.client == bindparam("client"),
    _c.ticker == bindparam("ticker"),
    _c.product == bindparam("product"),
)

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))")
"""Two instances that read the same exposure and then both commit an entry would pass a limit together. A lock on the
trading state's row would do too, but then a halt would have to queue behind the entries that it is to stop."""


def entries_wait(connection: Connection, order: Order) -> None:
    """Until this transaction ends no other reads the exposure in order to enter. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(_ONE_AT_A_TIME, {"scope": f"entries {order.scope.mode} {order.scope.account}"})


def stake(connection: Connection, scope: Scope, client: str, ticker: str, product: Product) -> Stake:
    place = scoped(scope) | {"client": client, "ticker": ticker, "product": product.value}
    net, *entering = connection.execute(_STAKE, place).one()
    return Stake(int(net), frozenset(side for side, some in zip(Side, entering, strict=True) if some))


def exposure(connection: Connection, order: Order, now: datetime, runaway: timedelta | None) -> Exposure:
    """Of everything but `order` itself; `tried` counts it too. Contracts whose session has ended are settled."""
    about = scoped(order.scope) | {
        "self": order.id,
        "now": now,
        "ticker": order.ticker,
        "side": order.side.value,
        "client": order.client,
        "strategy": order.strategy,
        "since": now - (runaway or timedelta(0)),
    }
    kinds: dict[str, list[Row[Any]]] = {"open": [], "adjusted": [], "before": []}
    for row in connection.execute(_ALL, about):
        kinds[row.kind].append(row)
    adjusted = {(row.ticker, row.product): row.bought for row in kinds["adjusted"]}
    lots, value = Decimal(0), 0.0
    for row in kinds["open"]:
        net = row.bought - row.sold + adjusted.get((row.ticker, row.product), 0)
        average = (
            (row.paid / row.bought if row.bought else 0.0)
            if net > 0
            else (row.got / row.sold if row.sold else 0.0)
        )
        lots += Decimal(abs(int(net)) + int(row.waiting)) / row.lot
        value += abs(int(net)) * float(average) + float(row.worth)
    (before,) = kinds["before"]
    return Exposure(
        open_lots=lots,
        open_value=Decimal(str(value)).quantize(_PAISA),
        last_same=before.last,
        tried=1 if runaway is None else 1 + int(before.bought),
    )
