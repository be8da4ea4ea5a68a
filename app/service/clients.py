"""API clients: who may send, with which token, how much and for how long."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.domain.alert import ADMIN_CLIENT, NO_LIMITS, ClientLimits
from app.domain.deadline import Deadline
from app.service.config_lists import listed

DEFAULT_CLIENT = "default"
"""Whose token is WEBHOOK_SECRET_TOKEN."""
RESERVED = frozenset({DEFAULT_CLIENT, ADMIN_CLIENT, ""})
"""Their tokens stand in the settings."""
TOKEN_BYTES = 32
TOKEN_PREFIX = "tvf_"  # noqa: S105 - what a scanner for leaked secrets can look for
SIGNING_PREFIX = "whsec_"
"""The mark that Standard Webhooks gives a secret."""
SIGNING_BYTES = range(24, 65)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)


class ClientScope(StrEnum):
    ORDERS = "orders"
    """POST /webhook and /api/v1/orders, /check and look-ups of contracts."""
    READ = "read"
    """GETs of its own orders, and look-ups of contracts."""
    ADMIN = "admin"
    """The operator's: everything, over all clients."""


@dataclass(frozen=True, slots=True)
class Client:
    """A named sender. `networks`: words of an allowlist; none: any address."""

    name: str
    scopes: frozenset[ClientScope]
    limits: ClientLimits = NO_LIMITS
    networks: tuple[str, ...] = ()
    expires_at: datetime | None = None
    """Aware UTC; from then on none of its tokens is valid."""
    created_by: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in RESERVED:
            raise ValueError(
                "expected a name of 1 to 32 small letters, digits, - and _, and neither "
                f"{DEFAULT_CLIENT} nor {ADMIN_CLIENT}, was {self.name[:40]!r}"
            )
        if not self.scopes:
            raise ValueError("expected at least one scope, was none")
        if self.limits.max_lots is not None and self.limits.max_lots < 1:
            raise ValueError(f"expected at least 1 lot, was {self.limits.max_lots}")


@dataclass(frozen=True, slots=True)
class Credential:
    """One token of a client, by its hash."""

    digest: str
    client: Client
    ends_at: datetime | None
    """None: as long as its client; else the end of a rotation's grace."""

    def is_live(self, now: datetime) -> bool:
        return all(end is None or now < end for end in (self.ends_at, self.client.expires_at))


@dataclass(frozen=True, slots=True)
class Registered:
    """A client as an operator sees it."""

    client: Client
    created_at: datetime
    revoked_at: datetime | None
    tokens: tuple[Credential, ...]
    """Newest first."""


class Clients(Protocol):
    """The register of clients, the same for all instances. Raises StoreUnavailable when it cannot answer."""

    def create(self, client: Client, digest: str) -> None:
        """A new client with its first token; one that was revoked gets its name back. Raises NotAllowed."""

    def rotate(self, name: str, digest: str, grace: timedelta) -> datetime | None:
        """A new token; the present one ends after `grace`, and an older one at once, so that two are live at most.

        Returns when the present one ends, None when nothing was live any more. Raises NotFound, also for a
        revoked client.
        """

    def revoke(self, name: str) -> bool:
        """End all tokens of a client at once. False: it was revoked already. Raises NotFound."""

    def registered(self) -> tuple[Registered, ...]:
        """All clients, revoked ones too, by name."""

    def credentials(self, deadline: Deadline | None = None) -> tuple[Credential, ...]:
        """Every token of every client that is not revoked; the caller looks at the ends."""

    def first_content(self, message_id: str, content: str, life: timedelta) -> str:
        """What a signed message's id first came with, kept for `life` over all instances: `content` when it is new."""


class NoClients:
    """No register: only the tokens of the settings count."""

    def create(self, client: Client, digest: str) -> None:
        raise NotImplementedError

    def rotate(self, name: str, digest: str, grace: timedelta) -> datetime | None:
        raise NotImplementedError

    def revoke(self, name: str) -> bool:
        raise NotImplementedError

    def registered(self) -> tuple[Registered, ...]:
        return ()

    def credentials(self, deadline: Deadline | None = None) -> tuple[Credential, ...]:  # noqa: ARG002
        return ()

    def first_content(self, message_id: str, content: str, life: timedelta) -> str:
        raise NotImplementedError


def new_token() -> str:
    """256 random bits, to be shown once."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """What is stored of a token. A slow hash is for passwords: of 256 random bits nobody can try the half."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def symbols_of(words: Iterable[str]) -> frozenset[str] | None:
    """Underlyings as the checks compare them; none given: no limit."""
    return frozenset(w.strip().upper() for w in words if w.strip()) or None


def signing_keys(text: str) -> tuple[bytes, ...]:
    """The keys of WEBHOOK_HMAC_SECRETS. Raises ValueError, never with a value in it."""
    found = []
    for number, word in enumerate(listed(text), 1):
        try:
            key = base64.b64decode(word.removeprefix(SIGNING_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) not in SIGNING_BYTES:
            raise ValueError(
                f"expected {SIGNING_PREFIX} and 24 to 64 bytes in base64, secret {number} is none of that"
            )
        found.append(key)
    return tuple(found)
