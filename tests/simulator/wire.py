"""Requests and replies as values, and the envelopes that Fyers answers with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole. `headers` have lower-case names."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object. ValueError if it is not JSON."""
        return json.loads(self.body) if self.body.strip() else {}


@dataclass(frozen=True)
class Reply:
    """What to send, and how. `answer` names its kind for the ledger; `delivery` is a word of `server.deliver`."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    answer: str = "ok"
    delivery: str = "normal"
    seconds: float = 0.0


@dataclass(eq=False)
class Refusal(Exception):
    """The broker says no: an HTTP status and an error envelope."""

    code: int
    message: str
    status: int = 400
    order_id: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    def reply(self) -> Reply:
        """As it goes over the wire."""
        body: JsonObject = {"code": self.code, "message": self.message, "s": "error"}
        if self.order_id is not None:
            body["id"] = self.order_id
        return Reply(self.status, encode(body), self.headers, answer=f"refused:{self.code}")


def encode(body: JsonObject) -> bytes:
    """JSON as Fyers writes it: compact."""
    return json.dumps(body, separators=(",", ":")).encode()


def ok(code: int = 200, message: str = "", *, answer: str = "ok", **fields: Any) -> Reply:
    """The success envelope: HTTP 200, `s: ok`."""
    return Reply(200, encode({"s": "ok", "code": code, "message": message, **fields}), answer=answer)


def html(status: int, title: str, *, answer: str) -> Reply:
    """A page of the proxy in front of the broker."""
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    headers = (("Server", "cloudflare"), ("CF-RAY", "8f00000000000000-BOM"))
    return Reply(status, page.encode(), headers, "text/html; charset=UTF-8", answer)


def not_authenticated(endpoint: str) -> Refusal:
    """-16 on trading endpoints, -15 on /data; 401 for both ((A) for /data)."""
    if " /data/" in endpoint:
        return Refusal(-15, "Please provide valid token", 401)
    return Refusal(-16, "Could not authenticate the user", 401)


def algo_restricted(app_id: str) -> Refusal:
    """-50 for an order call from the wrong app, address or permission (M: six independent reports)."""
    text = "Request rejected: Order placement restricted. Algo orders are not allowed from this app"
    return Refusal(-50, f"{text} {app_id}")


def margin_shortfall(client_id: str) -> str:
    """The RMS text of real rows (D)."""
    return f"RED:Margin Shortfall:INR 5,25,690.20 Available:INR 0.00 for C-{client_id} [FYERS_RISK_CUG]"


def request_limit(retry_after_s: float) -> Refusal:
    """429 with its two headers (D); the body's text is assumed (A)."""
    headers = (
        ("Retry-After", str(max(1, round(retry_after_s)))),
        ("X-Retry-After-Ms", str(max(1, round(retry_after_s * 1000)))),
    )
    return Refusal(-429, "request limit reached", 429, headers=headers)
