"""The stored token: sealed, never lost to a slower writer, cached while it lasts."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.errors import TokenStoreUnavailable
from app.service.login import TokenRecord
from app.service.observe import keep_hidden
from app.service.ports import Clock, Notifier, Tokens
from app.store.token_cipher import TokenCipher, is_sealed

log = logging.getLogger(__name__)

WRITE_TRIES = 20
"""Each lost race means that somebody else's write succeeded, so that many writers at once are no case of ours."""
RETRY_S = 1.0
"""How often to look again while there is no usable token."""
LOOK_WAIT_S = 0.5
"""For another thread's look, when there is nothing to go on with meanwhile."""


@dataclass(frozen=True, slots=True)
class Held:
    """An object's content and the generation it belongs to."""

    generation: int
    data: bytes


class TokenObject(Protocol):
    """Where the sealed bytes lie. Every call raises TokenStoreUnavailable."""

    name: str
    """Bound into the ciphertext."""
    poll_s: float
    """How often it may be looked at."""

    def stamp(self) -> object:
        """Something cheap that differs after every write; None when there is no object."""

    def read(self) -> Held | None: ...

    def write(self, data: bytes, expected: int) -> bool:
        """Replace generation `expected` (0: there is none). False: it is not that any more; nothing is changed."""


ReadPlain = Callable[[str, str], TokenRecord]
"""From an access and a refresh token of an earlier version's plaintext file to a record."""


class SealedTokens:
    """Implements service.login.TokenVault on one object: each call reads anew."""

    def __init__(self, place: TokenObject, cipher: TokenCipher, read_plain: ReadPlain) -> None:
        self._place, self._cipher, self._read_plain = place, cipher, read_plain
        self.poll_s = place.poll_s

    def stamp(self) -> object:
        return self._place.stamp()

    def load(self) -> TokenRecord | None:
        held = self._place.read()
        if held is None:
            return None
        if is_sealed(held.data):
            return self._open(held)
        record = self._plain(held)
        # A lost race here means that somebody else has sealed it, or has stored a newer one.
        self._place.write(self._seal(record), held.generation)
        log.warning("the plaintext token of an earlier version has been encrypted")
        return record

    def save(self, record: TokenRecord) -> TokenRecord:
        failure: TokenStoreUnavailable | None = None
        for _ in range(WRITE_TRIES):
            held = self._place.read()
            stored = self._readable(held)
            if stored is not None and (stored == record or stored.obtained_at > record.obtained_at):
                return stored
            if failure is not None:
                raise failure  # the write failed, and did not arrive either
            try:
                if self._place.write(self._seal(record), held.generation if held else 0):
                    return record
            except TokenStoreUnavailable as error:
                failure = error  # it may have arrived with its answer lost: one more read tells
        raise TokenStoreUnavailable("the token could not be stored: other writers were always faster")

    def rotate(self) -> bool:
        """Write it anew with the first key. False: there is nothing, or the first key wrote it already."""
        for _ in range(WRITE_TRIES):
            held = self._place.read()
            if held is None:
                return False
            if not is_sealed(held.data):
                return self.load() is not None
            record = self._open(held)
            if self._cipher.is_first(held.data):
                return False
            if self._place.write(self._seal(record), held.generation):
                return True
        raise TokenStoreUnavailable("the token could not be re-encrypted: other writers were always faster")

    def _readable(self, held: Held | None) -> TokenRecord | None:
        """None also for what nobody can read any more: a new login is the way out, so it may take its place."""
        if held is None:
            return None
        try:
            return self._open(held) if is_sealed(held.data) else self._plain(held)
        except TokenStoreUnavailable as error:
            log.warning("an unreadable stored token is replaced: %s", error.detail)
            return None

    def _seal(self, record: TokenRecord) -> bytes:
        refresh_ends = record.refresh_ends_at.isoformat() if record.refresh_ends_at else None
        fields: dict[str, object] = {
            "app_id": record.app_id,
            "access_token": record.access_token,
            "obtained_at": record.obtained_at.isoformat(),
            "ends_at": record.ends_at.isoformat(),
            "refresh_token": record.refresh_token,
            "refresh_ends_at": refresh_ends,
        }
        return self._cipher.seal(self._place.name, fields)

    def _open(self, held: Held) -> TokenRecord:
        fields = self._cipher.open(self._place.name, held.data)
        try:
            refresh_ends = fields["refresh_ends_at"]
            return TokenRecord(
                app_id=str(fields["app_id"]),
                access_token=str(fields["access_token"]),
                obtained_at=datetime.fromisoformat(str(fields["obtained_at"])),
                ends_at=datetime.fromisoformat(str(fields["ends_at"])),
                refresh_token=str(fields["refresh_token"]),
                refresh_ends_at=datetime.fromisoformat(str(refresh_ends)) if refresh_ends else None,
            )
        except (KeyError, ValueError):
            raise TokenStoreUnavailable(
                "the stored token lacks a field: log in anew", code="token_damaged"
            ) from None

    def _plain(self, held: Held) -> TokenRecord:
        fields = json.loads(held.data)
        access, refresh = fields["access_token"], fields.get("refresh_token") or ""
        if not isinstance(access, str) or not isinstance(refresh, str):
            raise TokenStoreUnavailable("the stored token is damaged: log in anew", code="token_damaged")
        return self._read_plain(access, refresh)


class GivenToken(Tokens, Protocol):
    """A token from the settings."""

    ends_at: datetime


class StoredTokens:
    """Implements service.ports.Tokens and service.login.TokenVault.

    `current` never raises and hardly ever waits, since it stands in an alert's way: it goes by the copy in memory,
    looks at the store when the last look is `poll_s` old, and goes on with its copy when the store does not answer.
    """

    def __init__(
        self,
        vault: SealedTokens | None,
        app_id: str,
        clock: Clock,
        notifier: Notifier,
        given: GivenToken | None = None,
    ) -> None:
        """`given`: a token from the settings, used while none is stored. Without a vault there is nothing else."""
        self._vault, self._app_id, self._clock, self._notifier = vault, app_id, clock, notifier
        self._given = given
        self._lock = threading.Lock()
        self._record: TokenRecord | None = None
        self._stamp: object = _NEVER
        self._looked_at: float | None = None
        self._told: set[tuple[str, object]] = set()

    def current(self, now: datetime) -> str | None:
        if self._is_due(now):
            # With a token in hand nobody waits for another thread's look; without one a short wait may bring it.
            usable = self._usable(now) is not None
            if self._lock.acquire(blocking=not usable, timeout=-1 if usable else LOOK_WAIT_S):
                try:
                    if self._is_due(now):
                        self._look()
                finally:
                    self._lock.release()
        token = self._usable(now)
        if token is None:
            ended = self._record.ends_at if self._record is not None else None
            self._tell_once(("token_expired", ended), "there is no valid Fyers token: log in at /fyers/login")
        return token

    def ends_at(self, now: datetime) -> datetime | None:
        """When the token to use at `now` ends; None when there is none."""
        if self.current(now) is None:
            return None
        record = self._record
        if record is not None and record.app_id == self._app_id and record.token_at(now) is not None:
            return record.ends_at
        return self._given.ends_at if self._given is not None else None

    def load(self) -> TokenRecord | None:
        return self._vault.load() if self._vault is not None else None

    def save(self, record: TokenRecord) -> TokenRecord:
        keep_hidden(record.access_token, record.refresh_token)
        if self._vault is None:
            raise TokenStoreUnavailable("TOKEN_ENCRYPTION_KEYS is needed to keep a token")
        try:
            return self._vault.save(record)
        finally:
            self._looked_at = None

    def known(self) -> TokenRecord | None:
        return self._record

    def rotate(self) -> bool:
        """Re-encrypt with the first key. False: there was nothing to do."""
        return self._vault is not None and self._vault.rotate()

    def _usable(self, now: datetime) -> str | None:
        record = self._record
        token = record.token_at(now) if record is not None and record.app_id == self._app_id else None
        return token or (self._given.current(now) if self._given is not None else None)

    def _is_due(self, now: datetime) -> bool:
        if self._vault is None:
            return False
        if self._looked_at is None:
            return True
        wait = self._vault.poll_s if self._usable(now) else min(RETRY_S, self._vault.poll_s)
        return self._clock.monotonic() - self._looked_at >= wait

    def _look(self) -> None:
        if self._vault is None:
            return
        try:
            stamp = (
                self._vault.stamp()
            )  # before the content: what changes in between is seen at the next look
            if stamp != self._stamp:
                self._record, self._stamp = self._vault.load(), stamp
                if self._record is not None:
                    keep_hidden(self._record.access_token, self._record.refresh_token)
            self._told = {each for each in self._told if each[0] == "token_expired"}
        except TokenStoreUnavailable as error:
            log.warning("the stored token cannot be read: %s", error.detail)
            self._tell_once((error.code, None), error.detail)
        self._looked_at = self._clock.monotonic()

    def _tell_once(self, what: tuple[str, object], message: str) -> None:
        """One page for one end of a token, not one for each alert and probe."""
        if what not in self._told:
            self._told.add(what)
            self._notifier.notify(what[0], message, page=True)


_NEVER = object()
