"""A token at rest: encrypted with the first key, readable with all, and bound to the name it is stored under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from app.errors import TokenStoreUnavailable

VERSION = 1
KEY_ID_LENGTH = 12
"""Hex digits of a key's hash: enough to tell keys apart, and nothing of a 256-bit key."""


class TokenCipher:
    """MultiFernet over a small envelope. Raises TokenStoreUnavailable; no error quotes what was read."""

    def __init__(self, keys: Sequence[str]) -> None:
        from cryptography.fernet import Fernet, MultiFernet

        if not keys:
            raise ValueError("expected at least one key")
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._ids = [_id_of(key) for key in keys]

    def seal(self, name: str, fields: dict[str, object]) -> bytes:
        """`name` goes inside: a ciphertext that was copied to another place does not open there."""
        inner = json.dumps({"name": name, "fields": fields}).encode()
        sealed = self._fernet.encrypt(inner).decode()
        return json.dumps({"version": VERSION, "key": self._ids[0], "sealed": sealed}).encode()

    def open(self, name: str, data: bytes) -> dict[str, object]:
        from cryptography.fernet import InvalidToken

        outer = _object(data)
        sealed, key = outer.get("sealed"), outer.get("key")
        if outer.get("version") != VERSION or not isinstance(sealed, str) or not isinstance(key, str):
            raise _damaged()
        try:
            inner = _object(self._fernet.decrypt(sealed.encode("utf-8", "replace")))
        except InvalidToken:
            if key not in self._ids:
                raise TokenStoreUnavailable(
                    "the stored token was written with a key that TOKEN_ENCRYPTION_KEYS does not hold:"
                    " add that key, or log in anew",
                    code="token_key_missing",
                ) from None
            raise _damaged() from None
        if inner.get("name") != name:
            raise TokenStoreUnavailable(
                f"what is stored as {name} was written under another name: log in anew", code="token_swapped"
            )
        fields = inner.get("fields")
        if not isinstance(fields, dict):
            raise _damaged()
        return fields

    def is_first(self, data: bytes) -> bool:
        """Whether the first key wrote it."""
        return _object(data).get("key") == self._ids[0]


def is_sealed(data: bytes) -> bool:
    """Whether it says of itself that it is encrypted: tokens.json of earlier versions does not."""
    try:
        outer = _object(data)
    except TokenStoreUnavailable:
        return True  # unreadable: `open` says so
    return "sealed" in outer or "access_token" not in outer


def _id_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:KEY_ID_LENGTH]


def _object(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged() from None
    if not isinstance(found, dict):
        raise _damaged()
    return found


def _damaged() -> TokenStoreUnavailable:
    return TokenStoreUnavailable("the stored token is damaged: log in anew", code="token_damaged")
