"""Between rows and records, and the hash chain over an order's events."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Row

from app.domain.alert import Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.audit import Event
from app.domain.order import Mode, Order, OrderKind, Protection, Purpose, Scope, Side
from app.domain.status import Status
from app.service.audit_check import FIRST_HASH as FIRST_HASH  # noqa: PLC0414 - for whoever appends
from app.service.records import AuditEvent, Moved, Refusal
from app.store.tables import orders

_PLAIN = [
    "id",
    "client",
    "strategy",
    "underlying",
    "expiry",
    "session_end",
    "strike",
    "ticker",
    "lot",
    "quantity",
    "ist_date",
    "tag",
    "attempt",
    "code",
    "reason",
    "broker_order_id",
    "ltp",
    "stop_distance",
    "target_distance",
    "stop_loss",
    "take_profit",
    "filled_quantity",
    "fill_price",
    "limit_price",
    "signal_price",
    "variant",
    "explanation",
    "fence",
    "send_by",
    "answer_by",
    "sent_at",
    "filled_at",
    "request_id",
    "created_at",
    "updated_at",
]
_ENUMS: dict[str, type[Any]] = {
    "purpose": Purpose,
    "action": Action,
    "exchange": Exchange,
    "option_type": OptionType,
    "side": Side,
    "product": Product,
    "status": Status,
    "protection": Protection,
    "kind": OrderKind,
}
_PLACES = {column.name: place for place, column in enumerate(orders.c)}
_PLAIN_OF = itemgetter(*(_PLACES[name] for name in _PLAIN))
_OTHERS_OF = itemgetter(
    *(_PLACES[n] for n in ("mode", "account", "key_kind", "key_digest", "key_body_hash", "warnings"))
)
_ENUM_PLACES = [(name, _PLACES[name], {one.value: one for one in kind}) for name, kind in _ENUMS.items()]
_MOVED = [
    "code",
    "reason",
    "broker_order_id",
    "filled_quantity",
    "fill_price",
    "stop_loss",
    "take_profit",
    "sent_at",
    "filled_at",
    "protection",
    "fence",
    "client",
]


_GET_PLAIN = attrgetter(*_PLAIN)


def order_values(order: Order) -> dict[str, Any]:
    """The row of an order, without its event count and head hash."""
    values: dict[str, Any] = dict(zip(_PLAIN, _GET_PLAIN(order), strict=True))
    for name in _ENUMS:
        values[name] = getattr(order, name).value
    return values | {
        "mode": order.scope.mode.value,
        "account": order.scope.account,
        "key_kind": order.key.kind.value,
        "key_digest": order.key.digest,
        "key_body_hash": order.key.body_hash,
        "warnings": list(order.warnings),
    }


def order_from(row: Row[Any]) -> Order:
    """From a row that begins with the columns of `orders`."""
    mode, account, kind, digest, body_hash, warnings = _OTHERS_OF(row)
    values: dict[str, Any] = dict(zip(_PLAIN, _PLAIN_OF(row), strict=True))
    for name, place, enum in _ENUM_PLACES:
        values[name] = enum[row[place]]
    return Order(
        **values,
        scope=Scope(Mode(mode), account),
        key=AlertKey(KeyKind(kind), digest, body_hash),
        warnings=tuple(warnings),
    )


def changes(change: Moved | None) -> dict[str, Any]:
    """The fields that a change names; None leaves a field as it is."""
    if change is None:
        return {}
    return {name: value for name in _MOVED if (value := getattr(change, name)) is not None}


def hash_of(
    order_id: str,
    sequence: int,
    event: str,
    at: datetime,
    status: str | None,
    detail: object,
    previous: str,
) -> str:
    """The hash of one event: over all of it and the hash before, so that no row can change unseen."""
    content = [order_id, sequence, event, at.isoformat(), status, detail, previous]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def chained(order_id: str, sequence: int, event: AuditEvent, previous: str) -> dict[str, Any]:
    """The event's row."""
    at = event.at.astimezone(UTC)
    status = None if event.status is None else event.status.value
    return {
        "order_id": order_id,
        "sequence": sequence,
        "event": event.event.value,
        "at": at,
        "status": status,
        "detail": event.detail,
        "prev_hash": previous,
        "hash": hash_of(order_id, sequence, event.event.value, at, status, event.detail, previous),
    }


def event_from(row: Row[Any]) -> AuditEvent:
    status = None if row.status is None else Status(row.status)
    return AuditEvent(Event(row.event), row.at, status, dict(row.detail), row.sequence)


def refusal_from(row: Row[Any]) -> Refusal:
    return Refusal(
        at=row.at,
        address=row.address,
        client=row.client,
        status=row.status,
        code=row.code,
        detail=row.detail,
        body_hash=row.body_hash,
        safe_fields=dict(row.safe_fields),
        request_id=row.request_id,
    )
