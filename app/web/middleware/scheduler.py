"""Cloud Scheduler's identity: a signed token of Google's, checked against its certificates. Off unless configured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from flask import Request

from app.errors import NotAllowed, NotAuthenticated, Unavailable
from app.web.middleware.authentication import Callers, bearer_token

FETCH_TIMEOUT_S = 2.0
KEEP_CERTS_S = 3600.0
"""Google publishes a key hours before it signs with it."""
KEEP_FAILURE_S = 10.0
"""A Google that cannot be reached is not asked again for every request that comes meanwhile."""
CLOCK_SKEW_S = 10

FetchCerts = Callable[[str], bytes]
"""The body behind a certificates address. Raises OSError."""


def fetch_certs(url: str, timeout_s: float = FETCH_TIMEOUT_S) -> bytes:
    """One attempt, bounded."""
    import requests

    answer = requests.get(url, timeout=timeout_s, allow_redirects=False)
    if answer.status_code != 200:
        raise OSError(f"expected 200 from {url}, was {answer.status_code}")
    return answer.content


class _Kept:
    """What the library takes for an HTTP answer."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, data: bytes) -> None:
        self.data = data


class SchedulerTokens:
    """Which tokens are Cloud Scheduler's: signed by Google, meant for us, and of one service account."""

    def __init__(
        self,
        account: str,
        audience: str,
        monotonic: Callable[[], float],
        fetch: FetchCerts = fetch_certs,
    ) -> None:
        self._account, self._audience = account, audience
        self._monotonic, self._fetch = monotonic, fetch
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._until = float("-inf")

    @property
    def is_on(self) -> bool:
        return bool(self._account and self._audience)

    def check(self, token: str) -> None:
        """Raises NotAuthenticated (no valid token), NotAllowed (another's) and Unavailable (Google unreachable)."""
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2 import id_token

        try:
            claims: Mapping[str, Any] = id_token.verify_oauth2_token(  # type: ignore[no-untyped-call]
                token, self._certs, audience=self._audience, clock_skew_in_seconds=CLOCK_SKEW_S
            )
        except (GoogleAuthError, ValueError, KeyError):  # also what is no token at all, or names no issuer
            raise NotAuthenticated("expected a valid token of Google for this service") from None
        if claims.get("email") != self._account or claims.get("email_verified") is not True:
            raise NotAllowed("expected the token of the configured service account")

    def _certs(self, url: str, method: str = "GET", **_: object) -> _Kept:  # noqa: ARG002 - the library's shape
        """In the place of the library's transport, which would ask for every token anew."""
        with self._lock:
            if self._monotonic() >= self._until:
                try:
                    self._kept = _Kept(self._fetch(url))
                    self._until = self._monotonic() + KEEP_CERTS_S
                except OSError:
                    self._kept = None
                    self._until = self._monotonic() + KEEP_FAILURE_S
            if self._kept is None:
                raise Unavailable("Google's certificates cannot be read", code="certificates_unavailable")
            return self._kept


def admin_or_scheduler(request: Request, callers: Callers, scheduler: SchedulerTokens) -> bool:
    """The admin's token, or Cloud Scheduler's where it is configured; whether it was the latter. Raises NotAuthenticated
    and NotAllowed.
    """
    token = bearer_token(request)
    if not scheduler.is_on or token is None or callers.find(token) is not None:
        callers.admin(request)
        return False
    try:
        scheduler.check(token)
    except NotAuthenticated as error:
        raise callers.refused(request, error.detail) from None
    return True
