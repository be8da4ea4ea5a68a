"""The broker's daily login: a code or a refresh token becomes an access token that every instance can use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from app.domain.deadline import Deadline
from app.errors import LoginRefused
from app.service.observe import hide
from app.service.ports import Clock

LOGIN_SECONDS = 5.0
"""A person waits for it, so it may take longer than an alert; never for ever."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a login. Times aware UTC. The secrets are in no repr; an empty access token: logged out."""

    app_id: str
    access_token: str = field(repr=False)
    obtained_at: datetime
    """The broker's own clock where the token says so: two hosts' clocks differ, and the newer token has to win."""
    ends_at: datetime
    refresh_token: str = field(default="", repr=False)
    refresh_ends_at: datetime | None = None

    def token_at(self, now: datetime) -> str | None:
        """The access token, while it lasts."""
        return self.access_token if self.access_token and now < self.ends_at else None

    def logged_out(self) -> TokenRecord:
        """The mark that takes this login's place. It keeps the time, so that any later login stands above it."""
        return replace(self, access_token="", refresh_token="", refresh_ends_at=None)


class TokenVault(Protocol):
    """The durable memory of the login, shared by all instances. Raises TokenStoreUnavailable."""

    def load(self) -> TokenRecord | None:
        """What is stored now, read anew."""

    def save(self, record: TokenRecord) -> TokenRecord:
        """Store it unless a newer one is stored already. Returns what stands afterwards."""

    def known(self) -> TokenRecord | None:
        """What the last look found, from memory: for probes, which must not wait."""

    def rotate(self) -> bool:
        """Write it anew with the first key. False: there is nothing, or the first key wrote it already."""


class LoginDesk(Protocol):
    """The broker's side. Each call goes out once. Raises LoginRefused, or BrokerReadFailed without an answer."""

    app_id: str

    def auth_url(self, state: str) -> str:
        """Where the trader's browser has to go."""

    def exchange_code(self, code: str, deadline: Deadline, now: datetime) -> TokenRecord: ...

    def refresh(self, held: TokenRecord, pin: str, deadline: Deadline, now: datetime) -> TokenRecord: ...

    def logout(self, access_token: str, deadline: Deadline) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """Age and end, and nothing of the token itself."""

    obtained_at: datetime
    ends_at: datetime
    is_valid: bool
    can_refresh: bool


class Login:
    """The verbs. One desk and one vault; a pasted code, a redirect and a terminal all end here."""

    def __init__(self, desk: LoginDesk, vault: TokenVault, clock: Clock) -> None:
        self._desk, self._vault, self._clock = desk, vault, clock

    def auth_url(self, state: str) -> str:
        return self._desk.auth_url(state)

    def complete(self, code: str) -> TokenRecord:
        """Exchange a single-use code at once and store the token."""
        if not code:
            raise LoginRefused("expected an auth code, was nothing", code="auth_code_missing")
        record = self._desk.exchange_code(code, self._deadline(), self._clock.now())
        return self._vault.save(record)

    def refresh(self, pin: str) -> TokenRecord:
        """A new access token from the stored refresh token and the account's PIN."""
        hide(pin)
        if not pin:
            raise LoginRefused("expected the account's PIN, was nothing", code="pin_missing")
        held = self._held()
        if held is None or not held.refresh_token:
            raise LoginRefused("no refresh token is stored: log in anew", code="no_refresh_token")
        record = self._desk.refresh(held, pin, self._deadline(), self._clock.now())
        return self._vault.save(record)

    def logout(self) -> bool:
        """Forget the token here first, then at the broker. False: there was none.

        In this order no instance goes on with a token that the broker has revoked.
        """
        held = self._held()
        if held is None or not held.access_token:
            return False
        self._vault.save(held.logged_out())
        if held.token_at(self._clock.now()) is not None:
            self._desk.logout(held.access_token, self._deadline())
        return True

    def rotate(self) -> bool:
        """Re-encrypt what is stored with the first key. False: there was nothing to do."""
        return self._vault.rotate()

    def status(self) -> TokenStatus | None:
        """Of the stored token, read anew; None when there is none."""
        return self._status_of(self._held())

    def known_status(self) -> TokenStatus | None:
        """The same from memory: it never waits and never raises."""
        return self._status_of(self._vault.known())

    def _status_of(self, held: TokenRecord | None) -> TokenStatus | None:
        if held is None or not held.access_token or held.app_id != self._desk.app_id:
            return None
        now = self._clock.now()
        refresh = bool(held.refresh_token) and (held.refresh_ends_at is None or now < held.refresh_ends_at)
        return TokenStatus(held.obtained_at, held.ends_at, held.token_at(now) is not None, refresh)

    def _held(self) -> TokenRecord | None:
        held = self._vault.load()
        return held if held is not None and held.app_id == self._desk.app_id else None

    def _deadline(self) -> Deadline:
        return Deadline(self._clock.monotonic() + LOGIN_SECONDS)
