"""/openapi.json: OpenAPI 3.1 from the pydantic models and this table of routes.

A test sends every documented answer of every route, so the table holds what a route can give and nothing else.
405 stands nowhere, because only a method that is not documented gets it; 500 never, because none is meant to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.domain.alert import Exchange, OptionType
from app.domain.status import Status
from app.web import answer_schemas as a
from app.web.beat_schemas import WebhookBody
from app.web.control import ResolveBody, StateBody
from app.web.errors import TITLES
from app.web.kill import KillBody
from app.web.middleware import signature
from app.web.schemas import MAX_KEY, AlertBody

REF = "#/components/schemas/{model}"
ABOUT = (
    "Names and enum values of an alert are matched without regard to case, and numbers may come as texts. "
    "Whatever goes wrong is answered as problem details, also 404 for another path and 405 for another method."
)
GOOD = {
    200: "Done; for an alert: the broker has accepted it, which is not a fill",
    202: "Outcome not known yet, or an exit that waits for one; a repeat is harmless",
}
HEADERS = {401: "WWW-Authenticate", 409: "Retry-After", 429: "Retry-After", 503: "Retry-After"}

BEARER_PATHS = ("/metrics", "/auth-url", "/generate-token", "/refresh-token", "/logout")

Parameters = tuple[dict[str, Any], ...]


def _query(name: str, *, required: bool = False, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": {"type": "string", **schema}}


LIMIT = _query("limit", type="integer", minimum=1, maximum=200, default=50)


def _header(name: str, description: str, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


SIGNED = "Standard Webhooks, the three together, where WEBHOOK_HMAC_SECRETS is set: "
ALERTS: Parameters = (
    _header(
        "Idempotency-Key",
        "stronger than the body's idempotency_key; belongs to its IST date",
        minLength=1,
        maxLength=MAX_KEY,
    ),
    _header(signature.ID, SIGNED + "the message's own id", pattern=f"^{signature.ID_PATTERN}$"),
    _header(
        signature.TIMESTAMP,
        SIGNED + f"Unix seconds, within {signature.TOLERANCE_S} of now",
        pattern=f"^{signature.SECONDS_PATTERN}$",
    ),
    _header(signature.SIGNATURE, SIGNED + "v1 and the HMAC-SHA256 in base64, by a comma; several by blanks"),
)
ORDER_ID: Parameters = ({"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}},)
JOB: Parameters = ({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},)
FILTERS: Parameters = (
    _query("from", format="date", description="IST date"),
    _query("to", format="date", description="IST date"),
    _query("status", enum=list(Status)),
    _query("symbol", description="the underlying"),
    _query("strategy"),
    _query("cursor", description="next_cursor of the page before"),
    LIMIT,
)
CONTRACT: Parameters = (
    _query("symbol", required=True, description="the underlying"),
    _query("strike", required=True, type="number", exclusiveMinimum=0),
    _query("type", required=True, enum=list(OptionType)),
    _query("expiry", default="WEEKLY", description="a rule or an ISO date"),
    _query("exchange", enum=list(Exchange)),
)


@dataclass(frozen=True, slots=True)
class Route:
    """`good`: the answer's shape per status; None: any object. `refusals`: statuses with problem details."""

    method: str
    path: str
    summary: str
    good: dict[int, type[BaseModel] | None]
    refusals: tuple[int, ...] = ()
    parameters: Parameters = ()
    body: type[BaseModel] | None = None
    is_text: bool = False


PLACED: dict[int, type[BaseModel] | None] = {200: a.OrderAnswer, 202: a.OrderAnswer}
READY: dict[int, type[BaseModel] | None] = {200: a.Readiness, 503: a.Readiness}
ROUTES: tuple[Route, ...] = (
    Route(
        "post",
        "/webhook",
        "An alert or a strategy's heartbeat, its token in the body",
        {200: a.WebhookAnswer, 202: a.OrderAnswer},
        (400, 401, 403, 409, 413, 422, 429, 503),
        ALERTS,
        WebhookBody,
    ),
    Route(
        "post",
        "/api/v1/orders",
        "A manual order, bearer token",
        PLACED,
        (400, 401, 403, 409, 413, 422, 429, 503),
        ALERTS,
        AlertBody,
    ),
    Route(
        "get",
        "/api/v1/orders",
        "Orders, newest first",
        {200: a.OrderList},
        (400, 401, 403, 429, 503),
        FILTERS,
    ),
    Route(
        "get",
        "/api/v1/orders/{order_id}",
        "One order with its timeline",
        {200: a.OrderTimeline},
        (401, 403, 404, 429, 503),
        ORDER_ID,
    ),
    Route(
        "get",
        "/api/v1/contracts",
        "Which contract would be chosen, and why",
        {200: a.ContractView},
        (400, 401, 403, 404, 429, 503),
        CONTRACT,
    ),
    Route(
        "post",
        "/api/v1/check",
        "What would become of an alert; sends nothing",
        {200: a.CheckAnswer},
        (400, 401, 403, 413, 429, 503),
        body=AlertBody,
    ),
    Route(
        "get",
        "/api/v1/refused",
        "Alerts refused before an order existed; admin token",
        {200: a.RefusalList},
        (400, 401, 403, 429, 503),
        (LIMIT,),
    ),
    Route(
        "get",
        "/api/v1/state",
        "The trading state, who set it and why, and what waits for a look; admin token",
        {200: a.StateView},
        (401, 403, 429, 503),
    ),
    Route(
        "post",
        "/api/v1/state",
        "Halt, reduce or resume; resuming acknowledges the strangers; admin token",
        {200: a.StateSetView},
        (400, 401, 403, 413, 429, 503),
        body=StateBody,
    ),
    Route(
        "post",
        "/api/v1/kill",
        "Halt, and cancel what works or close what is held; admin token",
        {200: a.KillAnswer},
        (400, 401, 403, 413, 503),
        body=KillBody,
    ),
    Route(
        "post",
        "/api/v1/orders/{order_id}/resolve",
        "A person's verdict on an order that nothing could prove; admin token",
        {200: a.OrderView},
        (400, 401, 403, 404, 413, 429, 503),
        ORDER_ID,
        ResolveBody,
    ),
    Route(
        "post",
        "/internal/jobs/{name}",
        "Run a job once, now; admin token, or Cloud Scheduler's where it is configured",
        {200: a.JobAnswer},
        (401, 403, 404, 429, 503),
        JOB,
    ),
    Route("get", "/healthz", "Whether the process lives", {200: a.Health}),
    Route("get", "/readyz", "Whether this instance should get traffic", READY, (401, 429)),
    Route("get", "/readyz/orders", "Whether an entry could be placed now", READY, (401, 429)),
    Route(
        "get",
        "/metrics",
        "The service's figures for Prometheus; admin token",
        {200: None},
        (401, 403, 429, 503),
        is_text=True,
    ),
    Route("get", "/openapi.json", "This document", {200: None}, (429,)),
)


def document(more: tuple[Route, ...] = ()) -> dict[str, Any]:
    """The document; `more`: routes that only some settings have."""
    routes = ROUTES + more
    good = {model for route in routes for model in route.good.values() if model is not None}
    bodies = {route.body for route in routes if route.body is not None}
    models: list[type[BaseModel]] = sorted({*good, *bodies, a.Problem}, key=lambda model: model.__name__)
    wanted: list[tuple[type[BaseModel], Literal["validation"]]] = [(m, "validation") for m in models]
    # Not for "serialization": there a field with a default counts as always present.
    _, schemas = models_json_schema(wanted, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "TradingView alerts to Fyers option orders", "version": "1", "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    kind = "text/plain" if route.is_text else "application/json"
    answers = {status: _answer(status, kind, model) for status, model in route.good.items()}
    answers |= {status: _problem(status) for status in route.refusals}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {str(status): answers[status] for status in sorted(answers)},
    }
    if route.path.startswith(("/api", "/internal", *BEARER_PATHS)):
        operation["security"] = [{"bearer": []}]
    if route.body is not None:
        schema = {"$ref": REF.format(model=route.body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.parameters:
        operation["parameters"] = list(route.parameters)
    return operation


def _answer(status: int, media_type: str, model: type[BaseModel] | None) -> dict[str, Any]:
    schema = {"type": "string" if media_type == "text/plain" else "object"}
    if model is not None:
        schema = {"$ref": REF.format(model=model.__name__)}
    words = GOOD[status] if status in GOOD else TITLES[status]
    return {"description": words, "content": {media_type: {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    answer = _answer(status, "application/problem+json", a.Problem)
    if status in HEADERS:
        answer["headers"] = {HEADERS[status]: {"required": True, "schema": {"type": "string"}}}
    return answer


def blueprint(more: tuple[Route, ...] = ()) -> Blueprint:
    routes = Blueprint("openapi", __name__)

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(more))

    return routes
