"""From a fault's name to what goes over the wire in place of the proper answer."""

from __future__ import annotations

from dataclasses import replace

from tests.simulator.faults import Fault
from tests.simulator.wire import (
    Refusal,
    Reply,
    algo_restricted,
    encode,
    html,
    margin_shortfall,
    not_authenticated,
    ok,
    request_limit,
)

_PAGES: dict[str, tuple[int, str]] = {
    "html_200": (200, "Fyers"),
    "cloudflare_403": (403, "Attention Required! | Cloudflare"),
    "html_502": (502, "502 Bad Gateway"),
    "html_503": (503, "503 Service Temporarily Unavailable"),
}
_STOCK = ok(1101, "Successfully placed order", id="00000000000000")


def spoil(fault: Fault, proper: Reply | None, endpoint: str, app_id: str, client_id: str) -> Reply:
    """The answer under a fault. `proper` is None when a write was not carried out."""
    base = fault.base
    reply = proper if proper is not None else _STOCK
    if base in _PAGES:
        return html(*_PAGES[base], answer=base)
    if base == "no_ack":
        text = (
            "Order request has been made but no acknowledgement has been received, please check the orderbook"
        )
        return ok(201, text, answer="no_ack")
    if base == "http_500":
        body = encode({"code": -96, "message": "Unexpected error", "s": "error"})
        return Reply(500, body, answer="http_500")
    if base == "custom":
        kind = dict(fault.headers).get("Content-Type", "application/json")
        extra = tuple(pair for pair in fault.headers if pair[0] != "Content-Type")
        return Reply(fault.status, fault.body.encode(), extra, kind, "custom")
    if base == "truncated":
        return replace(reply, body=reply.body[: len(reply.body) // 2], answer="truncated")
    if base in (
        "short_body",
        "drip_body",
        "drip_headers",
        "close_after",
        "hang",
        "reset",
        "reset_unread",
        "disconnect",
    ):
        answer = reply.answer if base in ("drip_body", "drip_headers", "close_after") else base
        return replace(reply, delivery=base, seconds=fault.seconds, answer=answer)
    if fault.name == "slow_created":
        return replace(reply, delivery="slow", seconds=fault.seconds)
    refusal = _refusal(fault, endpoint, app_id, client_id)
    return reply if refusal is None else refusal.reply()


def _refusal(fault: Fault, endpoint: str, app_id: str, client_id: str) -> Refusal | None:
    if fault.name == "rate_429":
        return request_limit(fault.seconds)
    if fault.name == "auth_401":
        return not_authenticated(endpoint)
    if fault.name == "algo_restricted":
        return algo_restricted(app_id)
    if fault.name == "bad_symbol":
        return Refusal(-50, "The input symbol is invalid.")
    if fault.name == "rms_reject":
        return Refusal(-99, margin_shortfall(client_id))
    return None
