"""The one table from errors to HTTP, and the one shape of an error's body."""

from __future__ import annotations

import structlog
from flask import Flask, Response, current_app, g, json, request
from werkzeug.exceptions import HTTPException

from app import errors as e
from app.service.observe import masked, refused

STATUS: dict[type[e.ServiceError], int] = {
    e.AlertRefused: 400,
    e.MalformedBody: 400,
    e.InvalidAlert: 400,
    e.PriceUnavailable: 400,
    e.NotAuthenticated: 401,
    e.NotAllowed: 403,
    e.NotFound: 404,
    e.KeyInUse: 409,
    e.KeyClash: 422,
    e.LoginRefused: 422,
    e.BodyTooLarge: 413,
    e.TooManyRequests: 429,
    e.Unavailable: 503,
    e.StoreUnavailable: 503,
    e.StoreBusy: 503,
    e.CommitUnknown: 503,
    e.BrokerReadFailed: 503,
    e.TokenStoreUnavailable: 503,
    e.NotReconciled: 503,
    e.NoMaster: 503,
    e.OutOfBudget: 503,
    e.OutOfTime: 503,
}

TITLES = {
    400: "The request is wrong",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Already being worked on",
    413: "Too large",
    422: "Said no",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable, nothing was sent",
}
RETRY_AFTER_S = 5
"""TradingView re-sends 5 s after a 503; others may as well."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    outcome: str = "refused",
    fields: tuple[e.FieldError, ...] = (),
    extra: dict[str, object] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """RFC 9457 problem details; `code` is stable, `outcome` is the design's word for what became of it."""
    refused(outcome, code)
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, "Refused"),
        "status": status,
        "code": code,
        "detail": masked(detail),
        "outcome": outcome,
        "request_id": g.get("request_id", ""),
        "errors": [{"field": masked(f.field), "message": masked(f.message)} for f in fields],
        **(extra or {}),
    }
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if status in (409, 429, 503):
        response.headers["Retry-After"] = str(retry_after_s or (1 if status == 409 else RETRY_AFTER_S))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def of_service(error: e.ServiceError) -> Response:
    status = STATUS[type(error)]
    fields = error.errors if isinstance(error, e.AlertRefused) else ()
    outcome = "unavailable" if isinstance(error, e.Unavailable) else "refused"
    return problem(
        status, error.code, error.detail, outcome=outcome, fields=fields, retry_after_s=error.retry_after_s
    )


def of_http(error: HTTPException) -> Response:
    status = error.code or 500
    response = problem(
        status, (error.name or "error").lower().replace(" ", "_"), TITLES.get(status, error.name or "")
    )
    allow = error.get_headers(request.environ)
    response.headers.extend([(k, v) for k, v in allow if k == "Allow"])
    return response


def of_unexpected(error: Exception) -> Response:
    """An assumption broke. The trace goes to the log; the answer says nothing of the inside."""
    structlog.get_logger("error").exception("unexpected", error=type(error).__name__, path=request.path)
    if current_app.testing:
        raise error
    return problem(500, "internal", "an unexpected error, logged under this request_id")


def register(app: Flask) -> None:
    app.register_error_handler(e.ServiceError, of_service)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_unexpected)
