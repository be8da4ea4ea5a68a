"""Copies of the audit's seals in Google Cloud Storage, one object each, written once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from app.errors import StoreUnavailable, TokenStoreUnavailable
from app.service.audit_check import Seal
from app.store.tokens_gcs import GcsObject, client

T = TypeVar("T")


class GcsSeals:
    """Implements service.audit_check.SealVault. Used by one job at a time, in one process."""

    def __init__(self, bucket: str, new_client: Callable[[], Any] = client) -> None:
        self._bucket = bucket
        self._client = cache(new_client)

    def put(self, seal: Seal) -> bool:
        return _told("written", lambda: self._place(seal.number).write(_json(seal), expected=0))

    def hash_of(self, number: int) -> str | None:
        held = _told("read", self._place(number).read)
        if held is None:
            return None
        try:
            return str(json.loads(held.data)["hash"])
        except (ValueError, KeyError, TypeError):
            return ""  # no copy of ours looks like that

    def _place(self, number: int) -> GcsObject:
        return GcsObject(self._bucket, f"audit/seal-{number:09d}.json", self._client)


def _told(what: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except TokenStoreUnavailable as error:
        cause = type(error.__cause__ or error).__name__
        raise StoreUnavailable(f"the copy of a seal cannot be {what}: {cause}") from error


def _json(seal: Seal) -> bytes:
    at = None if seal.sealed_at is None else seal.sealed_at.isoformat()
    said = {
        "seal": seal.number,
        "upto": seal.upto,
        "sealed_at": at,
        "prev_hash": seal.prev_hash,
        "hash": seal.hash,
    }
    return json.dumps(said).encode()
