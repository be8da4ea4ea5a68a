"""The broker login: a page for a browser, and the same steps as JSON for a bearer of the admin token.

No secret ever stands in an address of ours; the code that Fyers puts into the callback's is used at once, and the
browser is sent on to an address without it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request

from app.domain.alert import IST
from app.domain.deadline import Deadline
from app.errors import (
    FieldError,
    InvalidAlert,
    LoginRefused,
    NotAllowed,
    NotAuthenticated,
    ServiceError,
    TokenStoreUnavailable,
)
from app.service.login import Login, TokenRecord
from app.web import answers
from app.web.cookie import STATE_LIFE, Session, Sessions
from app.web.errors import STATUS, of_service
from app.web.parse import parse_object
from app.web.ports import Ports

MAX_BODY_BYTES = 16_384
ONCE_WAIT_S = 0.3
"""For the database to say that a state is new. A used one is told after this time."""
BEARER = "bearer"
"""Whose the states of /auth-url are when no browser session asked: their codes are pasted."""
PAGE = "/fyers/login"

STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:38rem;padding:0 1rem;color:#111;background:#fff}
label{display:block;margin:.5rem 0 .2rem}
input{font:inherit;padding:.4rem;width:100%;max-width:24rem;box-sizing:border-box}
button{font:inherit;padding:.4rem .8rem;margin:.6rem 0}
.bad{border-left:.3rem solid #b00020;padding-left:.6rem}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CSP = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class LoginPages:
    """What the routes do. `login` is wired: the settings allow one."""

    def __init__(self, ports: Ports, login: Login, failed_login: Callable[[], None]) -> None:
        self.ports, self.login, self.failed_login = ports, login, failed_login
        self.sessions = Sessions(ports.settings)

    def session(self) -> Session | None:
        return self.sessions.find(request, self.ports.clock.now())

    def operator(self) -> str:
        """Who asks: a bearer of the admin token, or a browser session with a form of ours. Raises; whoever is neither
        counts among the failures of his address.
        """
        if "Authorization" in request.headers:
            self.ports.callers.admin(request)
            return BEARER
        try:
            return self.sessions.need(request, self.ports.clock.now()).id
        except NotAuthenticated as error:
            raise self.ports.callers.refused(request, error.detail) from None

    def page(self, error: ServiceError | None = None) -> Response:
        """The page, with what went wrong. For a session it shows age and end of the token, and never the token."""
        session, status, store_error = self.session(), None, ""
        if session is not None:
            try:
                status = self.login.status()
            except TokenStoreUnavailable as failure:
                store_error = failure.detail
        now, settings = self.ports.clock.now(), self.ports.settings
        html = render_template(
            "fyers_login.html",
            style=STYLE,
            error=error,
            session=session,
            status=status,
            store_error=store_error,
            obtained=_shown(status.obtained_at) if status else "",
            ends=_shown(status.ends_at) if status else "",
            mode=self.ports.scope.mode.value,
            app_id=settings.fyers_app_id,
            has_pin=bool(settings.fyers_pin.get_secret_value()),
            auth_url=self.login.auth_url(self.sessions.new_state(session.id, now)) if session else "",
        )
        return make_response(html, STATUS[type(error)] if error is not None else 200)

    def use_once(self, nonce: str) -> None:
        """Let a state count once, over all instances: the first to take its lease has it. Raises NotAllowed."""
        deadline = Deadline(self.ports.clock.monotonic() + ONCE_WAIT_S)
        name = f"login:{hashlib.sha256(nonce.encode()).hexdigest()[:32]}"
        life = STATE_LIFE + timedelta(minutes=1)
        if not self.ports.store.take_lock(name, secrets.token_hex(8), life, deadline):
            raise NotAllowed("this login was used already: start it anew", code="state_used")

    def field(self, name: str) -> str:
        """One text of a JSON body or a form; empty when it is not there."""
        given = request.form.get(name, "") if request.form else self._json().get(name, "")
        if not isinstance(given, str):
            raise InvalidAlert((FieldError(name, "expected a text"),))
        return given.strip()

    def _json(self) -> dict[str, object]:
        raw = request.get_data()
        return parse_object(raw) if raw else {}

    def done(self, record: TokenRecord) -> Response:
        """A login's answer: the times, and nothing of the token."""
        ends = answers.ist(record.ends_at)
        structlog.get_logger("login").info("token_stored", ends_at=ends)
        self.ports.notifier.notify("token_renewed", f"a new Fyers token is valid until {ends}")
        if "Authorization" not in request.headers:
            return _to_page()
        times = {"obtained_at": answers.ist(record.obtained_at), "ends_at": ends}
        return jsonify({"status": "logged_in", **times, "can_refresh": bool(record.refresh_token)})


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(IST):%d %b %Y %H:%M} IST"


def _to_page() -> Response:
    """303: the browser's next request is a GET without the form or the code."""
    return make_response(redirect(PAGE, 303))


def blueprint(ports: Ports, login: Login, failed_login: Callable[[], None]) -> Blueprint:
    routes = Blueprint("fyers_login", __name__, template_folder="templates")
    pages = LoginPages(ports, login, failed_login)
    _browser(routes, pages)
    _steps(routes, pages)

    @routes.before_request
    def bound() -> None:
        request.max_content_length = MAX_BODY_BYTES

    @routes.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = CSP
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    @routes.errorhandler(ServiceError)
    def failed(error: ServiceError) -> Response:
        """A browser gets the page with the reason, a program problem details."""
        structlog.get_logger("login").warning("login_step_refused", code=error.code, path=request.path)
        is_program = "Authorization" in request.headers or request.is_json or request.path == "/auth-url"
        return of_service(error) if is_program else pages.page(error)

    return routes


def _browser(routes: Blueprint, pages: LoginPages) -> None:
    ports, sessions = pages.ports, pages.sessions

    @routes.get(PAGE)
    def show() -> Response:
        return pages.page()

    @routes.post("/fyers/session")
    def start() -> Response:
        """The admin token for a cookie. It needs no form token: who knows the admin token may do all."""
        try:
            ports.callers.browser(request, pages.field("token"))
        except NotAuthenticated:
            pages.failed_login()
            raise
        response = _to_page()
        sessions.start(response, request, ports.clock.now())
        return response

    @routes.post("/fyers/leave")
    def leave() -> Response:
        sessions.need(request, ports.clock.now())
        response = _to_page()
        sessions.end(response)
        return response

    @routes.get("/fyers/callback")
    def callback() -> Response:
        """Where Fyers sends the browser. The state is used up whatever comes of the code."""
        now = ports.clock.now()
        session = sessions.need(request, now)
        pages.use_once(sessions.check_state(session.id, request.args.get("state", ""), now))
        if request.args.get("s") != "ok":
            raise LoginRefused("Fyers did not confirm the login: start it anew", code="login_not_confirmed")
        return pages.done(pages.login.complete(request.args.get("auth_code", "")))


def _steps(routes: Blueprint, pages: LoginPages) -> None:
    @routes.get("/auth-url")
    def auth_url() -> Response:
        """Where to log in. A browser session may follow it to the callback; a bearer pastes the code."""
        now, who = pages.ports.clock.now(), pages.operator()
        url = pages.login.auth_url(pages.sessions.new_state(who, now))
        return jsonify({"auth_url": url, "expires_at": answers.ist(now + STATE_LIFE)})

    @routes.post("/generate-token")
    def generate_token() -> Response:
        pages.operator()
        return pages.done(pages.login.complete(pages.field("auth_code")))

    @routes.post("/refresh-token")
    def refresh_token() -> Response:
        pages.operator()
        pin = pages.field("pin") or pages.ports.settings.fyers_pin.get_secret_value()
        return pages.done(pages.login.refresh(pin))

    @routes.post("/logout")
    def logout() -> Response:
        pages.operator()
        was_in = pages.login.logout()
        structlog.get_logger("login").info("logged_out", was_logged_in=was_in)
        if "Authorization" not in request.headers:
            return _to_page()
        return jsonify({"status": "logged_out", "was_logged_in": was_in})
