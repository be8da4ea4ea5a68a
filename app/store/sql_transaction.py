"""ports.Transaction on one SQLAlchemy connection."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.alert import AlertKey, Product
from app.domain.order import Order, Scope, Side
from app.domain.risk import Denial, TradingState
from app.domain.status import Status, check_move
from app.service.records import AuditEvent, Cap, Holding, Known, Moved
from app.store import sql_caps, sql_orders
from app.store.sql_orders import of_scope
from app.store.sql_rows import changes, order_from, order_values
from app.store.tables import holding_adjustments, idempotency_keys, locks, orders, trading_state


def upsert(connection: Connection) -> type[postgresql.Insert | sqlite.Insert]:
    """INSERT … ON CONFLICT: the same words on both, in two classes."""
    return sqlite.Insert if connection.dialect.name == "sqlite" else postgresql.Insert


class SqlTransaction:
    """One transaction. `writing` is false in one for reading: it locks nothing."""

    def __init__(self, connection: Connection, now: datetime, *, writing: bool) -> None:
        self._connection = connection
        self._now = now
        self._writing = writing

    def now(self) -> datetime:
        return self._now

    def trading_state(self, scope: Scope) -> TradingState:
        wanted = select(trading_state.c.state).where(of_scope(trading_state, scope))
        state = self._connection.execute(wanted).scalar_one_or_none()
        return TradingState(state) if state in list(TradingState) else TradingState.HALTED

    def find_key(self, scope: Scope, client: str, key: AlertKey) -> Known | None:
        k = idempotency_keys.c
        wanted = (
            select(orders, k.body_hash.label("known_body_hash"))
            .join(idempotency_keys, k.order_id == orders.c.id)
            .where(of_scope(idempotency_keys, scope), k.client == client, k.digest == key.digest)
            .where(k.expires_at > self._now)
        )
        if self._writing:
            wanted = wanted.with_for_update(of=orders)
        row = self._connection.execute(wanted).one_or_none()
        return None if row is None else Known(order_from(row), row.known_body_hash)

    def claim_key(self, scope: Scope, client: str, key: AlertKey, order_id: str, ttl: timedelta) -> bool:
        k = idempotency_keys.c
        claim = upsert(self._connection)(idempotency_keys).values(
            mode=scope.mode.value,
            account=scope.account,
            client=client,
            digest=key.digest,
            body_hash=key.body_hash,
            order_id=order_id,
            claimed_at=self._now,
            expires_at=self._now + ttl,
        )
        taken = {name: claim.excluded[name] for name in ("body_hash", "order_id", "claimed_at", "expires_at")}
        claim = claim.on_conflict_do_update(
            index_elements=[k.mode, k.account, k.client, k.digest],
            set_=taken,
            where=k.expires_at <= self._now,
        )
        # A row comes back only when it was written; SQLAlchemy keeps no row count of an INSERT.
        return self._connection.execute(claim.returning(k.order_id)).one_or_none() is not None

    def reserve(self, scope: Scope, order_id: str, caps: Sequence[Cap]) -> Denial | None:
        return sql_caps.reserve(self._connection, scope, order_id, caps)

    def release(self, scope: Scope, order_id: str) -> None:
        sql_caps.release(self._connection, scope, order_id, self._now)

    def insert_order(self, order: Order, event: AuditEvent) -> None:
        sql_orders.insert_order(self._connection, order, event)

    def restart_order(self, order: Order, event: AuditEvent, before: Status) -> bool:
        check_move(before, order.status)
        values = order_values(order)
        del values["id"], values["created_at"]
        values["updated_at"] = order.updated_at or self._now
        where = (
            (orders.c.id == order.id)
            & of_scope(orders, order.scope)
            & (orders.c.status == before.value)
            & (orders.c.attempt < order.attempt)
        )
        return sql_orders.change_order(self._connection, where, values, event) is not None

    def get_order(self, scope: Scope, order_id: str, *, lock: bool = False) -> Order | None:
        return sql_orders.find(self._connection, scope, order_id, lock=lock and self._writing)

    def move(
        self, order: Order, after: Status, event: AuditEvent, change: Moved | None = None
    ) -> Order | None:
        check_move(order.status, after)
        where = (
            (orders.c.id == order.id)
            & of_scope(orders, order.scope)
            & (orders.c.status == order.status.value)
            & (orders.c.attempt == order.attempt)
        )
        values = changes(change) | {"status": after.value, "updated_at": self._now}
        return sql_orders.change_order(self._connection, where, values, event)

    def record(self, order: Order, event: AuditEvent, change: Moved | None = None) -> Order:
        where = (orders.c.id == order.id) & of_scope(orders, order.scope)
        values = changes(change) | {"updated_at": self._now}
        row = sql_orders.change_order(self._connection, where, values, event)
        if row is None:
            raise LookupError(f"expected order {order.id}, was gone")
        return row

    def holdings(self, scope: Scope, client: str | None) -> tuple[Holding, ...]:
        return sql_orders.holdings(self._connection, scope, client)

    def open_orders(
        self,
        scope: Scope,
        client: str | None = None,
        *,
        ticker: str | None = None,
        side: Side | None = None,
    ) -> tuple[Order, ...]:
        return sql_orders.open_orders(self._connection, scope, client, ticker, side)

    def orders_in(self, scope: Scope, ticker: str, product: Product) -> tuple[Order, ...]:
        return sql_orders.orders_in(self._connection, scope, ticker, product)

    def adjust_holding(
        self, scope: Scope, client: str, ticker: str, product: Product, delta: int, reason: str
    ) -> None:
        self._connection.execute(
            insert(holding_adjustments).values(
                mode=scope.mode.value,
                account=scope.account,
                client=client,
                ticker=ticker,
                product=product.value,
                delta=delta,
                reason=reason,
                at=self._now,
            )
        )

    def owns_lock(self, name: str, owner: str) -> bool:
        wanted = select(locks.c.owner).where(
            locks.c.name == name, locks.c.owner == owner, locks.c.expires_at > self._now
        )
        if self._writing:
            wanted = wanted.with_for_update()
        return self._connection.execute(wanted).one_or_none() is not None

    def free_lock(self, name: str, owner: str) -> None:
        self._connection.execute(delete(locks).where(locks.c.name == name, locks.c.owner == owner))
