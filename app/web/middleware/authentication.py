"""Who sends: a token in an alert's body, a bearer token on the API, or a signature.

Tokens are compared as hashes, in constant time. A token is looked at before anything is counted or refused by
address: a request with a valid one is never locked out by what others send from the same address.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request

from app.domain.alert import ADMIN_CLIENT, NO_LIMITS, ClientLimits
from app.domain.deadline import Deadline
from app.errors import AlertRefused, NotAllowed, NotAuthenticated, StoreUnavailable, TooManyRequests
from app.service.clients import DEFAULT_CLIENT, Clients, ClientScope, Credential, NoClients, digest_of
from app.service.observe import hide, note
from app.service.ports import Clock
from app.settings import Settings
from app.web.middleware.address import Networks, check_address, client_address, networks_of
from app.web.middleware.failures import Failures
from app.web.schemas import TOKEN

__all__ = ["Caller", "Callers", "ClientScope", "bearer_token"]

KEEP_S = 0.5
"""How old the list of tokens may be: what was revoked anywhere is refused here well within a second, and a flood of
wrong tokens asks the database twice a second and not for each."""
READ_BOUND_S = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A known sender. The admin covers what all clients hold."""

    client: str
    is_admin: bool
    scopes: frozenset[ClientScope] = frozenset(ClientScope)
    limits: ClientLimits = NO_LIMITS
    networks: Networks = ()


DEFAULT = Caller(DEFAULT_CLIENT, False, frozenset({ClientScope.ORDERS, ClientScope.READ}))
ADMIN = Caller(ADMIN_CLIENT, True)


def bearer_token(request: Request) -> str | None:
    """The token of `Authorization: Bearer …`."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


class _Kept:
    """All tokens of the register, at most KEEP_S old. A read that failed is kept as long: a hung database must not
    hold one thread after the other.
    """

    def __init__(self, clients: Clients, monotonic: Callable[[], float]) -> None:
        self._clients, self._monotonic = clients, monotonic
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._found: Mapping[str, tuple[Credential, Caller]] | StoreUnavailable = {}

    def find(self, digest: str) -> tuple[Credential, Caller] | None:
        """Raises StoreUnavailable: a token that cannot be looked up is neither right nor wrong."""
        with self._lock:
            began = self._monotonic()
            if began >= self._until:
                try:
                    found = self._clients.credentials(Deadline(began + READ_BOUND_S))
                    self._found = {c.digest: (c, _caller(c)) for c in found}
                except StoreUnavailable as error:
                    self._found = error
                # From before the read: what was revoked while it ran may not be in it.
                self._until = (began if isinstance(self._found, dict) else self._monotonic()) + KEEP_S
            kept = self._found
        if isinstance(kept, StoreUnavailable):
            raise StoreUnavailable(kept.detail)
        return kept.get(digest)


def _caller(credential: Credential) -> Caller:
    client = credential.client
    is_admin = ClientScope.ADMIN in client.scopes
    return Caller(client.name, is_admin, client.scopes, client.limits, networks_of(client.networks))


class Callers:
    """From a request to its Caller. Raises NotAuthenticated, NotAllowed, TooManyRequests and StoreUnavailable."""

    def __init__(self, settings: Settings, clients: Clients | None, clock: Clock) -> None:
        given = (settings.webhook_secret_token, DEFAULT), (settings.admin_token, ADMIN)
        self._own = [(_hash(s.get_secret_value()), c) for s, c in given if s.get_secret_value()]
        self._hops = settings.trusted_proxy_hops
        self._kept = _Kept(clients or NoClients(), clock.monotonic)
        self._clock = clock
        self.failures = Failures(clock.monotonic)
        self.counted: Callable[[Caller], None] = lambda _: None
        """Counts a request of somebody known towards his rate limit. Raises TooManyRequests."""
        self.of_webhook: Callable[[], Networks] = lambda: ()
        """IP_ALLOWLIST as it is in force: it goes wherever the webhook's token does."""

    def address(self, request: Request) -> str:
        return client_address(request, self._hops)

    def find(self, token: object) -> Caller | None:
        """The caller that a token belongs to. Counts nothing."""
        if not isinstance(token, str) or not token:
            return None
        hide(token)
        given, found = _hash(token), None
        for wanted, caller in self._own:
            if hmac.compare_digest(given, wanted):
                found = caller
        if found is not None:
            return found
        kept = self._kept.find(digest_of(token))
        if kept is None:
            return None
        credential, caller = kept
        right = hmac.compare_digest(given, credential.digest.encode())
        return caller if right and credential.is_live(self._clock.now()) else None

    def bearer(self, request: Request, *scopes: ClientScope) -> Caller:
        """The caller by `Authorization: Bearer …`, who has one of the scopes or is an admin."""
        caller = self._known(self.find(bearer_token(request)), request)
        if not caller.is_admin and not caller.scopes.intersection(scopes):
            words = " or ".join(scopes)
            raise NotAllowed(f"expected a token with the scope {words}", code="scope_missing")
        return caller

    def admin(self, request: Request) -> Caller:
        caller = self._known(self.find(bearer_token(request)), request)
        if not caller.is_admin:
            raise NotAllowed("expected the admin token")
        return caller

    def browser(self, request: Request, token: str) -> None:
        """A session in a browser takes ADMIN_TOKEN alone: it outlives the moment at which another is revoked."""
        if self._known(self.find(token), request) is not ADMIN:
            raise NotAllowed("expected the admin token")

    def alert(self, request: Request, body: Mapping[str, Any], *, is_signed: bool) -> Caller:
        """The sender of an alert, by the body's `token` in any case of the field's name, or by its signature."""
        found = [value for key, value in body.items() if key.lower() == TOKEN]
        if not found and is_signed:
            return self._known(DEFAULT, request)
        caller = self.find(found[0]) if len(found) == 1 else None
        if caller is ADMIN:
            raise self.refused(request, "expected the webhook token, not the admin's")
        caller = self._known(caller, request)
        if ClientScope.ORDERS not in caller.scopes:
            raise NotAllowed("expected a token with the scope orders", code="scope_missing")
        # An alert covers what its client holds, also when the client may do more on the API.
        return Caller(caller.client, False, caller.scopes, caller.limits, caller.networks)

    def refused(
        self, request: Request, detail: str = "expected a valid token, was none or a wrong one"
    ) -> AlertRefused:
        """What to raise for a request that did not authenticate: counted, and after too many told to wait."""
        wait_s = self.failures.count(self.address(request))
        if wait_s is None:
            return NotAuthenticated(detail)
        return TooManyRequests(
            "too many requests without a valid token came from this address; one with a valid token passes",
            code="too_many_failures",
            retry_after_s=wait_s,
        )

    def _known(self, caller: Caller | None, request: Request) -> Caller:
        if caller is None:
            raise self.refused(request)
        note(client=caller.client)
        check_address(self.address(request), self.of_webhook() if caller is DEFAULT else caller.networks)
        self.counted(caller)
        return caller


def _hash(token: str) -> bytes:
    """Of equal length whatever was given, so that the comparison does not even tell how long the secret is."""
    return digest_of(token).encode()
