"""Where the access token comes from."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

from app.domain.alert import IST

TOKENS_END_HOUR = 6
"""Fyers' access tokens end at 06:00 IST of the next morning (fyers-api.md 1)."""


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
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        payload = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        expiry = payload.get("exp") if isinstance(payload, dict) else None
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return None
        return datetime.fromtimestamp(expiry, UTC)
    except (ValueError, OverflowError, OSError, RecursionError):
        return None


def _next_end(moment: datetime) -> datetime:
    local = moment.astimezone(IST)
    end = local.replace(hour=TOKENS_END_HOUR, minute=0, second=0, microsecond=0)
    return (end if end > local else end + timedelta(days=1)).astimezone(UTC)
