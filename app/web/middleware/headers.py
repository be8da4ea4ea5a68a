"""What every answer tells a browser: nothing is to be framed, sniffed, kept or run; and which pages may ask.

No page of another origin may read anything, unless CORS_ORIGINS names it. Credentials (cookies) are never allowed
across origins: the API takes a bearer token, which a page has to be given by its user.
"""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.datastructures import Headers

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    # Said over plain HTTP it means nothing, and behind a proxy with TLS it is what the browser gets.
    "Strict-Transport-Security": "max-age=31536000",
}
METHODS = "GET, POST, PUT"
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Request-Id"
EXPOSED = (
    "Idempotent-Replayed, Retry-After, X-Request-Id, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
)
PREFLIGHT_KEPT_S = 600


def harden(app: Flask, origins: frozenset[str]) -> None:
    """Security headers on every answer, and CORS for the given origins (`*`: all; empty: none)."""

    @app.before_request
    def preflight() -> Response | None:
        """Before anything is authenticated: a browser sends no token with the question whether it may."""
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asks or not _allowed(origins):
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_KEPT_S)
        return response

    @app.after_request
    def finish(response: Response) -> Response:
        for name, value in SECURITY.items():
            response.headers.setdefault(
                name, value
            )  # a page may have a stricter or a fitting policy of its own
        if origins:
            _cross_origin(response.headers, origins)
        return response


def _cross_origin(headers: Headers, origins: frozenset[str]) -> None:
    if "*" not in origins:
        headers.add("Vary", "Origin")
    if not _allowed(origins):
        return
    headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else request.headers["Origin"]
    headers["Access-Control-Expose-Headers"] = EXPOSED
    headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def _allowed(origins: frozenset[str]) -> bool:
    """The login's pages go by a cookie, and are nobody's but their own."""
    origin = request.headers.get("Origin", "")
    is_page = request.path.startswith("/fyers/")
    return bool(origin) and not is_page and ("*" in origins or origin.lower() in origins)
