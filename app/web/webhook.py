"""POST /webhook, and the steps that every alert goes through, whichever door it comes in by."""

from __future__ import annotations

import hashlib
from typing import Any

import structlog
from flask import Blueprint, Response, g, request

from app.domain.alert import Alert
from app.errors import AlertRefused, NotAuthenticated, StoreUnavailable
from app.service.records import Refusal
from app.web.answers import answer_of
from app.web.errors import STATUS
from app.web.middleware.address import check_address, client_address, networks_of
from app.web.middleware.authentication import Caller, bearer, body_token
from app.web.middleware.size import bounded_body
from app.web.parse import parse_object
from app.web.ports import Place, Ports
from app.web.schemas import TOKEN, shown, to_alert

SAFE_FIELDS = (
    "symbol",
    "strikeprice",
    "optiontype",
    "expiry",
    "action",
    "qty",
    "lots",
    "producttype",
    "strategy",
)
MAX_DETAIL = 500


class Door:
    """Size, address, authentication, schema: from a request to an Alert, or a recorded refusal."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.allowed = networks_of(ports.settings.ip_allowlist)

    def alert(self, *, by_header: bool) -> tuple[Alert, Caller]:
        """The alert of the present request. Raises AlertRefused, after keeping a record of it."""
        settings = self.ports.settings
        raw, body, caller = b"", {}, None
        try:
            if by_header:
                caller = bearer(request, settings)
            raw = bounded_body(request, settings.max_content_length)
            if not by_header:
                check_address(client_address(request, settings.trusted_proxy_hops), self.allowed)
            body = parse_object(raw)
            if caller is None:
                caller = body_token(body, settings)
            alert = to_alert(
                body,
                caller.client,
                self.ports.clock.now(),
                request.headers.get("Idempotency-Key"),
                settings.default_product_type,
            )
        except AlertRefused as error:
            self.keep(error, raw, body, caller)
            raise
        return alert, caller

    def keep(self, error: AlertRefused, raw: bytes, body: dict[str, Any], caller: Caller | None) -> None:
        """The bounded record. It must not cost the answer: the sender's cause stands in the answer itself."""
        known = {} if isinstance(error, NotAuthenticated) else body
        refusal = Refusal(
            at=self.ports.clock.now(),
            address=client_address(request, self.ports.settings.trusted_proxy_hops),
            client=caller.client if caller else None,
            status=STATUS[type(error)],
            code=error.code,
            detail=error.detail[:MAX_DETAIL],
            body_hash=hashlib.sha256(raw).hexdigest(),
            safe_fields={
                k.lower(): shown(v) for k, v in known.items() if k.lower() in SAFE_FIELDS and k != TOKEN
            },
            request_id=g.request_id,
        )
        try:
            self.ports.store.record_refusal(self.ports.scope, refusal)
        except StoreUnavailable:
            structlog.get_logger("refused").warning(
                "refusal_not_recorded", code=error.code, status=refusal.status
            )


def blueprint(door: Door, place_order: Place) -> Blueprint:
    routes = Blueprint("webhook", __name__)

    @routes.post("/webhook")
    def webhook() -> Response:
        alert, caller = door.alert(by_header=False)
        return submit(door, place_order, alert, caller)

    return routes


def submit(door: Door, place_order: Place, alert: Alert, caller: Caller) -> Response:
    """One alert to its answer. What is refused on the way leaves its record too."""
    try:
        answer = place_order(alert, request_id=g.request_id, started=g.started, all_clients=caller.is_admin)
    except AlertRefused as error:
        door.keep(error, b"", {"symbol": alert.symbol, "action": alert.action.value}, caller)
        raise
    g.order_id, g.outcome = answer.order.id, answer.order.status.value
    return answer_of(answer)
