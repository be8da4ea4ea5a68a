"""The login's JSON routes in /openapi.json. The pages for a browser (/fyers/…) are HTML and stand in no API document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.web import answer_schemas as a
from app.web.openapi import Route


class AuthUrl(a.Shape):
    auth_url: str
    expires_at: str = Field(description="IST; until then the login has to be made")


class CodeBody(a.Shape):
    auth_code: str = Field(description="the code, or the whole address that the browser ended at")


class PinBody(a.Shape):
    pin: str | None = Field(None, description="of the Fyers account; without it FYERS_PIN")


class LoginAnswer(a.Shape):
    status: Literal["logged_in"]
    obtained_at: str
    ends_at: str = Field(description="IST; 06:00 of the next morning")
    can_refresh: bool


class LogoutAnswer(a.Shape):
    status: Literal["logged_out"]
    was_logged_in: bool


LOGIN_ROUTES: tuple[Route, ...] = (
    Route("get", "/auth-url", "Where to log in at Fyers; admin token", {200: AuthUrl}, (401, 403, 429, 503)),
    Route(
        "post",
        "/generate-token",
        "Exchange a pasted code; admin token",
        {200: LoginAnswer},
        (400, 401, 403, 413, 422, 429, 503),
        body=CodeBody,
    ),
    Route(
        "post",
        "/refresh-token",
        "A new token by PIN, where Fyers still allows it; admin token",
        {200: LoginAnswer},
        (400, 401, 403, 413, 422, 429, 503),
        body=PinBody,
    ),
    Route(
        "post",
        "/logout",
        "Forget the token and revoke it at Fyers; admin token",
        {200: LogoutAnswer},
        (401, 403, 429, 503),
    ),
)
