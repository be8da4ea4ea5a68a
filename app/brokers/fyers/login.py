"""The daily login at Fyers, and what a token says of itself (fyers-api.md 1)."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

from app.brokers.fyers.client import FyersClient, Reply, TransportError
from app.domain.alert import IST
from app.domain.deadline import Deadline
from app.errors import BrokerReadFailed, LoginRefused
from app.service.login import LOGIN_SECONDS, TokenRecord
from app.settings import Settings

TOKENS_END_HOUR = 6
"""Fyers' access tokens end at 06:00 IST of the next morning (fyers-api.md 1)."""
REFRESH_LIFE = timedelta(days=15)
"""Of a refresh token that does not say when it ends."""
MAX_TOKEN_LENGTH = 4096
SHOWN = 200

REFUSALS: dict[int, tuple[str, str]] = {
    -437: (
        "auth_code_invalid",
        "Fyers refused the auth code: it is used, too old or incomplete. Log in anew",
    ),
    -371: ("app_secret_wrong", "Fyers refused the app: check FYERS_APP_ID and FYERS_SECRET_ID"),
    -352: ("app_id_wrong", "Fyers does not know the app: check FYERS_APP_ID"),
    -501: (
        "refresh_refused",
        "Fyers refused the refresh token or the PIN (refresh tokens were to end in April 2026): log in anew",
    ),
    -429: ("rate_limited", "Fyers says that it was asked too often: wait a minute"),
}
"""Fyers' codes that a person can do something about. Any other keeps its number and its message."""
ALREADY_OUT = frozenset({-8, -15, -16, -17})
"""A logout with a token that is not valid any more has nothing left to do."""


class FyersLogin:
    """Implements service.login.LoginDesk over the transport with deadlines. Each call goes out once."""

    def __init__(self, client: FyersClient, app_id: str, secret: str, redirect_uri: str) -> None:
        self.app_id = app_id
        self._client, self._secret, self._redirect_uri = client, secret, redirect_uri

    def auth_url(self, state: str) -> str:
        query = {
            "client_id": self.app_id,
            "redirect_uri": self._redirect_uri,
            "response_type": "code",
            "state": state,
        }
        return f"{self._client.api_url}/generate-authcode?{urlencode(query)}"

    def exchange_code(self, code: str, deadline: Deadline, now: datetime) -> TokenRecord:
        fields = {"grant_type": "authorization_code", "code": code_of(code)}
        answer = self._post("/validate-authcode", fields, deadline)
        return record_of(self.app_id, _token(answer, "access_token"), now, _refresh_token(answer))

    def refresh(self, held: TokenRecord, pin: str, deadline: Deadline, now: datetime) -> TokenRecord:
        """Fyers gives no new refresh token with it: the held one stays."""
        fields = {"grant_type": "refresh_token", "refresh_token": held.refresh_token, "pin": pin}
        answer = self._post("/validate-refresh-token", fields, deadline)
        kept = _refresh_token(answer) or held.refresh_token
        ends_at = held.refresh_ends_at if kept == held.refresh_token else None
        return record_of(self.app_id, _token(answer, "access_token"), now, kept, ends_at)

    def logout(self, access_token: str, deadline: Deadline) -> None:
        with self._client.exchange(deadline, f"{self.app_id}:{access_token}") as exchange:
            try:
                reply = exchange.sdk().logout()
            except TransportError as error:
                raise BrokerReadFailed(
                    f"the token is forgotten here, but Fyers was not told: {error}"
                ) from error
        answer = reply.json_or_none()
        if isinstance(answer, dict) and (answer.get("s") == "ok" or answer.get("code") in ALREADY_OUT):
            return
        raise BrokerReadFailed(
            f"the token is forgotten here, but Fyers answered {reply.status} to the logout"
        )

    def _post(self, path: str, fields: dict[str, str], deadline: Deadline) -> dict[str, object]:
        """The answer when it says ok. Raises LoginRefused when it says no, BrokerReadFailed when it says neither."""
        app_hash = hashlib.sha256(f"{self.app_id}:{self._secret}".encode()).hexdigest()
        body = json.dumps({**fields, "appIdHash": app_hash}).encode()
        headers = {"Content-Type": "application/json"}
        try:
            with self._client.exchange(deadline) as exchange:
                reply = exchange.request("POST", self._client.api_url + path, body=body, headers=headers)
        except TransportError as error:
            raise BrokerReadFailed(
                f"Fyers did not answer the login: {error}. The code may be used up: log in anew"
            ) from error
        return _judged(reply, (*fields.values(), app_hash))


def _judged(reply: Reply, sent: tuple[str, ...]) -> dict[str, object]:
    answer = reply.json_or_none()
    if not isinstance(answer, dict) or reply.status >= 500:  # noqa: PLR2004 - HTTP's server errors
        raise BrokerReadFailed(
            f"Fyers answered the login with {reply.status} and no usable body: log in anew"
        )
    if answer.get("s") == "ok" and reply.status == 200:  # noqa: PLR2004 - HTTP's OK
        return answer
    number = answer.get("code")
    if isinstance(number, int) and number in REFUSALS:
        code, detail = REFUSALS[number]
        raise LoginRefused(detail, code=code)
    message = str(answer.get("message", ""))[:SHOWN]
    if any(each in message for each in sent if each):
        message = "(a message that quotes what was sent)"
    raise LoginRefused(f"Fyers refused the login: {number} {message}")


def _token(answer: dict[str, object], name: str) -> str:
    """Something that can stand in a header."""
    found = answer.get(name)
    if (
        isinstance(found, str)
        and 0 < len(found) <= MAX_TOKEN_LENGTH
        and found.isascii()
        and found.isprintable()
    ):
        return found
    raise BrokerReadFailed(f"Fyers' answer to the login has no usable {name}: log in anew")


def _refresh_token(answer: dict[str, object]) -> str:
    return _token(answer, "refresh_token") if answer.get("refresh_token") else ""


def code_of(pasted: str) -> str:
    """The auth code in what a person pasted: the code, or the whole address that the browser ended at."""
    text = pasted.strip()
    if "auth_code=" in text:
        given = parse_qs(urlsplit(text).query or text).get("auth_code", [""])
        text = given[0]
    if (
        not text
        or len(text) > MAX_TOKEN_LENGTH
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        raise LoginRefused(
            "expected the auth code or the address with it, was neither", code="auth_code_missing"
        )
    return text


def record_of(
    app_id: str,
    access_token: str,
    now: datetime,
    refresh_token: str = "",
    refresh_ends_at: datetime | None = None,
) -> TokenRecord:
    """What is kept. Times are the tokens' own where they say them."""
    ends = refresh_ends_at or expiry_of(refresh_token) or now + REFRESH_LIFE
    return TokenRecord(
        app_id=app_id,
        access_token=access_token.removeprefix(f"{app_id}:"),
        obtained_at=_time_in(access_token, "iat") or now,
        ends_at=expiry_of(access_token) or _next_end(now),
        refresh_token=refresh_token,
        refresh_ends_at=ends if refresh_token else None,
    )


def fyers_login(settings: Settings) -> FyersLogin:
    """The desk, from settings. Connections of its own: a login may take longer than an alert's calls."""
    client = FyersClient(
        settings.fyers_api_url,
        settings.fyers_data_url,
        connect_timeout_s=LOGIN_SECONDS,
        read_timeout_s=LOGIN_SECONDS,
    )
    secret = settings.fyers_secret_id.get_secret_value()
    return FyersLogin(client, settings.fyers_app_id, secret, settings.redirect_uri)


def given_tokens(settings: Settings, started_at: datetime) -> StaticTokens:
    """`FYERS_ACCESS_TOKEN`; also in the header's form, with the app's id before it."""
    given = settings.fyers_access_token.get_secret_value()
    return StaticTokens(given.removeprefix(f"{settings.fyers_app_id}:"), started_at)


class StaticTokens:
    """Implements service.ports.Tokens over one token that was given at the start, for tests and short runs."""

    def __init__(self, token: str, started_at: datetime) -> None:
        """`started_at` is aware; a token that does not say when it ends, ends at the next 06:00 IST after it."""
        self._token = token.strip()
        self.ends_at = expiry_of(self._token) or _next_end(started_at)

    def current(self, now: datetime) -> str | None:
        return self._token if self._token and now < self.ends_at else None


def expiry_of(token: str) -> datetime | None:
    """A JWT's `exp`, read without verification (there is no public key), or None when the token has none."""
    return _time_in(token, "exp")


def _time_in(token: str, name: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        payload = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        found = payload.get(name) if isinstance(payload, dict) else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return datetime.fromtimestamp(found, UTC)
    except (ValueError, OverflowError, OSError, RecursionError):
        return None


def _next_end(moment: datetime) -> datetime:
    local = moment.astimezone(IST)
    end = local.replace(hour=TOKENS_END_HOUR, minute=0, second=0, microsecond=0)
    return (end if end > local else end + timedelta(days=1)).astimezone(UTC)
