# ruff: noqa: S608 - the statements are put together from constants of this file
"""Counters with limits. A counter is always the sum of what its reservations still count: amount less returned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

from sqlalchemy import Connection, bindparam, text

from app.domain.order import Scope
from app.domain.risk import Denial
from app.service.records import Cap
from app.store.column_types import UtcTime

_OF_ORDER = "WHERE mode = :mode AND account = :account AND order_id = :order_id"
_OF_CAP = 'WHERE mode = :mode AND account = :account AND name = :name AND "window" = :window'

_RESERVED = 'SELECT name, "window", amount, returned, released_at IS NULL FROM cap_reservations ' + _OF_ORDER
_HELD = text(_RESERVED)
_HELD_LOCKED = text(_RESERVED + " FOR UPDATE")
_USED = text("SELECT used FROM caps " + _OF_CAP)
_COUNT = (
    'INSERT INTO caps (mode, account, name, "window", used) VALUES (:mode, :account, :name, :window, :amount) '
    'ON CONFLICT (mode, account, name, "window") DO UPDATE SET used = caps.used + excluded.used'
)
_ADD = text(_COUNT + " WHERE caps.used + excluded.used <= :limit")
_ADD_ANYWAY = text(_COUNT)
_RESERVE = text(
    "INSERT INTO cap_reservations "
    '(mode, account, order_id, name, "window", amount, returnable, returned, released_at) '
    "VALUES (:mode, :account, :order_id, :name, :window, :whole, :returnable, 0, NULL) "
    'ON CONFLICT (mode, account, order_id, name, "window") DO UPDATE '
    "SET amount = excluded.amount, returnable = excluded.returnable, returned = 0, released_at = NULL"
)
_TAKE_BACK = text(
    "UPDATE cap_reservations SET returned = 0, released_at = NULL "
    + _OF_ORDER
    + ' AND name = :name AND "window" = :window'
)
_GIVE = text(
    "UPDATE cap_reservations SET released_at = :now, returned = amount * :part / :whole "
    + _OF_ORDER
    + ' AND returnable AND released_at IS NULL RETURNING name, "window", returned'
).bindparams(bindparam("now", type_=UtcTime))
_LOWER = text("UPDATE caps SET used = used - :amount " + _OF_CAP)


def _by_name(caps: Sequence[Cap]) -> list[Cap]:
    """One order of names for everybody: two transactions never wait for each other's counter."""
    return sorted(caps, key=lambda c: (c.name, c.window))


def reserve(connection: Connection, scope: Scope, order_id: str, wanted: Sequence[Cap]) -> Denial | None:
    """All or none. What the order has reserved already and not given back is not counted again."""
    if not wanted:
        return None
    keys = {"mode": scope.mode.value, "account": scope.account, "order_id": order_id}
    rows = connection.execute(_HELD, keys).all()
    held = {(name, window) for name, window, _, _, whole in rows if whole}
    left = {(name, window): amount - returned for name, window, amount, returned, _ in rows}
    missing = [cap for cap in wanted if (cap.name, cap.window) not in held]
    if not missing:
        return None
    counted: list[dict[str, object]] = []
    for cap in _by_name(missing):
        more = cap.amount - left.get((cap.name, cap.window), 0)
        values = keys | {"name": cap.name, "window": cap.window, "amount": more, "limit": cap.limit}
        if cap.amount > cap.limit or connection.execute(_ADD, values).rowcount != 1:
            for added in counted:  # the counters are locked by this transaction: nobody saw them higher
                connection.execute(_LOWER, added)
            return _denial(cap, connection.execute(_USED, values).scalar() or 0)
        counted.append(values)
    for cap in missing:
        values = keys | {"name": cap.name, "window": cap.window, "whole": cap.amount}
        connection.execute(_RESERVE, values | {"returnable": cap.returnable})
    return None


def over(connection: Connection, scope: Scope, wanted: Sequence[Cap]) -> Denial | None:
    """What `reserve` would say of a new order, and nothing is counted."""
    keys = {"mode": scope.mode.value, "account": scope.account}
    for cap in _by_name(wanted):
        used = connection.execute(_USED, keys | {"name": cap.name, "window": cap.window}).scalar() or 0
        if used + cap.amount > cap.limit:
            return _denial(cap, used)
    return None


def _denial(cap: Cap, used: int) -> Denial:
    return Denial(
        f"cap_{cap.name}",
        f"{cap.amount} more {cap.name} would pass the limit of {cap.limit} in {cap.window}: {used} used; "
        f"allowed would be {max(0, cap.limit - used)}",
    )


def release(connection: Connection, scope: Scope, order_id: str, unfilled: Fraction, now: datetime) -> None:
    """The conditional UPDATE picks what is still reserved, so that a second call finds nothing."""
    if not 0 <= unfilled <= 1:
        raise ValueError(f"expected a part between 0 and 1, was {unfilled}")
    keys = {"mode": scope.mode.value, "account": scope.account, "order_id": order_id}
    part = {"part": unfilled.numerator, "whole": unfilled.denominator, "now": now}
    given = connection.execute(_GIVE, keys | part).all()
    for name, window, amount in sorted(given):
        connection.execute(_LOWER, keys | {"name": name, "window": window, "amount": amount})


def reserve_again(connection: Connection, scope: Scope, order_id: str, wanted: Sequence[Cap]) -> None:
    """What was given back counts again, and of `wanted` what the order has no reservation for."""
    keys = {"mode": scope.mode.value, "account": scope.account, "order_id": order_id}
    held = _HELD if connection.dialect.name == "sqlite" else _HELD_LOCKED
    rows = {(row[0], row[1]): row for row in connection.execute(held, keys)}
    more = {place: row[3] for place, row in rows.items() if row[3]}
    new = {(cap.name, cap.window): cap for cap in wanted if (cap.name, cap.window) not in rows}
    for name, window in sorted({*more, *new}):
        values = keys | {"name": name, "window": window}
        cap = new.get((name, window))
        if cap is None:
            connection.execute(_TAKE_BACK, values)
            connection.execute(_ADD_ANYWAY, values | {"amount": more[name, window]})
        else:
            connection.execute(_RESERVE, values | {"whole": cap.amount, "returnable": cap.returnable})
            connection.execute(_ADD_ANYWAY, values | {"amount": cap.amount})
