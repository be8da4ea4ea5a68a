"""What control and reconciliation keep beside the orders: trading state, evidence, strangers, passes, old keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, text, tuple_, update

from app.domain.order import Order, Scope, Side
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.records import Evidence, Standing, StateChange, Stranger
from app.store.column_types import UtcTime
from app.store.prepared import Prepared
from app.store.sql_orders import in_scope, of_scope, scoped
from app.store.tables import idempotency_keys, orders, trading_state, trading_state_history
from app.store.tables_reconcile import reconcile_passes, strangers

UNREADABLE = "no readable trading state"

_TIME = bindparam("at", type_=UtcTime)
_STATE = Prepared(select(trading_state.c.state).where(in_scope(trading_state)))
_STANDING = Prepared(
    select(orders.c.status, orders.c.fence, trading_state.c.state)
    .outerjoin(
        trading_state,
        (trading_state.c.mode == orders.c.mode) & (trading_state.c.account == orders.c.account),
    )
    .where(orders.c.id == bindparam("in_id"), in_scope(orders))
)
_CHANGE = select(
    trading_state.c.state, trading_state.c.changed_by, trading_state.c.reason, trading_state.c.changed_at
).where(in_scope(trading_state))
_BORN = text(
    "INSERT INTO trading_state (mode, account, state, changed_by, reason, changed_at) "
    "VALUES (:mode, :account, :state, :by, :reason, :at) ON CONFLICT (mode, account) DO NOTHING RETURNING state"
).bindparams(_TIME)
_SET = text(
    "INSERT INTO trading_state (mode, account, state, changed_by, reason, changed_at) "
    "VALUES (:mode, :account, :state, :by, :reason, :at) ON CONFLICT (mode, account) DO UPDATE "
    "SET state = excluded.state, changed_by = excluded.changed_by, reason = excluded.reason, "
    "changed_at = excluded.changed_at WHERE trading_state.state <> excluded.state RETURNING state"
).bindparams(_TIME)
_REDUCE = text(
    "UPDATE trading_state SET state = :state, changed_by = :by, reason = :reason, changed_at = :at "
    "WHERE mode = :mode AND account = :account AND state = :from_state RETURNING state"
).bindparams(_TIME)
_KEEP = text(
    "INSERT INTO trading_state_history (mode, account, state, changed_by, reason, changed_at) "
    "VALUES (:mode, :account, :state, :by, :reason, :at)"
).bindparams(_TIME)
_ABSENT = (
    text(
        "INSERT INTO absences (order_id, attempt, reads, first_at, last_at) "
        "VALUES (:order_id, :attempt, 1, :at, :at) ON CONFLICT (order_id, attempt) DO UPDATE "
        "SET reads = absences.reads + 1, last_at = excluded.last_at RETURNING reads, first_at, last_at"
    )
    .bindparams(_TIME)
    .columns(first_at=UtcTime, last_at=UtcTime)
)
_ADD_STRANGER = text(
    "INSERT INTO strangers "
    "(mode, account, broker_order_id, ticker, side, quantity, product, tag, placed_at, seen_at, acknowledged_by) "
    "VALUES (:mode, :account, :id, :ticker, :side, :quantity, :product, :tag, :placed_at, :seen_at, :by) "
    "ON CONFLICT (mode, account, broker_order_id) DO NOTHING RETURNING broker_order_id"
).bindparams(bindparam("placed_at", type_=UtcTime), bindparam("seen_at", type_=UtcTime))
_PASSED = text(
    "INSERT INTO reconcile_passes (mode, account, began_at) VALUES (:mode, :account, :at) "
    "ON CONFLICT (mode, account) DO UPDATE SET began_at = excluded.began_at "
    "WHERE reconcile_passes.began_at < excluded.began_at OR reconcile_passes.began_at > :now"
).bindparams(_TIME, bindparam("now", type_=UtcTime))
"""The latest one counts; one from a clock that was ahead would be the latest until the present has caught up."""
_LAST_PASS = Prepared(select(reconcile_passes.c.began_at).where(in_scope(reconcile_passes)))


def state_of(word: str | None) -> TradingState:
    try:
        return TradingState(word or "")
    except ValueError:
        return TradingState.HALTED


def state(connection: Connection, scope: Scope) -> TradingState:
    row = _STATE.one_or_none(connection, scoped(scope))
    return state_of(None if row is None else row.state)


def standing(connection: Connection, scope: Scope, order_id: str) -> Standing | None:
    row = _STANDING.one_or_none(connection, {"in_id": order_id, **scoped(scope)})
    return None if row is None else Standing(Status(row.status), row.fence, state_of(row.state))


def state_change(connection: Connection, scope: Scope, now: datetime) -> StateChange:
    row = connection.execute(_CHANGE, scoped(scope)).one_or_none()
    if row is None or row.state not in list(TradingState):
        return StateChange(TradingState.HALTED, "", UNREADABLE, now if row is None else row.changed_at)
    return StateChange(TradingState(row.state), row.changed_by, row.reason, row.changed_at)


def ensure_scope(connection: Connection, scope: Scope, now: datetime) -> None:
    """ACTIVE when there is no row yet. A later start changes nothing."""
    values = {"mode": scope.mode.value, "account": scope.account, "state": TradingState.ACTIVE.value}
    values |= {"by": "service", "reason": "first start"}
    if connection.execute(_BORN, {**values, "at": now}).one_or_none() is not None:
        connection.execute(_KEEP, {**values, "at": now})


def set_state(
    connection: Connection, scope: Scope, wanted: TradingState, by: str, reason: str, now: datetime
) -> bool:
    """One conditional statement decides: of two who set the same state, one writes the history."""
    row = {**_row(scope, wanted), "by": by, "reason": reason, "at": now}
    if connection.execute(_SET, row).one_or_none() is None:
        return False
    connection.execute(_KEEP, row)
    return True


def reduce(connection: Connection, scope: Scope, by: str, reason: str, now: datetime) -> bool:
    """By one conditional UPDATE: what a person has set since this transaction looked stays."""
    row = {**_row(scope, TradingState.REDUCING), "by": by, "reason": reason, "at": now}
    if connection.execute(_REDUCE, row | {"from_state": TradingState.ACTIVE.value}).one_or_none() is None:
        return False
    connection.execute(_KEEP, row)
    return True


def _row(scope: Scope, state: TradingState) -> dict[str, str]:
    return {"mode": scope.mode.value, "account": scope.account, "state": state.value}


def history(connection: Connection, scope: Scope, limit: int) -> tuple[StateChange, ...]:
    h = trading_state_history.c
    wanted = select(h.state, h.changed_by, h.reason, h.changed_at).where(
        of_scope(trading_state_history, scope)
    )
    rows = connection.execute(wanted.order_by(h.id.desc()).limit(max(0, limit)))
    return tuple(StateChange(state_of(r.state), r.changed_by, r.reason, r.changed_at) for r in rows)


def note_absence(connection: Connection, order: Order, now: datetime) -> Evidence:
    values = {"order_id": order.id, "attempt": order.attempt, "at": now}
    row = connection.execute(_ABSENT, values).one()
    return Evidence(row.reads, row.first_at, row.last_at)


def add_stranger(connection: Connection, scope: Scope, s: Stranger) -> bool:
    row = {
        "mode": scope.mode.value,
        "account": scope.account,
        "id": s.broker_order_id,
        "ticker": s.ticker,
        "side": s.side.value,
        "quantity": s.quantity,
        "product": s.product,
        "tag": s.tag,
        "placed_at": s.placed_at,
        "seen_at": s.seen_at,
        "by": s.acknowledged_by,
    }
    return connection.execute(_ADD_STRANGER, row).one_or_none() is not None


def list_strangers(connection: Connection, scope: Scope, acknowledged: bool | None) -> tuple[Stranger, ...]:
    """Oldest first."""
    c = strangers.c
    wanted = select(strangers).where(of_scope(strangers, scope))
    if acknowledged is not None:
        wanted = wanted.where(c.acknowledged_by.is_not(None) if acknowledged else c.acknowledged_by.is_(None))
    return tuple(
        Stranger(
            broker_order_id=row.broker_order_id,
            ticker=row.ticker,
            side=Side(row.side),
            quantity=row.quantity,
            product=row.product,
            tag=row.tag,
            placed_at=row.placed_at,
            seen_at=row.seen_at,
            acknowledged_by=row.acknowledged_by,
        )
        for row in connection.execute(wanted.order_by(c.placed_at, c.broker_order_id))
    )


def acknowledge_strangers(connection: Connection, scope: Scope, by: str, now: datetime) -> int:
    seen = (
        update(strangers)
        .where(of_scope(strangers, scope), strangers.c.acknowledged_by.is_(None))
        .values(acknowledged_by=by, acknowledged_at=now)
    )
    return connection.execute(seen).rowcount


def record_pass(connection: Connection, scope: Scope, began_at: datetime, now: datetime) -> None:
    row = {"mode": scope.mode.value, "account": scope.account, "at": began_at, "now": now}
    connection.execute(_PASSED, row)


def last_pass(connection: Connection, scope: Scope) -> datetime | None:
    row = _LAST_PASS.one_or_none(connection, scoped(scope))
    return None if row is None else row.began_at


def purge_keys(connection: Connection, scope: Scope, expired_before: datetime, limit: int) -> int:
    """The condition stands twice: a key that was taken over between the two reads of its row stays."""
    k = idempotency_keys.c
    old = k.expires_at < expired_before
    some = (
        select(k.client, k.digest)
        .where(of_scope(idempotency_keys, scope), old)
        .order_by(k.expires_at)
        .limit(max(0, limit))
    )
    gone = delete(idempotency_keys).where(
        of_scope(idempotency_keys, scope), old, tuple_(k.client, k.digest).in_(some)
    )
    return connection.execute(gone).rowcount
