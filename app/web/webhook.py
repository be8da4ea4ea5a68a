"""POST /webhook, and the steps that every alert goes through, whichever door it comes in by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from flask import Blueprint, Response, g, jsonify, request

from app.domain.alert import Alert, KeyKind, key_of
from app.errors import (
    AlertRefused,
    KeyInUse,
    NotAuthenticated,
    StoreUnavailable,
    TooManyRequests,
    Unavailable,
)
from app.service.clients import ClientScope, NoClients
from app.service.heartbeat import HEARTBEAT, Beat, allowed, beat
from app.service.in_flight import InFlight
from app.service.observe import answered, masked, note, phase
from app.service.records import Refusal
from app.service.slo import NOT_OURS
from app.service.urgent import Urgency, urgency_of
from app.web.afterwards import Afterwards
from app.web.answers import answer_of, ist
from app.web.beat_schemas import is_beat, to_beat
from app.web.errors import STATUS
from app.web.middleware.address import Networks, check_address, networks_of
from app.web.middleware.authentication import Caller
from app.web.middleware.rate_limit import RateLimits
from app.web.middleware.signature import ID, SIGNATURE, Signatures, SignedMessage
from app.web.middleware.size import bounded_body
from app.web.parse import parse_object
from app.web.ports import Place, Ports
from app.web.schemas import TOKEN, to_alert
from app.web.values import shown

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
T = TypeVar("T")
Read = Callable[[dict[str, Any], Caller, SignedMessage | None], T]


class Door:
    """Size, address, authentication, schema: from a request to an Alert, or a recorded refusal."""

    def __init__(self, ports: Ports, rates: RateLimits) -> None:
        self.ports, self.callers, self.rates = ports, ports.callers, rates
        self.in_flight = InFlight()
        self.afterwards = Afterwards(ports.store, ports.scope, ports.clock.monotonic)
        settings = ports.settings
        self._allowed = settings.ip_allowlist, networks_of(settings.ip_allowlist)
        self.callers.of_webhook = self.allowed
        self.signatures = Signatures(
            settings.webhook_hmac_secrets.get_secret_value(), ports.clients or NoClients()
        )

    def alert(self, *, by_header: bool, is_sent: bool = True) -> tuple[Alert, Caller]:
        """The alert of the present request. Raises AlertRefused, after keeping a record of it, and Unavailable, with a
        record where there is an order to be sent.
        """
        return self._come_in(self._read, by_header=by_header, is_sent=is_sent)

    def alert_or_beat(self) -> tuple[Alert | Beat, Caller]:
        """The same where a heartbeat may come too."""
        return self._come_in(self._read_either, by_header=False, is_sent=True)

    def _come_in(self, read: Read[T], *, by_header: bool, is_sent: bool) -> tuple[T, Caller]:
        settings = self.ports.settings
        raw, body, caller = b"", {}, None
        try:
            if by_header and ("Authorization" in request.headers or SIGNATURE not in request.headers):
                caller = self.callers.bearer(request, ClientScope.ORDERS)
            raw = bounded_body(request, settings.max_content_length)
            if not by_header:
                check_address(self.callers.address(request), self.allowed())
            message = self._signed(raw)
            body = parse_object(raw)
            if caller is None:
                caller = self.callers.alert(request, body, is_signed=message is not None)
            if message is None and settings.require_signature and not caller.is_admin:
                raise self.callers.refused(request, "expected a signature as well (REQUIRE_SIGNATURE)")
            found = read(body, caller, message)
        except AlertRefused as refused:
            error = self._counted(refused, caller)
            self.keep(error, raw, body, caller)
            raise error from refused.__cause__
        except Unavailable as failed:
            if is_sent:
                self.keep(failed, raw, body, caller)
            raise
        return found, caller

    def _counted(self, error: AlertRefused, caller: Caller | None) -> AlertRefused:
        """What is wrong with a known sender's alert is a request of his like any other: only what could be read counts
        as an alert, and a broken template must not keep writing.
        """
        if caller is None or isinstance(error, TooManyRequests):
            return error
        try:
            self.rates.refused(caller.client)
        except TooManyRequests as flood:
            return flood
        return error

    def allowed(self) -> Networks:
        """IP_ALLOWLIST as it is in force."""
        config = self.ports.config
        if config is not None and (text := config.known().effective.ip_allowlist) != self._allowed[0]:
            self._allowed = text, networks_of(text)
        return self._allowed[1]

    def urgency(self, alert: Alert) -> Urgency | None:
        return urgency_of(self.ports.desk(), alert, g.request_id, g.started)

    def _signed(self, raw: bytes) -> SignedMessage | None:
        try:
            return self.signatures.check(request.headers, raw, self.ports.clock.now())
        except NotAuthenticated as error:
            raise self.callers.refused(request, error.detail) from None

    def _read_either(
        self, body: dict[str, Any], caller: Caller, message: SignedMessage | None
    ) -> Alert | Beat:
        if not is_beat(body):
            return self._read(body, caller, message)
        if message is not None:
            self.signatures.once(message, caller.client, None, self.ports.clock.now())
        return to_beat(body, caller.client)

    def _read(self, body: dict[str, Any], caller: Caller, message: SignedMessage | None) -> Alert:
        now, header_key = self.ports.clock.now(), request.headers.get("Idempotency-Key")
        product = self.ports.settings.default_product_type
        alert = replace(to_alert(body, caller.client, now, header_key, product), limits=caller.limits)
        if message is None:
            return alert
        self.signatures.once(message, caller.client, header_key, now)
        if alert.key.kind is KeyKind.EXPLICIT:
            return alert
        # A copy of the message is fresh for longer than the dedupe window: its id is what makes it the same alert.
        key = key_of(caller.client, f"{ID}:{message.id}", alert.key.body_hash, now)
        return replace(alert, key=key)

    def keep(
        self, error: AlertRefused | Unavailable, raw: bytes, body: dict[str, Any], caller: Caller | None
    ) -> None:
        """The bounded record. It must not cost the answer: the sender's cause stands in the answer itself. A 503 that a
        faultless service would have said as well leaves none.
        """
        if isinstance(error, Unavailable) and error.code in NOT_OURS:
            return
        # A flood, of strangers or of one client, must not queue before the trader's order.
        is_flood = caller is None or isinstance(error, TooManyRequests)
        if is_flood and not self.callers.failures.may_record():
            return
        known = {} if isinstance(error, (NotAuthenticated, TooManyRequests)) else body
        refusal = Refusal(
            at=self.ports.clock.now(),
            address=self.callers.address(request),
            client=caller.client if caller else None,
            status=STATUS[type(error)],
            code=error.code,
            detail=masked(error.detail)[:MAX_DETAIL],
            body_hash=hashlib.sha256(raw).hexdigest(),
            safe_fields={
                k.lower(): shown(v) for k, v in known.items() if k.lower() in SAFE_FIELDS and k != TOKEN
            },
            request_id=g.request_id,
        )
        if isinstance(error, Unavailable):
            self.afterwards.add(refusal)
            return
        try:
            self.ports.store.record_refusal(self.ports.scope, refusal)
        except StoreUnavailable:
            structlog.get_logger("refused").warning(
                "refusal_not_recorded", code=error.code, status=refusal.status
            )


def blueprint(door: Door, place_order: Place) -> Blueprint:
    routes = Blueprint("webhook", __name__)
    routes.after_app_request(door.afterwards.follow)

    @routes.post("/webhook")
    def webhook() -> Response:
        with phase("auth"):
            alert, caller = door.alert_or_beat()
        if isinstance(alert, Beat):
            return beaten(door, alert, caller)
        return submit(door, place_order, alert, caller)

    return routes


def beaten(door: Door, came: Beat, caller: Caller) -> Response:
    """A heartbeat is kept, and nothing else happens. Raises StoreUnavailable, InvalidAlert and TooManyRequests."""
    ports, now = door.ports, door.ports.clock.now()
    try:
        if ports.beside is None:
            raise StoreUnavailable("heartbeats cannot be kept here")
        door.rates.heartbeat(came.client)
        beat(ports.beside.heartbeats, came, now, ports.notifier)
    except (AlertRefused, Unavailable) as error:
        door.keep(error, b"", {}, caller)
        raise
    note(outcome=HEARTBEAT)
    due = ist(now + allowed(came.every_seconds))
    return jsonify({"status": "ok", "strategy": came.strategy, "missing_after": due})


def submit(door: Door, place_order: Place, alert: Alert, caller: Caller) -> Response:
    """One alert to its answer. What is refused or fails on the way leaves its record too; a copy of what is being worked on needs
    none, since the order's row tells of it, and counts in no limit: 63 of them must be in nobody's way.
    """
    with door.in_flight.only(alert):
        try:
            door.rates.alert(alert, door.urgency)
            answer = place_order(alert, request_id=g.request_id, started=g.started)
        except KeyInUse:
            raise
        except (AlertRefused, Unavailable) as error:
            door.keep(error, b"", {"symbol": alert.symbol, "action": alert.action.value}, caller)
            raise
    answered(answer.order, replayed=answer.replayed)
    return answer_of(answer)
