"""ports.Transaction on one SQLAlchemy connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, text

from app.domain.alert import AlertKey, Product
from app.domain.audit import Event
from app.domain.order import Order, Scope, Side
from app.domain.risk import Denial, Exposure, TradingState
from app.domain.status import Status, check_move
from app.service.ports import WHOLE, Clock
from app.service.records import (
    Arrival,
    AuditEvent,
    Cap,
    Evidence,
    Holding,
    Known,
    Moved,
    Stake,
    Standing,
    StateChange,
    Stranger,
)
from app.store import sql_caps, sql_control, sql_exposure, sql_orders, sql_slots
from app.store.column_types import UtcTime
from app.store.prepared import Prepared
from app.store.sql_orders import in_scope, scoped
from app.store.sql_rows import changes, order_values
from app.store.tables import holding_adjustments, idempotency_keys, locks, trading_state

_K = idempotency_keys.c
_FIND_KEY = Prepared(
    select(_K.order_id, _K.body_hash)
    .where(
        in_scope(idempotency_keys), _K.client == bindparam("in_client"), _K.digest == bindparam("in_digest")
    )
    .where(_K.expires_at > bindparam("now"))
)
"""Most alerts are new: the order's many columns are asked for only where there is one."""
_ARRIVAL = Prepared(
    select(trading_state.c.state, _K.order_id, _K.body_hash)
    .outerjoin(
        idempotency_keys,
        and_(
            *(_K[name] == trading_state.c[name] for name in ("mode", "account")),
            _K.client == bindparam("in_client"),
            _K.digest == bindparam("in_digest"),
            _K.expires_at > bindparam("now"),
        ),
    )
    .where(in_scope(trading_state))
)
_CLAIM_KEY = Prepared(
    text(
        "INSERT INTO idempotency_keys "
        "(mode, account, client, digest, body_hash, order_id, claimed_at, expires_at) "
        "VALUES (:mode, :account, :client, :digest, :body_hash, :order_id, :now, :until) "
        "ON CONFLICT (mode, account, client, digest) DO UPDATE SET body_hash = excluded.body_hash, "
        "order_id = excluded.order_id, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at "
        "WHERE idempotency_keys.expires_at <= :now RETURNING order_id"
    ).bindparams(bindparam("now", type_=UtcTime), bindparam("until", type_=UtcTime))
)


class SqlTransaction:
    """One transaction. `writing` is false in one for reading: it locks nothing. `clock`: the database's, where it has
    one that is not its own.
    """

    def __init__(
        self, connection: Connection, now: datetime, *, writing: bool, clock: Clock | None = None
    ) -> None:
        self._connection = connection
        self._now = now
        self._writing = writing
        self._clock = clock

    def now(self) -> datetime:
        return self._now

    def trading_state(self, scope: Scope) -> TradingState:
        return sql_control.state(self._connection, scope)

    def state_change(self, scope: Scope) -> StateChange:
        return sql_control.state_change(self._connection, scope, self._now)

    def set_trading_state(self, scope: Scope, state: TradingState, by: str, reason: str) -> bool:
        return sql_control.set_state(self._connection, scope, state, by, reason, self._now)

    def reduce(self, scope: Scope, by: str, reason: str) -> bool:
        return sql_control.reduce(self._connection, scope, by, reason, self._now)

    def state_history(self, scope: Scope, limit: int) -> tuple[StateChange, ...]:
        return sql_control.history(self._connection, scope, limit)

    def find_key(self, scope: Scope, client: str, key: AlertKey) -> Known | None:
        place = {"in_client": client, "in_digest": key.digest, "now": self._now, **scoped(scope)}
        key_row = _FIND_KEY.one_or_none(self._connection, place)
        return None if key_row is None else self._known(scope, key_row.order_id, key_row.body_hash)

    def arrival(self, scope: Scope, client: str, key: AlertKey) -> Arrival:
        place = {"in_client": client, "in_digest": key.digest, "now": self._now, **scoped(scope)}
        row = _ARRIVAL.one_or_none(self._connection, place)
        if row is None:
            return Arrival(TradingState.HALTED, self.find_key(scope, client, key))
        known = None if row.order_id is None else self._known(scope, row.order_id, row.body_hash)
        return Arrival(sql_control.state_of(row.state), known)

    def _known(self, scope: Scope, order_id: str, body_hash: str) -> Known | None:
        order = self.get_order(scope, order_id, lock=True)
        return None if order is None else Known(order, body_hash)

    def claim_key(self, scope: Scope, client: str, key: AlertKey, order_id: str, ttl: timedelta) -> bool:
        claim = {
            "mode": scope.mode.value,
            "account": scope.account,
            "client": client,
            "digest": key.digest,
            "body_hash": key.body_hash,
            "order_id": order_id,
            "now": self._now,
            "until": self._now + ttl,
        }
        return _CLAIM_KEY.one_or_none(self._connection, claim) is not None

    def take_order_slot(self, scope: Scope, per_second: int) -> bool:
        return sql_slots.take_slot(self._connection, scope, self._now, per_second)

    def over_caps(self, scope: Scope, caps: Sequence[Cap]) -> Denial | None:
        return sql_caps.over(self._connection, scope, caps)

    def reserve(
        self, scope: Scope, order_id: str, caps: Sequence[Cap], *, is_new: bool = False
    ) -> Denial | None:
        return sql_caps.reserve(self._connection, scope, order_id, caps, is_new=is_new)

    def release(self, scope: Scope, order_id: str, *, unfilled: Fraction = WHOLE) -> None:
        sql_caps.release(self._connection, scope, order_id, unfilled, self._now)

    def reserve_again(self, scope: Scope, order_id: str, caps: Sequence[Cap]) -> None:
        sql_caps.reserve_again(self._connection, scope, order_id, caps)

    def insert_order(self, order: Order, event: AuditEvent) -> None:
        sql_orders.insert_order(self._connection, order, event)

    def restart_order(self, order: Order, event: AuditEvent, before: Status) -> bool:
        check_move(before, order.status)
        values = order_values(order)
        del values["id"], values["created_at"]
        values["updated_at"] = order.updated_at or self._now
        return sql_orders.restart(self._connection, order, values, event, before) is not None

    def get_order(self, scope: Scope, order_id: str, *, lock: bool = False) -> Order | None:
        return sql_orders.find(self._connection, scope, order_id, lock=lock and self._writing)

    def standing(self, scope: Scope, order_id: str) -> Standing | None:
        return sql_control.standing(self._connection, scope, order_id)

    def move(
        self, order: Order, after: Status, event: AuditEvent, change: Moved | None = None
    ) -> Order | None:
        check_move(order.status, after)
        values = changes(change) | {"status": after.value, "updated_at": self._now}
        return sql_orders.move(self._connection, order, values, event)

    def record(self, order: Order, event: AuditEvent, change: Moved | None = None) -> Order:
        values = changes(change) | {"updated_at": self._now}
        row = sql_orders.record(self._connection, order, values, event)
        if row is None:
            raise LookupError(f"expected order {order.id}, was gone")
        return row

    def find_tag(self, scope: Scope, tag: str) -> Order | None:
        return sql_orders.find_tag(self._connection, scope, tag)

    def known_at_broker(self, scope: Scope, broker_order_ids: Collection[str]) -> frozenset[str]:
        return sql_orders.known_at_broker(self._connection, scope, broker_order_ids)

    def orders_on(
        self, scope: Scope, ist_date: date, statuses: Collection[Status] | None = None
    ) -> tuple[Order, ...]:
        return sql_orders.orders_on(self._connection, scope, ist_date, statuses)

    def orders_before(self, scope: Scope, ist_date: date, statuses: Collection[Status]) -> tuple[Order, ...]:
        return sql_orders.orders_before(self._connection, scope, ist_date, statuses)

    def events_of(
        self, scope: Scope, order_ids: Collection[str], kinds: Collection[Event]
    ) -> dict[str, tuple[AuditEvent, ...]]:
        return sql_orders.events_of(self._connection, scope, order_ids, kinds)

    def note_absence(self, order: Order) -> Evidence:
        return sql_control.note_absence(self._connection, order, self._now)

    def add_stranger(self, scope: Scope, stranger: Stranger) -> bool:
        return sql_control.add_stranger(self._connection, scope, stranger)

    def strangers(self, scope: Scope, *, acknowledged: bool | None = None) -> tuple[Stranger, ...]:
        return sql_control.list_strangers(self._connection, scope, acknowledged)

    def acknowledge_strangers(self, scope: Scope, by: str) -> int:
        return sql_control.acknowledge_strangers(self._connection, scope, by, self._now)

    def record_pass(self, scope: Scope, began_at: datetime) -> None:
        sql_control.record_pass(self._connection, scope, began_at, self._now)

    def last_pass(self, scope: Scope) -> datetime | None:
        return sql_control.last_pass(self._connection, scope)

    def purge_keys(self, scope: Scope, expired_before: datetime, limit: int) -> int:
        return sql_control.purge_keys(self._connection, scope, expired_before, limit)

    def holdings(
        self, scope: Scope, client: str | None, *, before: date | None = None
    ) -> tuple[Holding, ...]:
        return sql_orders.holdings(self._connection, scope, client, before)

    def stake(self, scope: Scope, client: str, ticker: str, product: Product) -> Stake:
        return sql_exposure.stake(self._connection, scope, client, ticker, product, self._now)

    def exit_since(self, order: Order, at: datetime) -> str | None:
        return sql_exposure.exit_since(self._connection, order, at)

    def tried(self, order: Order, within: timedelta) -> int:
        return sql_exposure.tried(self._connection, order, self._now, within)

    def exposure(self, order: Order, runaway: timedelta | None) -> Exposure:
        if self._writing:
            self.entries_wait(order.scope)
        return sql_exposure.exposure(self._connection, order, self._now, runaway)

    def entries_wait(self, scope: Scope) -> None:
        if (after := sql_exposure.entries_wait(self._connection, scope)) is not None:
            self._move_on(after)

    def _move_on(self, after: datetime) -> None:
        """A wait may have lasted: what comes after it (an order's times, its slot) is dated by what it is then."""
        later = after if self._clock is None else self._clock.now().astimezone(UTC)
        self._now = self._connection.info["now"] = max(self._now, later)

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
        self,
        scope: Scope,
        client: str,
        ticker: str,
        product: Product,
        delta: int,
        reason: str,
        price: Decimal | None = None,
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
                price=price,
            )
        )

    def adjusted(self, scope: Scope, reasons: Sequence[str]) -> tuple[Holding, ...]:
        return sql_orders.adjusted(self._connection, scope, reasons)

    def owns_lock(self, name: str, owner: str) -> bool:
        wanted = select(locks.c.owner).where(
            locks.c.name == name, locks.c.owner == owner, locks.c.expires_at > self._now
        )
        if self._writing:
            wanted = wanted.with_for_update()
        return self._connection.execute(wanted).one_or_none() is not None

    def free_lock(self, name: str, owner: str) -> None:
        self._connection.execute(delete(locks).where(locks.c.name == name, locks.c.owner == owner))
