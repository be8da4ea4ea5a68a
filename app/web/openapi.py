"""/openapi.json: OpenAPI 3.1 from the pydantic models and this table of routes."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify
from pydantic.json_schema import models_json_schema

from app.web.schemas import AlertBody, OrderAnswer, Problem

REF = "#/components/schemas/{model}"
ALERT_ANSWERS = (200, 202, 400, 401, 403, 409, 413, 422, 503)
QUERY = {
    "/api/v1/orders": ("from", "to", "status", "symbol", "strategy", "cursor", "limit"),
    "/api/v1/contracts": ("symbol", "strike", "type", "expiry", "exchange"),
    "/api/v1/refused": ("limit",),
}
ROUTES: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("post", "/webhook", "An alert, its token in the body", ALERT_ANSWERS),
    ("post", "/api/v1/orders", "A manual order, bearer token", ALERT_ANSWERS),
    ("get", "/api/v1/orders", "Orders, newest first", (200, 400, 401, 503)),
    ("get", "/api/v1/orders/{order_id}", "One order with its timeline", (200, 401, 404, 503)),
    ("get", "/api/v1/contracts", "Which contract would be chosen, and why", (200, 400, 401, 404, 503)),
    ("post", "/api/v1/check", "What would become of an alert; sends nothing", (200, 400, 401, 413, 503)),
    ("get", "/api/v1/refused", "Alerts refused before an order existed", (200, 400, 401, 403, 503)),
    ("get", "/healthz", "Whether the process lives", (200,)),
    ("get", "/readyz", "Whether this instance should get traffic", (200, 503)),
    ("get", "/readyz/orders", "Whether an entry could be placed now", (200, 503)),
)


def document() -> dict[str, Any]:
    _, schemas = models_json_schema(
        [(AlertBody, "validation"), (OrderAnswer, "serialization"), (Problem, "serialization")],
        ref_template=REF,
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, answers in ROUTES:
        paths.setdefault(path, {})[method] = _operation(method, path, summary, answers)
    return {
        "openapi": "3.1.0",
        "info": {"title": "TradingView alerts to Fyers option orders", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(method: str, path: str, summary: str, answers: tuple[int, ...]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {str(a): _answer(method, path, a) for a in answers},
    }
    if path.startswith("/api"):
        operation["security"] = [{"bearer": []}]
    if method == "post":
        schema = {"$ref": REF.format(model="AlertBody")}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    names = QUERY.get(path, ()) if method == "get" else ()
    parameters: list[dict[str, Any]] = [
        {"name": n, "in": "query", "schema": {"type": "string"}} for n in names
    ]
    if "{order_id}" in path:
        parameters = [{"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if parameters:
        operation["parameters"] = parameters
    return operation


def _answer(method: str, path: str, status: int) -> dict[str, Any]:
    if status >= 400 and not path.startswith("/readyz"):
        content = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    elif method == "post" and path != "/api/v1/check":
        content = {"application/json": {"schema": {"$ref": REF.format(model="OrderAnswer")}}}
    else:
        content = {"application/json": {"schema": {"type": "object"}}}
    return {"description": str(status), "content": content}


def blueprint() -> Blueprint:
    routes = Blueprint("openapi", __name__)

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document())

    return routes
