"""Logins and tokens.

(D) authorization header `APPID:TOKEN`; appIdHash is sha256("APPID:SECRET"); codes are single-use; access
tokens are JWTs that end at the next 06:00 IST; -437, -371 and -501 with their texts. (A) HTTP 400 for those
three; an auth code lives 300 seconds; static tokens never end and go with any app id, an empty one too (which
may read, and is refused like a wrong app when it orders: M); a wrong pin is answered like a bad refresh
token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode

from tests.leak_watch import WATCH
from tests.simulator.clock import Clock, next_six_ist
from tests.simulator.wire import JsonObject, Refusal, Reply, Request, ok

_APP_ID = re.compile(r"^[A-Za-z0-9]{0,20}(-\d{3})?$")
AUTH_CODE_LIFE = timedelta(seconds=300)
REFRESH_LIFE = timedelta(days=15)


@dataclass
class Tokens:
    """The broker's login desk for one user and one app."""

    clock: Clock
    app_id: str = "SIMAPP-200"
    secret: str = "simsecret"
    pin: str = "1234"
    fy_id: str = "XS00001"
    static: set[str] = field(default_factory=lambda: {"t"})
    _codes: dict[str, datetime] = field(default_factory=dict)
    _access: dict[str, datetime] = field(default_factory=dict)
    _refresh: dict[str, datetime] = field(default_factory=dict)

    def app_of(self, request: Request) -> str:
        """The app id of the header, whatever the token is worth."""
        return request.headers.get("authorization", "").partition(":")[0]

    def accepts(self, request: Request) -> bool:
        """Whether the header carries a known, unexpired token."""
        app_id, colon, token = request.headers.get("authorization", "").partition(":")
        if not colon or not _APP_ID.match(app_id):
            return False
        ends = self._access.get(token)
        return token in self.static if ends is None else self.clock() < ends and app_id == self.app_id

    def issue_auth_code(self) -> str:
        """What the login page would put into the redirect."""
        ends = self.clock() + AUTH_CODE_LIFE
        code = self._jwt("auth_code", "api.login.fyers.in", ends)
        self._codes[code] = ends
        return code

    def issue_access_token(self) -> str:
        """An access token without the login dance."""
        ends = next_six_ist(self.clock())
        token = self._jwt("access_token", "api.fyers.in", ends)
        self._access[token] = ends
        return token

    def expire_all(self) -> None:
        """Every token, static ones too, stops working (as at 06:00 IST)."""
        self.static.clear()
        self._access.clear()

    def revoke(self, token: str) -> None:
        """One token stops working."""
        self.static.discard(token)
        self._access.pop(token, None)

    def redirect(self, request: Request) -> Reply:
        """GET /generate-authcode: the login page, passed at once; 302 to the redirect with code and state (D)."""
        if request.query.get("client_id") != self.app_id:
            raise Refusal(-352, "invalid app id")
        state = request.query.get("state", "")
        query = urlencode({"s": "ok", "code": 200, "auth_code": self.issue_auth_code(), "state": state})
        target = request.query.get("redirect_uri", "")
        joint = "&" if "?" in target else "?"
        return Reply(302, b"", (("Location", f"{target}{joint}{query}"),), answer="redirect")

    def exchange_code(self, body: JsonObject) -> Reply:
        """POST /validate-authcode."""
        self._check_hash(body)
        ends = self._codes.pop(str(body.get("code")), None)
        if ends is None or self.clock() >= ends:
            raise Refusal(-437, "invalid auth code")
        refresh_ends = self.clock() + REFRESH_LIFE
        refresh = self._jwt("refresh_token", "api.login.fyers.in", refresh_ends)
        self._refresh[refresh] = refresh_ends
        return ok(access_token=self.issue_access_token(), refresh_token=refresh)

    def exchange_refresh(self, body: JsonObject) -> Reply:
        """POST /validate-refresh-token; no new refresh token (D)."""
        self._check_hash(body)
        ends = self._refresh.get(str(body.get("refresh_token")))
        if ends is None or self.clock() >= ends or str(body.get("pin")) != self.pin:
            raise Refusal(-501, "Please provide valid refresh token")
        return ok(access_token=self.issue_access_token())

    def logout(self, request: Request) -> Reply:
        """POST /logout: revokes this token."""
        if not self.accepts(request):
            raise Refusal(-16, "Token is Invalid or Expired", 401)
        self.revoke(request.headers["authorization"].partition(":")[2])
        return ok(message="you are successfully logged out")

    def _check_hash(self, body: JsonObject) -> None:
        wanted = hashlib.sha256(f"{self.app_id}:{self.secret}".encode()).hexdigest()
        if body.get("appIdHash") != wanted:
            raise Refusal(-371, "Please provide sha256 hash of appId and app secret")

    def _jwt(self, subject: str, issuer: str, ends: datetime) -> str:
        now = int(self.clock().timestamp())
        payload = {
            "iss": issuer,
            "iat": now,
            "exp": int(ends.timestamp()),
            "nbf": now,
            "aud": ["x:0", "x:1", "d:1", "d:2"],
            "sub": subject,
            "at_hash": secrets.token_hex(8),
            "display_name": self.fy_id,
            "oms": "K1",
            "fy_id": self.fy_id,
            "appType": 200,
            "poa_flag": "N",
        }
        parts = [_part({"typ": "JWT", "alg": "HS256"}), _part(payload), secrets.token_urlsafe(32)]
        token = ".".join(parts)
        WATCH.secret(f"broker's {subject}", token)
        return token


def _part(value: JsonObject) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
