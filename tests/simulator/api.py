"""Endpoints: the checks in the broker's order, the handlers, and the ledger line before any byte of the
answer.

Order of the checks (contract): fault, token, rate limit, app permission, validation. (A) One budget for
/api/v3 and /data; a path that does not exist is a JSON 404; POST /orders and POST /data/quotes meet
Cloudflare's 403 page (M).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.auth import Tokens
from tests.simulator.desk import Desk
from tests.simulator.exchange import Exchange
from tests.simulator.faults import ORDER_POST, Fault
from tests.simulator.ledger import Ledger
from tests.simulator.limits import RateLimits
from tests.simulator.masters import Masters
from tests.simulator.spoil import spoil
from tests.simulator.validation import bad, parse_order, slice_size
from tests.simulator.wire import (
    JsonObject,
    Refusal,
    Reply,
    Request,
    algo_restricted,
    encode,
    html,
    margin_shortfall,
    not_authenticated,
    ok,
)

_CANCEL_PATH = re.compile(r"^/api/v3/orders/([^/]+)/sync$")
_OP_KINDS = {
    ORDER_POST: "order",
    "PATCH /orders/sync": "modify",
    "DELETE /orders/sync": "cancel",
    "DELETE /positions": "exit_position",
    "PATCH /positions": "position_legs",
    "POST /logout": "logout",
}
_ORDER_OPS = frozenset(
    {ORDER_POST, "PATCH /orders/sync", "DELETE /orders/sync", "DELETE /positions", "PATCH /positions"}
)
_OPEN = frozenset(
    {"POST /validate-authcode", "POST /validate-refresh-token", "GET /generate-authcode", "POST /logout"}
)
_ROWS = {"GET /orders": "orderBook", "GET /tradebook": "tradeBook", "GET /positions": "netPositions"}


def endpoint_of(method: str, path: str) -> str:
    """`POST /orders/sync`, `GET /data/quotes`, `GET /master/NSE_FO.csv`: what faults and counters are keyed by."""
    if method == "DELETE" and _CANCEL_PATH.match(path):
        return "DELETE /orders/sync"
    return f"{method} {path.removeprefix('/api/v3')}"


@dataclass
class Made:
    """The order ids that a write created."""

    ids: list[str] = field(default_factory=list)


@dataclass
class Api:
    """Answers one request. State is guarded by the exchange's lock; the ledger's fsync happens outside of it."""

    exchange: Exchange
    tokens: Tokens
    limits: RateLimits
    ledger: Ledger
    masters: Masters
    order_permission: bool = True
    bracket_mode: str = "accepted"
    funds: float = 1_000_000.0

    def answer(self, request: Request, endpoint: str, fault: Fault | None) -> Reply:
        """The reply to send; whatever it says is already in the ledger."""
        self.ledger.count(endpoint)
        app_id = self.tokens.app_of(request)
        made = Made()
        proper: Reply | None = None
        is_write = endpoint in _OP_KINDS
        if fault is None or fault.carries_out or not is_write:
            with self.exchange.lock:
                proper = self._proper(request, endpoint, app_id, fault, made)
        reply = proper if proper is not None else Reply(500, b"")
        if fault is not None and fault.name == "rms_reject_with_id" and made.ids:
            reply = Refusal(-99, margin_shortfall(self.exchange.client_id), order_id=made.ids[0]).reply()
        elif fault is not None:
            reply = spoil(fault, proper, endpoint, app_id, self.exchange.client_id)
        if is_write:
            self.record(request, endpoint, fault, reply, made.ids)
        else:
            name = fault.name if fault else None
            self.ledger.record_read(
                endpoint, at=self.exchange.clock().isoformat(), fault=name, answer=reply.answer
            )
        return reply

    def record(
        self, request: Request, endpoint: str, fault: Fault | None, reply: Reply, ids: list[str]
    ) -> None:
        """The ledger line of a write, on disk when this returns."""
        try:
            body = request.json()
        except ValueError:
            body = {"unreadable": request.body[:500].decode("utf-8", "replace")}
        path_id = _CANCEL_PATH.match(request.path)
        fields: JsonObject = {"target": path_id[1]} if path_id else {}
        self.ledger.record(
            _OP_KINDS[endpoint],
            at=self.exchange.clock().isoformat(),
            app_id=self.tokens.app_of(request),
            body=body,
            order_id=ids[0] if ids else None,
            order_ids=ids,
            fault=fault.name if fault else None,
            answer=reply.answer,
            status=reply.status,
            **fields,
        )

    def _proper(self, request: Request, endpoint: str, app_id: str, fault: Fault | None, made: Made) -> Reply:
        try:
            if request.path.startswith("/master/"):
                return self.masters.serve(request, request.path.removeprefix("/master/"))
            if fault is not None and fault.name == "empty" and endpoint in _ROWS:
                return Reply(200, encode({"s": "ok", "code": 200, "message": "", _ROWS[endpoint]: []}))
            handler = self._handlers().get(endpoint)
            if endpoint in ("POST /orders", "POST /data/quotes"):
                return html(403, "Attention Required! | Cloudflare", answer="cloudflare_403")
            if handler is None:
                return Reply(404, encode({"code": 404, "message": "Not found", "s": "error"}), answer="404")
            if endpoint not in _OPEN:
                self._check(request, endpoint, app_id)
            return handler(request, fault, made)
        except Refusal as refusal:
            return refusal.reply()

    def _check(self, request: Request, endpoint: str, app_id: str) -> None:
        if not self.tokens.accepts(request):
            raise not_authenticated(endpoint)
        is_order = endpoint in _ORDER_OPS
        self.limits.check(app_id, is_order=is_order)
        if is_order and not (self.order_permission and app_id.endswith("-200")):
            raise algo_restricted(app_id)

    def _handlers(self) -> dict[str, Callable[[Request, Fault | None, Made], Reply]]:
        desk, tokens, exchange = Desk(self.exchange), self.tokens, self.exchange
        return {
            ORDER_POST: self._place,
            "PATCH /orders/sync": lambda r, f, m: desk.modify(_object(r)),
            "DELETE /orders/sync": lambda r, f, m: desk.cancel(_cancel_id(r)),
            "DELETE /positions": lambda r, f, m: _exit(desk, r, m),
            "PATCH /positions": lambda r, f, m: desk.protect(_object(r)),
            "GET /orders": lambda r, f, m: ok(orderBook=_filtered(exchange.order_rows(), r)),
            "GET /tradebook": lambda r, f, m: ok(tradeBook=_filtered(exchange.trade_rows(), r)),
            "GET /positions": lambda r, f, m: self._positions(),
            "GET /funds": lambda r, f, m: ok(fund_limit=_funds(self.funds)),
            "GET /profile": lambda r, f, m: ok(data=_profile(self.tokens.fy_id)),
            "GET /data/quotes": self._quotes,
            "GET /data/depth": self._depth,
            "GET /data/marketStatus": lambda r, f, m: ok(marketStatus=exchange.quotes.market_status()),
            "GET /generate-authcode": lambda r, f, m: tokens.redirect(r),
            "POST /validate-authcode": lambda r, f, m: tokens.exchange_code(_object(r)),
            "POST /validate-refresh-token": lambda r, f, m: tokens.exchange_refresh(_object(r)),
            "POST /logout": lambda r, f, m: tokens.logout(r),
        }

    def _place(self, request: Request, fault: Fault | None, made: Made) -> Reply:
        intent = parse_order(_json(request), self.masters, self.exchange.clock())
        if intent.product in ("BO", "CO") and self.bracket_mode != "accepted":
            raise bad(f"productType: {intent.product} is not allowed")
        later = fault.appear_after if fault is not None else 0.0
        is_rejected = fault is not None and fault.name == "rms_reject_with_id"
        no = margin_shortfall(self.exchange.client_id) if is_rejected else ""
        freeze = intent.instrument.freeze
        if intent.slice and freeze is not None and intent.qty > freeze:
            parts = self.exchange.sliced(intent, slice_size(intent.instrument))
            made.ids += [self.exchange.place(part, appear_after=later, rejected=no).id for part in parts]
            return _slice_reply(made.ids)
        order = self.exchange.place(intent, appear_after=later, rejected=no)
        made.ids.append(order.id)
        return ok(1101, "Successfully placed order", answer="accepted", id=order.id)

    def _positions(self) -> Reply:
        rows = self.exchange.position_rows()
        overall = {
            "count_total": len(rows),
            "count_open": sum(1 for row in rows if row["netQty"]),
            "pl_total": sum(row["pl"] for row in rows),
            "pl_realized": sum(row["realized_profit"] for row in rows),
            "pl_unrealized": sum(row["unrealized_profit"] for row in rows),
        }
        return ok(netPositions=rows, overall=overall)

    def _quotes(self, request: Request, fault: Fault | None, made: Made) -> Reply:
        tickers = [name for name in request.query.get("symbols", "").split(",") if name]
        if not tickers or len(tickers) > 50:
            raise bad("symbols: expected 1 to 50 symbols")
        return Reply(200, encode({"s": "ok", "code": 200, "d": self.exchange.quotes.rows(tickers)}))

    def _depth(self, request: Request, fault: Fault | None, made: Made) -> Reply:
        ticker = request.query.get("symbol", "")
        depth = self.exchange.quotes.depth(ticker)
        if depth is None:
            raise Refusal(-300, "Please provide a valid symbol")
        return ok(d={ticker: depth})


def _json(request: Request) -> Any:
    try:
        return request.json()
    except ValueError:
        raise bad("Invalid input") from None


def _object(request: Request) -> JsonObject:
    body = _json(request)
    if not isinstance(body, dict):
        raise bad("Invalid input")
    return body


def _cancel_id(request: Request) -> Any:
    in_path = _CANCEL_PATH.match(request.path)
    return in_path[1] if in_path else _object(request).get("id")


def _exit(desk: Desk, request: Request, made: Made) -> Reply:
    reply, ids = desk.exit(_object(request))
    made.ids += ids
    return reply


def _filtered(rows: list[JsonObject], request: Request) -> list[JsonObject]:
    """?id= and ?order_tag=1:<tag>, both exact (A)."""
    order_id, tag = request.query.get("id"), request.query.get("order_tag")
    if order_id is not None:
        rows = [row for row in rows if order_id == row.get("id", row.get("orderNumber"))]
    return rows if tag is None else [row for row in rows if row["orderTag"] == tag]


def _slice_reply(ids: list[str]) -> Reply:
    """(D) no `s` and no `id` at the top."""
    data = [
        {
            "statusCode": 200,
            "body": {"code": 1101, "message": "Successfully placed order", "s": "ok", "id": order_id},
            "statusDescription": "OK",
        }
        for order_id in ids
    ]
    body: JsonObject = {"code": 1101, "message": "Order Slice placed successfully", "data": data}
    return Reply(200, encode(body), answer="accepted")


def _funds(available: float) -> list[JsonObject]:
    titles = [
        "Total Balance",
        "Utilized Amount",
        "Clear Balance",
        "Realized Profit and Loss",
        "Collaterals",
        "Fund Transfer",
        "Receivables",
        "Adhoc Limit",
        "Limit at start of the day",
        "Available Balance",
    ]
    amounts = {1: available, 3: available, 9: available, 10: available}
    return [
        {"id": n, "title": title, "equityAmount": amounts.get(n, 0), "commodityAmount": 0}
        for n, title in enumerate(titles, 1)
    ]


def _profile(fy_id: str) -> JsonObject:
    return {
        "fy_id": fy_id,
        "name": "SIMULATED TRADER",
        "image": None,
        "display_name": None,
        "pin_change_date": "01-01-2026 00:00:00",
        "email_id": "",
        "pwd_change_date": None,
        "PAN": "",
        "mobile_number": "",
        "totp": True,
        "pwd_to_expire": 90,
        "ddpi_enabled": False,
        "mtf_enabled": False,
    }
