"""Counters with limits. A counter is always the sum of its reservations that are not released."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, text, update

from app.domain.order import Scope
from app.domain.risk import Denial
from app.service.records import Cap
from app.store.sql_orders import of_scope
from app.store.tables import cap_reservations, caps

_ADD = text(
    'INSERT INTO caps (mode, account, name, "window", used) VALUES (:mode, :account, :name, :window, :amount) '
    'ON CONFLICT (mode, account, name, "window") DO UPDATE SET used = caps.used + excluded.used '
    "WHERE caps.used + excluded.used <= :limit"
)
_RESERVE = text(
    "INSERT INTO cap_reservations "
    '(mode, account, order_id, name, "window", amount, returnable, released_at) '
    "VALUES (:mode, :account, :order_id, :name, :window, :amount, :returnable, NULL) "
    'ON CONFLICT (mode, account, order_id, name, "window") DO UPDATE '
    "SET amount = excluded.amount, returnable = excluded.returnable, released_at = NULL"
)


def reserve(connection: Connection, scope: Scope, order_id: str, wanted: Sequence[Cap]) -> Denial | None:
    """All or none. What the order has reserved already and not given back is not counted again."""
    r = cap_reservations.c
    have = select(r.name, r.window).where(
        of_scope(cap_reservations, scope), r.order_id == order_id, r.released_at.is_(None)
    )
    held = {(row[0], row[1]) for row in connection.execute(have)} if wanted else set()
    missing = [cap for cap in wanted if (cap.name, cap.window) not in held]
    if not missing:
        return None
    keys = {"mode": scope.mode.value, "account": scope.account}
    savepoint = connection.begin_nested()
    # One order of names for everybody: two transactions never wait for each other's counter.
    for cap in sorted(missing, key=lambda c: (c.name, c.window)):
        values = keys | {"name": cap.name, "window": cap.window, "amount": cap.amount, "limit": cap.limit}
        if cap.amount > cap.limit or connection.execute(_ADD, values).rowcount != 1:
            savepoint.rollback()
            used = connection.execute(
                select(caps.c.used).where(
                    of_scope(caps, scope), caps.c.name == cap.name, caps.c.window == cap.window
                )
            ).scalar()
            return _denial(cap, used or 0)
        connection.execute(_RESERVE, values | {"order_id": order_id, "returnable": cap.returnable})
    savepoint.commit()
    return None


def _denial(cap: Cap, used: int) -> Denial:
    return Denial(
        f"cap_{cap.name}",
        f"{cap.amount} more {cap.name} would pass the limit of {cap.limit} in {cap.window}: {used} used; "
        f"allowed would be {max(0, cap.limit - used)}",
    )


def release(connection: Connection, scope: Scope, order_id: str, now: datetime) -> None:
    """The conditional UPDATE picks what is still reserved, so that a second call finds nothing."""
    r = cap_reservations.c
    given = connection.execute(
        update(cap_reservations)
        .where(
            of_scope(cap_reservations, scope),
            r.order_id == order_id,
            r.returnable.is_(True),
            r.released_at.is_(None),
        )
        .values(released_at=now)
        .returning(r.name, r.window, r.amount)
    ).all()
    lower = (
        update(caps)
        .where(of_scope(caps, scope), caps.c.name == bindparam("n"), caps.c.window == bindparam("w"))
        .values(used=caps.c.used - bindparam("a"))
    )
    for name, window, amount in sorted(given):
        connection.execute(lower, {"n": name, "w": window, "a": amount})
