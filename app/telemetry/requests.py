"""What happens around every request: its id and trail at the beginning, its figures and one canonical line at the end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, g, request

from app.service import observe
from app.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from app.telemetry.tracing import Tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*", re.ASCII)
_CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/\d+)?(?:;.*)?", re.ASCII)
PROBES = ("/healthz", "/readyz", "/readyz/orders", "/metrics")
"""Asked every few seconds: counted, and not worth a line."""


def trace_of(traceparent: str, cloud: str) -> str:
    """The trace that a request says it belongs to (W3C, or Google's own header); empty when it says none."""
    found = _TRACEPARENT.fullmatch(traceparent[:200]) or _CLOUD_TRACE.fullmatch(cloud[:200])
    return found[1] if found and set(found[1]) != {"0"} else ""


def watch(app: Flask, monotonic: Callable[[], float], metrics: Metrics, tracing: Tracing | None) -> None:
    """Before anything else of the app's: what follows may count on the request's id."""
    log = structlog.get_logger("request").bind()  # what `configure` has set up, looked up once

    @app.before_request
    def begin() -> None:
        waited = observe.queued_s()
        g.started = monotonic() - (waited or 0.0)  # the sender's patience began with its first byte
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        trail = observe.Trail("request", g.request_id, spans=tracing)
        observe.begin(trail)
        if waited is not None:
            trail.phases["queue"] = waited
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        observe.hide(token.strip() or kind)
        if tracing is not None:
            g.span = tracing.request(trail, request.method, route(), _w3c())
        else:
            headers = request.headers
            trail.trace_id = trace_of(
                headers.get("traceparent", ""), headers.get("X-Cloud-Trace-Context", "")
            )

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["Cache-Control"] = "no-store"
        trail = observe.current()
        if trail is None or "started" not in g:
            return response
        took = monotonic() - g.started
        try:
            metrics.request(trail, request.method, route(), response.status_code, took)
            if tracing is not None and "span" in g:
                response.headers["traceresponse"] = tracing.answered(g.span, trail, response.status_code)
            line(log, trail, request.method, request.path, response.status_code, took)
        except Exception:  # the order may be at the broker: its answer stands
            log.exception("what was answered could not be noted")
        return response

    @app.teardown_request
    def done(error: BaseException | None) -> None:
        if tracing is not None and "span" in g:
            tracing.done(g.pop("span"), error)
        observe.begin(None)


def _w3c() -> dict[str, str]:
    given = request.environ  # asked for at every request: half the price of `request.headers`
    found = {"traceparent": given.get("HTTP_TRACEPARENT"), "tracestate": given.get("HTTP_TRACESTATE")}
    return {name: value for name, value in found.items() if value}


def route() -> str:
    """The rule, never the path: a path can be anything."""
    return request.url_rule.rule if request.url_rule is not None else "unmatched"


def line(
    log: structlog.typing.FilteringBoundLogger,
    trail: observe.Trail,
    method: str,
    path: str,
    status: int,
    took: float,
) -> None:
    """One line that says all of a request, unless it is a probe's."""
    if path in PROBES:
        return
    log.info(
        "request",
        method=method,
        path=path,
        status=status,
        client=trail.client,
        contract=trail.contract,
        strategy=trail.order.strategy or None if trail.order is not None else None,
        outcome=trail.outcome,
        code=trail.code,
        replayed=trail.replayed or None,
        took_ms=round(took * 1000, 1),
        phases_ms={name: round(s * 1000, 1) for name, s in trail.phases.items()} or None,
    )
