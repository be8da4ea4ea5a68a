# ruff: noqa: S608 - the statements are put together from constants of this file
"""Counters with limits. A counter is always the sum of what its reservations still count: amount less returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from functools import cache

from sqlalchemy import Connection, bindparam, text

from app.domain.order import Scope
from app.domain.risk import Denial
from app.service.records import NO_LIMIT, Cap
from app.store.column_types import UtcTime
from app.store.prepared import Prepared

_OF_ORDER = "WHERE mode = :mode AND account = :account AND order_id = :order_id"
_OF_CAP = 'WHERE mode = :mode AND account = :account AND name = :name AND "window" = :window'

_RESERVED = 'SELECT name, "window", amount, returned, released_at IS NULL FROM cap_reservations ' + _OF_ORDER
_HELD = text(_RESERVED)
_HELD_LOCKED = text(_RESERVED + " FOR UPDATE")
_USED = text("SELECT used FROM caps " + _OF_CAP)
_COUNT = (
    'INSERT INTO caps (mode, account, name, "window", used) VALUES {rows} '
    'ON CONFLICT (mode, account, name, "window") DO UPDATE SET used = caps.used + excluded.used'
)
_ADD_ANYWAY = text(_COUNT.format(rows="(:mode, :account, :name, :window, :amount)"))
_RESERVE = (
    "INSERT INTO cap_reservations "
    '(mode, account, order_id, name, "window", amount, returnable, returned, released_at) VALUES {rows} '
    'ON CONFLICT (mode, account, order_id, name, "window") DO UPDATE '
    "SET amount = excluded.amount, returnable = excluded.returnable, returned = 0, released_at = NULL"
)
_RESERVE_ONE = text(
    _RESERVE.format(rows="(:mode, :account, :order_id, :name, :window, :whole, :returnable, 0, NULL)")
)


@cache
def _add_all(many: int) -> Prepared:
    """Add to `many` counters, to each only as far as its own limit. The rows that were added to come back."""
    rows = ", ".join(f"(:mode, :account, :name{n}, :window{n}, :amount{n})" for n in range(many))
    limits = " ".join(
        f'WHEN excluded.name = :name{n} AND excluded."window" = :window{n} THEN CAST(:limit{n} AS BIGINT)'
        for n in range(many)
    )
    return Prepared(
        text(
            _COUNT.format(rows=rows)
            + f" WHERE caps.used + excluded.used <= CASE {limits} END"
            + ' RETURNING name, "window"'
        )
    )


@cache
def _reserve_all(many: int) -> Prepared:
    rows = ", ".join(
        f"(:mode, :account, :order_id, :name{n}, :window{n}, :whole{n}, :returnable{n}, 0, NULL)"
        for n in range(many)
    )
    return Prepared(text(_RESERVE.format(rows=rows)))


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


def reserve(
    connection: Connection, scope: Scope, order_id: str, wanted: Sequence[Cap], *, is_new: bool
) -> Denial | None:
    """All or none. What the order has reserved already and not given back is not counted again."""
    if not wanted:
        return None
    keys = {"mode": scope.mode.value, "account": scope.account, "order_id": order_id}
    rows = [] if is_new else connection.execute(_HELD, keys).all()
    held = {(name, window) for name, window, _, _, whole in rows if whole}
    left = {(name, window): amount - returned for name, window, amount, returned, _ in rows}
    missing = [cap for cap in wanted if (cap.name, cap.window) not in held]
    if not missing:
        return None
    return _count(connection, keys, _by_name(missing), left)


def _count(
    connection: Connection, keys: Mapping[str, object], missing: list[Cap], left: dict[tuple[str, str], int]
) -> Denial | None:
    """All counters in one statement, each up to its own limit; then all reservations in one."""
    rows: dict[str, object] = dict(keys)
    for n, cap in enumerate(missing):
        more = cap.amount - left.get((cap.name, cap.window), 0)
        rows |= {f"name{n}": cap.name, f"window{n}": cap.window, f"amount{n}": more, f"limit{n}": cap.limit}
        rows |= {f"whole{n}": cap.amount, f"returnable{n}": cap.returnable}
    too_much = [cap for cap in missing if cap.amount > cap.limit]
    counted = set() if too_much else {(r[0], r[1]) for r in _add_all(len(missing)).all(connection, rows)}
    full = next((cap for cap in missing if (cap.name, cap.window) not in counted), None)
    if full is None:
        _reserve_all(len(missing)).all(connection, rows)
        return None
    for n, cap in enumerate(missing):
        if (cap.name, cap.window) in counted:  # locked by this transaction: nobody saw the counter higher
            lower = {"name": cap.name, "window": cap.window, "amount": rows[f"amount{n}"]}
            connection.execute(_LOWER, {**keys, **lower})
    refused = too_much[0] if too_much else full
    where = {**keys, "name": refused.name, "window": refused.window}
    return _denial(refused, connection.execute(_USED, where).scalar() or 0)


def over(connection: Connection, scope: Scope, wanted: Sequence[Cap]) -> Denial | None:
    """What `reserve` would say of a new order, and nothing is counted."""
    keys = {"mode": scope.mode.value, "account": scope.account}
    for cap in _by_name([cap for cap in wanted if cap.limit != NO_LIMIT]):
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
            connection.execute(_RESERVE_ONE, values | {"whole": cap.amount, "returnable": cap.returnable})
            connection.execute(_ADD_ANYWAY, values | {"amount": cap.amount})
