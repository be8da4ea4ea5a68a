"""The operator's browser session: a short signed cookie, its form tokens and its login states.

Nothing is kept on the server, so that every instance knows every session. The cookie is SameSite=Lax: Strict would
keep it back when Fyers sends the browser to the callback. Whoever changes ADMIN_TOKEN or SESSION_SECRET ends all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Request, Response

from app.errors import NotAllowed, NotAuthenticated
from app.settings import Settings

COOKIE = "operator"
SESSION_LIFE = timedelta(hours=1)
STATE_LIFE = timedelta(minutes=10)
"""A person types a PIN and a one-time password meanwhile."""
CSRF_FIELD = "csrf"


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has shown the admin token."""

    id: str
    csrf: str
    """Stands in every form of ours; another site cannot know it."""


class Sessions:
    """Makes and checks what a browser carries. `now` is aware UTC."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.session_secret.get_secret_value()
        admin = settings.admin_token.get_secret_value()
        self._key = hashlib.sha256(f"{secret}\0{admin}".encode()).digest() if secret and admin else b""
        self._hops = settings.trusted_proxy_hops

    def start(self, response: Response, request: Request, now: datetime) -> None:
        """Give the browser a session of its own."""
        value = self._signed("session", secrets.token_urlsafe(18), now + SESSION_LIFE)
        response.set_cookie(
            COOKIE,
            value,
            max_age=int(SESSION_LIFE.total_seconds()),
            httponly=True,
            samesite="Lax",
            secure=self._is_https(request),
            path="/",
        )

    def end(self, response: Response) -> None:
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="Lax")

    def find(self, request: Request, now: datetime) -> Session | None:
        """The session of a request, if it has a valid one."""
        ident = self._checked("session", request.cookies.get(COOKIE, ""), now)
        return Session(ident, self._mac("csrf", ident)) if ident else None

    def need(self, request: Request, now: datetime) -> Session:
        """The session of a request; for a POST its form's token too. Raises NotAuthenticated, NotAllowed."""
        session = self.find(request, now)
        if session is None:
            raise NotAuthenticated("expected a session: give the admin token at /fyers/login")
        given = request.form.get(CSRF_FIELD, "") if request.method == "POST" else session.csrf
        if not hmac.compare_digest(given.encode("utf-8", "replace"), session.csrf.encode()):
            raise NotAllowed("expected a form of this page and session", code="csrf")
        return session

    def new_state(self, session_id: str, now: datetime) -> str:
        """A random state for one login of this session."""
        return self._signed(f"state\0{session_id}", secrets.token_urlsafe(18), now + STATE_LIFE)

    def check_state(self, session_id: str, state: str, now: datetime) -> str:
        """The state's random part, by which the caller lets it count once. Raises NotAllowed."""
        nonce = self._checked(f"state\0{session_id}", state, now)
        if not nonce:
            raise NotAllowed(
                "this login was not started by this browser session, or too long ago: start it anew",
                code="state_mismatch",
            )
        return nonce

    def _signed(self, purpose: str, ident: str, ends_at: datetime) -> str:
        if not self._key:
            raise NotAllowed("SESSION_SECRET and ADMIN_TOKEN are needed for a browser session")
        text = f"{ident}.{int(ends_at.timestamp())}"
        return f"{text}.{self._mac(purpose, text)}"

    def _checked(self, purpose: str, value: str, now: datetime) -> str | None:
        text, _, mac = value.rpartition(".")
        ident, _, ends = text.partition(".")
        if not self._key or not ident or not (ends.isascii() and ends.isdigit() and len(ends) < 12):
            return None
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac(purpose, text).encode()):
            return None
        return ident if now.timestamp() < int(ends) else None

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(
            self._key, f"{purpose}\0{text}".encode("utf-8", "replace"), hashlib.sha256
        ).hexdigest()

    def _is_https(self, request: Request) -> bool:
        """Whether the browser spoke TLS: to us, or to a proxy of ours that says so."""
        said = request.headers.get("X-Forwarded-Proto", "").split(",")
        return request.is_secure or (self._hops > 0 and said[-1].strip().lower() == "https")
