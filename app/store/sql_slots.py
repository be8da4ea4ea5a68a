"""The order budget in the database: a slot is used at most once in a second, and there are as many as the budget.

Two transactions at once take two slots (SKIP LOCKED), so that nobody waits for anybody's commit.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, bindparam, func, or_, select, update

from app.domain.order import Scope
from app.store.prepared import Prepared
from app.store.sql_orders import in_scope, scoped, upsert
from app.store.tables import order_slots

SLOT_LASTS = timedelta(seconds=1.3)
"""One second, the tenth that may pass between the reservation and the send, and as much for a slow transaction."""
AHEAD = timedelta(seconds=10)
"""No transaction waits so long: what was used this much later than now, a clock that was ahead has said."""
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

_s = order_slots.c
_IS_FREE = or_(_s.used_at <= bindparam("cutoff"), _s.used_at > bindparam("ahead"))
_FREE = (
    select(_s.slot)
    .where(in_scope(order_slots), _s.slot < bindparam("many"), _IS_FREE)
    .order_by(_s.used_at)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_TAKE = Prepared(
    update(order_slots)
    .where(in_scope(order_slots), _s.slot == _FREE, _IS_FREE)
    .values(used_at=bindparam("now"))
    .returning(_s.slot)
)
_COUNT = select(func.count()).where(in_scope(order_slots), _s.slot < bindparam("many"))


def take_slot(connection: Connection, scope: Scope, now: datetime, per_second: int) -> bool:
    """False: all are used up in this second."""
    values = scoped(scope) | {
        "many": per_second,
        "cutoff": now - SLOT_LASTS,
        "ahead": now + AHEAD,
        "now": now,
    }
    if _TAKE.one_or_none(connection, values) is not None:
        return True
    have = connection.execute(_COUNT, scoped(scope) | {"many": per_second}).scalar_one()
    if have >= per_second:
        return False
    rows = [
        {"mode": scope.mode.value, "account": scope.account, "slot": slot, "used_at": LONG_AGO}
        for slot in range(per_second)
    ]
    connection.execute(upsert(connection)(order_slots).values(rows).on_conflict_do_nothing())
    return _TAKE.one_or_none(connection, values) is not None
