"""What is open and under way in an account, in two statements: the risk checks ask for it at every entry."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Float, bindparam, case, cast, func, or_, select, text

from app.domain.order import Order, Purpose, Side
from app.domain.risk import Exposure
from app.store.sql_orders import in_scope, scoped
from app.store.tables import IS_OPEN, holding_adjustments, orders

_c = orders.c
_PAISA = Decimal("0.01")

_price = cast(func.coalesce(_c.fill_price, _c.ltp, 0), Float)
"""A limit is compared with it, nobody is paid by it: a float is exact enough, and both databases can sum it."""
_buys = case((_c.side == Side.BUY.value, _c.filled_quantity), else_=0)
_sells = case((_c.side == Side.SELL.value, _c.filled_quantity), else_=0)
_waiting = case((IS_OPEN & (_c.purpose == Purpose.ENTRY.value), _c.quantity - _c.filled_quantity), else_=0)

_OPEN = (
    select(
        _c.ticker,
        _c.product,
        func.max(_c.lot),
        func.sum(_buys),
        func.sum(_buys * _price),
        func.sum(_sells),
        func.sum(_sells * _price),
        func.sum(_waiting),
        func.sum(_waiting * _price),
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
    select(holding_adjustments.c.ticker, holding_adjustments.c.product, func.sum(holding_adjustments.c.delta))
    .where(in_scope(holding_adjustments))
    .group_by(holding_adjustments.c.ticker, holding_adjustments.c.product)
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

_BEFORE = select(_LAST_SAME.scalar_subquery(), _TRIED.scalar_subquery())

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:scope, 0))")
"""Two instances that read the same exposure and then both commit an entry would pass a limit together. A lock on the
trading state's row would do too, but then a halt would have to queue behind the entries that it is to stop."""


def entries_wait(connection: Connection, order: Order) -> None:
    """Until this transaction ends no other reads the exposure in order to enter. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(_ONE_AT_A_TIME, {"scope": f"entries {order.scope.mode} {order.scope.account}"})


def exposure(connection: Connection, order: Order, now: datetime, runaway: timedelta | None) -> Exposure:
    """Of everything but `order` itself; `tried` counts it too. Contracts whose session has ended are settled."""
    common = scoped(order.scope) | {"self": order.id}
    adjusted = {(row[0], row[1]): row[2] for row in connection.execute(_ADJUSTED, scoped(order.scope))}
    lots, value = Decimal(0), 0.0
    for ticker, product, lot, bought, paid, sold, got, waiting, worth in connection.execute(
        _OPEN, common | {"now": now}
    ):
        net = bought - sold + adjusted.get((ticker, product), 0)
        average = (paid / bought if bought else 0.0) if net > 0 else (got / sold if sold else 0.0)
        lots += Decimal(abs(int(net)) + int(waiting)) / lot
        value += abs(int(net)) * float(average) + float(worth)
    about = common | {
        "ticker": order.ticker,
        "side": order.side.value,
        "client": order.client,
        "strategy": order.strategy,
        "since": now - (runaway or timedelta(0)),
    }
    last, others = connection.execute(_BEFORE, about).one()
    return Exposure(
        open_lots=lots,
        open_value=Decimal(str(value)).quantize(_PAISA),
        last_same=last,
        tried=1 if runaway is None else 1 + int(others),
    )
