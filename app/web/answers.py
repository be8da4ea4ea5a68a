"""Order rows to answers. Every answer is rendered from the row, so that a repeat shows the same."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from flask import Response, g, jsonify

from app.domain.alert import IST, Action
from app.domain.order import Order
from app.domain.risk import CHECKS
from app.domain.status import Status
from app.service.check import CheckReport
from app.service.place_order import Answer
from app.service.records import AuditEvent, Refusal
from app.web.errors import problem

S = Status
HTTP: dict[Status, tuple[int, str]] = {
    S.DENIED: (422, "denied"),
    S.EXIT_PENDING: (202, "exit_pending"),
    S.SENDING: (202, "in_doubt"),
    S.NOT_SENT: (503, "unavailable"),
    S.IN_DOUBT: (202, "in_doubt"),
    S.ACCEPTED: (200, "accepted"),
    S.REJECTED: (422, "rejected"),
    S.NOT_PLACED: (422, "not_placed"),
    S.NEEDS_REVIEW: (202, "in_doubt"),
    S.PARTIALLY_FILLED: (200, "accepted"),
    S.FILLED: (200, "accepted"),
    S.CANCELLED: (200, "accepted"),
    # Never sent and given up after a minute, or accepted and ended by the exchange's day: see `http_of`.
    S.EXPIRED: (200, "accepted"),
}


def http_of(order: Order) -> tuple[int, str]:
    """The HTTP status and the body's word for a row as it stands now."""
    if order.status is Status.EXPIRED and order.broker_order_id is None:
        return 422, "denied"
    return HTTP[order.status]


def ist(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(IST).isoformat(timespec="milliseconds")


def money(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def order_body(order: Order) -> dict[str, Any]:
    """What an answer and the API show of an order. Money as text, so that nothing is lost on the way."""
    return {
        "status": http_of(order)[1],
        "state": order.status.value,
        "mode": order.scope.mode.value,
        "order_id": order.id,
        "broker_order_id": order.broker_order_id,
        "symbol": order.ticker,
        "purpose": order.purpose.value,
        "side": order.side.value,
        "quantity": order.quantity,
        "product": order.product.value,
        "ltp": money(order.ltp),
        "stop_loss": money(order.stop_loss),
        "take_profit": money(order.take_profit),
        "protection": order.protection.value,
        "filled_quantity": order.filled_quantity,
        "fill_price": money(order.fill_price),
        "code": order.code,
        "reason": order.reason,
        "client": order.client,
        "strategy": order.strategy,
        "tag": order.tag,
        "attempt": order.attempt,
        "created_at": ist(order.created_at),
        "explanation": order.explanation,
        "warnings": list(order.warnings),
    }


def answer_of(answer: Answer) -> Response:
    """The answer to an alert, by the design's table of states."""
    order = answer.order
    status, word = http_of(order)
    if status >= 400:
        response = problem(
            status,
            order.code or word,
            order.reason or word,
            outcome=word,
            extra={"order_id": order.id, "mode": order.scope.mode.value, "warnings": list(order.warnings)},
            retry_after_s=answer.retry_after_s,
        )
    else:
        response = jsonify({**order_body(order), "request_id": g.request_id})
        response.status_code = status
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def event_body(event: AuditEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "event": event.event.value,
        "at": ist(event.at),
        "state": event.status.value if event.status else None,
        "detail": event.detail,
    }


def refusal_body(refusal: Refusal) -> dict[str, Any]:
    return {
        "at": ist(refusal.at),
        "address": refusal.address,
        "client": refusal.client,
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
        "body_hash": refusal.body_hash,
        "fields": refusal.safe_fields,
        "request_id": refusal.request_id,
    }


def _checks(report: CheckReport) -> list[dict[str, Any]]:
    """Every check that an alert like this meets, those that are off too; none where it means no contract."""
    found = {v.check.code: v.finding for v in report.verdicts}
    asked = [c for c in CHECKS if c.stops_exits or report.alert.action is not Action.EXIT]
    return [
        {
            "code": check.code,
            "setting": check.setting,
            "what": check.doc,
            "limit": None if finding is None else finding.limit,
            "value": None if finding is None else finding.value,
            "ok": finding is None or finding.reason is None,
            "reason": None if finding is None else finding.reason,
        }
        for check, finding in ((c, found.get(c.code)) for c in (asked if found else ()))
    ]


def check_body(report: CheckReport) -> dict[str, Any]:
    """What would become of an alert; nothing was sent."""
    resolved, levels, quote = report.resolved, report.levels, report.quote
    return {
        "would_send": report.denial is None,
        "denial": None
        if report.denial is None
        else {"code": report.denial.code, "reason": report.denial.reason},
        "symbol": None if resolved is None else resolved.contract.ticker,
        "explanation": None if resolved is None else resolved.explanation,
        "quantity": report.quantity,
        "lots": report.lots,
        "ltp": None if quote is None else money(quote.ltp),
        "stop_loss": None if levels is None else money(levels.stop_loss),
        "take_profit": None if levels is None else money(levels.take_profit),
        "checks": _checks(report),
        "warnings": list(report.alert.warnings),
    }
