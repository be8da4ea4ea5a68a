"""Who sends: the token in an alert's body, or a bearer token on the API. Compared in constant time, on bytes."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from flask import Request

from app.domain.alert import ADMIN_CLIENT
from app.errors import NotAllowed, NotAuthenticated
from app.settings import Settings
from app.web.schemas import TOKEN

DEFAULT_CLIENT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """A known sender. The admin covers what all clients hold."""

    client: str
    is_admin: bool


def _equal(given: str, wanted: str) -> bool:
    """Compared as bytes: on text `compare_digest` raises for non-ASCII. An empty secret matches nothing."""
    return bool(wanted) and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def caller_of(token: object, settings: Settings) -> Caller:
    """The caller that a token belongs to. Raises NotAuthenticated."""
    if isinstance(token, str) and token:
        if _equal(token, settings.webhook_secret_token.get_secret_value()):
            return Caller(DEFAULT_CLIENT, is_admin=False)
        if _equal(token, settings.admin_token.get_secret_value()):
            return Caller(ADMIN_CLIENT, is_admin=True)
    raise NotAuthenticated("expected a valid token, was none or a wrong one")


def bearer(request: Request, settings: Settings) -> Caller:
    """The caller by `Authorization: Bearer …`."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return caller_of(token.strip() if kind.lower() == "bearer" else None, settings)


def admin(request: Request, settings: Settings) -> Caller:
    caller = bearer(request, settings)
    if not caller.is_admin:
        raise NotAllowed("expected the admin token")
    return caller


def body_token(body: dict[str, Any], settings: Settings) -> Caller:
    """The caller by the body's `token`, in any case of the field's name. An alert is never an admin's."""
    found = [value for key, value in body.items() if key.lower() == TOKEN]
    caller = caller_of(found[0] if len(found) == 1 else None, settings)
    if caller.is_admin:
        raise NotAuthenticated("expected the webhook token, not the admin's")
    return caller
