"""Between rows and records, and the hash chain over an order's events."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import Any

from sqlalchemy import Row

from app.domain.alert import Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.audit import Event
from app.domain.order import Mode, Order, Protection, Purpose, Scope, Side
from app.domain.status import Status
from app.service.records import AuditEvent, Moved, Refusal

FIRST_HASH = ""
"""What stands before an order's first event."""

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
}
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


def order_values(order: Order) -> dict[str, Any]:
    """The row of an order, without its event count and head hash."""
    values: dict[str, Any] = {name: getattr(order, name) for name in _PLAIN}
    values |= {name: getattr(order, name).value for name in _ENUMS}
    return values | {
        "mode": order.scope.mode.value,
        "account": order.scope.account,
        "key_kind": order.key.kind.value,
        "key_digest": order.key.digest,
        "key_body_hash": order.key.body_hash,
        "warnings": list(order.warnings),
    }


def order_from(row: Row[Any]) -> Order:
    found = row._mapping  # noqa: SLF001 - the documented way to a row's names
    values: dict[str, Any] = {name: found[name] for name in _PLAIN}
    values |= {name: kind(found[name]) for name, kind in _ENUMS.items()}
    return Order(
        **values,
        scope=Scope(Mode(found["mode"]), found["account"]),
        key=AlertKey(KeyKind(found["key_kind"]), found["key_digest"], found["key_body_hash"]),
        warnings=tuple(found["warnings"]),
    )


def changes(change: Moved | None) -> dict[str, Any]:
    """The fields that a change names; None leaves a field as it is."""
    if change is None:
        return {}
    return {name: value for name in _MOVED if (value := getattr(change, name)) is not None}


def chained(order_id: str, sequence: int, event: AuditEvent, previous: str) -> dict[str, Any]:
    """The event's row. Its hash covers all of it and the hash before, so that no row can change unseen."""
    at = event.at.astimezone(UTC)
    status = None if event.status is None else event.status.value
    content = [order_id, sequence, event.event.value, at.isoformat(), status, event.detail, previous]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {
        "order_id": order_id,
        "sequence": sequence,
        "event": event.event.value,
        "at": at,
        "status": status,
        "detail": event.detail,
        "prev_hash": previous,
        "hash": hashlib.sha256(text.encode()).hexdigest(),
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
