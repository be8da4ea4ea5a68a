"""The JSON API: manual orders and look-ups. Bearer token; the admin sees all clients, a client its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import TypeVar

from flask import Blueprint, Response, g, jsonify, request

from app.domain.alert import Exchange, ExpiryRule, OptionType
from app.domain.risk import Denial
from app.domain.status import Status
from app.errors import FieldError, InvalidAlert, NotFound
from app.service.observe import masked, phase
from app.service.records import OrderFilter
from app.web import answers
from app.web.middleware.authentication import ClientScope
from app.web.ports import Check, Place
from app.web.values import number, shown
from app.web.webhook import Door, submit

MAX_PAGE = 200
T = TypeVar("T")


def argument(name: str, convert: Callable[[str], T], expected: str) -> T | None:
    """One query argument; None when it is not given. Raises InvalidAlert naming it."""
    text = request.args.get(name)
    if not text:
        return None
    try:
        found = convert(text)
    except ValueError:
        found = None
    if found is None or "\0" in text or masked(text) != text:  # Postgres keeps no NUL, and no name has one
        raise InvalidAlert((FieldError(name, f"expected {expected}, was {shown(text)}"),))
    return found


def _page_size(text: str) -> int:
    size = int(text)
    if not 0 < size <= MAX_PAGE:
        raise ValueError(text)
    return size


def _strike(text: str) -> Decimal:
    found = number(text)
    if found is None or found <= 0:
        raise ValueError(text)
    return found


def _expiry(text: str) -> ExpiryRule | date:
    word = text.upper()
    return ExpiryRule(word) if word in ExpiryRule.__members__ else date.fromisoformat(text)


def _required(name: str, value: T | None) -> T:
    if value is None:
        raise InvalidAlert((FieldError(name, "expected a value, the argument is missing"),))
    return value


def blueprint(door: Door, place_order: Place, check_alert: Check) -> Blueprint:
    routes = Blueprint("orders", __name__, url_prefix="/api/v1")
    _orders(routes, door, place_order)
    _look_ups(routes, door, check_alert)
    return routes


def _orders(routes: Blueprint, door: Door, place_order: Place) -> None:
    ports = door.ports

    @routes.post("/orders")
    def place() -> Response:
        with phase("auth"):
            alert, caller = door.alert(by_header=True)
        return submit(door, place_order, alert, caller)

    @routes.get("/orders")
    def listing() -> Response:
        caller = ports.callers.bearer(request, ClientScope.READ)
        wanted = OrderFilter(
            client=None if caller.is_admin else caller.client,
            date_from=argument("from", date.fromisoformat, "a date like 2026-12-29"),
            date_to=argument("to", date.fromisoformat, "a date like 2026-12-29"),
            status=argument("status", lambda t: Status(t.upper()), "one of " + ", ".join(Status)),
            symbol=argument("symbol", str.upper, "an underlying"),
            strategy=argument("strategy", str, "a strategy's name"),
            cursor=argument("cursor", str, "a cursor of an earlier page"),
            limit=argument("limit", _page_size, f"1 to {MAX_PAGE}") or 50,
        )
        page = ports.store.list_orders(ports.scope, wanted)
        return jsonify(
            {"orders": [answers.order_body(o) for o in page.items], "next_cursor": page.next_cursor}
        )

    @routes.get("/orders/<order_id>")
    def one(order_id: str) -> Response:
        caller = ports.callers.bearer(request, ClientScope.READ)
        with ports.store.read() as tx:
            order = None if "\0" in order_id else tx.get_order(ports.scope, order_id.upper())
        if order is None or not (caller.is_admin or order.client == caller.client):
            raise NotFound("there is no such order")
        events = [answers.event_body(e) for e in ports.store.events(ports.scope, order.id)]
        return jsonify({**answers.order_body(order), "events": events})


def _look_ups(routes: Blueprint, door: Door, check_alert: Check) -> None:
    ports = door.ports

    @routes.get("/contracts")
    def contracts() -> Response:
        ports.callers.bearer(request, ClientScope.ORDERS, ClientScope.READ)
        found = ports.contracts.resolve(
            _required("symbol", argument("symbol", str.upper, "an underlying")),
            _required("strike", argument("strike", _strike, "a positive number")),
            _required("type", argument("type", lambda t: OptionType(t.upper()), "CE or PE")),
            argument("expiry", _expiry, "a rule or a date") or ExpiryRule.WEEKLY,
            argument("exchange", lambda t: Exchange(t.upper()), "NSE or BSE"),
            ports.clock.now(),
        )
        if isinstance(found, Denial):
            raise NotFound(found.reason, code=found.code)
        c = found.contract
        return jsonify(
            {
                "symbol": c.ticker,
                "exchange": c.exchange,
                "underlying": c.underlying,
                "underlying_symbol": c.underlying_ticker,
                "expiry": c.expiry.isoformat(),
                "session_end": answers.ist(c.session_end),
                "strike": answers.money(c.strike),
                "type": c.option_type,
                "lot": c.lot,
                "tick": answers.money(c.tick),
                "freeze_quantity": c.freeze,
                "master_date": c.master_date.isoformat(),
                "explanation": found.explanation,
            }
        )

    @routes.post("/check")
    def check() -> Response:
        alert, _ = door.alert(by_header=True, is_sent=False)
        return jsonify(answers.check_body(check_alert(alert, g.request_id, g.started)))

    @routes.get("/refused")
    def refused() -> Response:
        ports.callers.admin(request)
        limit = argument("limit", _page_size, f"1 to {MAX_PAGE}") or 50
        found = ports.store.list_refusals(ports.scope, limit)
        return jsonify({"refused": [answers.refusal_body(r) for r in found]})
