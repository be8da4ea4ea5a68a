"""Copies of the symbol master's files in Google Cloud Storage, for a host that has none and cannot reach Fyers."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from app.errors import StoreUnavailable
from app.store.tokens_gcs import client

FOLDER = "symbol-master"
TIMEOUT_S = 10.0
"""Of one call. It runs in the refresh's own process, where nobody waits for an answer."""
CHUNK = 1 << 20
T = TypeVar("T")


class GcsMasters:
    """Implements brokers.fyers.master_fetch.Vault. Each file is one object, compressed, with its inside date beside it.

    A write is conditional on the generation that was looked at, and an older file never replaces a newer one: of
    several hosts, the one whose download is the freshest decides what is kept.
    """

    def __init__(self, bucket: str, new_client: Callable[[], Any] = client) -> None:
        self._bucket = bucket
        self._client = cache(new_client)

    def dated(self, name: str) -> str | None:
        found = self._ask(f"{name} cannot be looked at", lambda: self._look(name))
        return None if found is None else str((found.metadata or {}).get("dated", ""))

    def put(self, name: str, path: Path, dated: str) -> bool:
        return self._ask(f"{name} cannot be written", lambda: self._put(name, path, dated))

    def fetch(self, name: str, out: BinaryIO, most_bytes: int) -> None:
        self._ask(f"{name} cannot be read", lambda: self._fetch(name, out, most_bytes))

    def _look(self, name: str) -> Any:  # noqa: ANN401 - google's blob, or None
        return self._client().bucket(self._bucket).get_blob(_object(name), timeout=TIMEOUT_S, retry=None)

    def _put(self, name: str, path: Path, dated: str) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        known = self._look(name)
        said = {} if known is None else known.metadata or {}
        if said.get("sha256") == digest or str(said.get("dated", "")) > dated:
            return False
        blob = self._client().bucket(self._bucket).blob(_object(name))
        blob.metadata = {"dated": dated, "sha256": digest}
        with tempfile.TemporaryFile() as packed:
            with path.open("rb") as content, gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as into:
                shutil.copyfileobj(content, into, CHUNK)
            try:
                blob.upload_from_file(
                    packed,
                    rewind=True,
                    content_type="application/gzip",
                    if_generation_match=0 if known is None else int(known.generation),
                    timeout=TIMEOUT_S,
                    retry=None,
                )
            except PreconditionFailed:
                return False  # another host was faster; the next refresh compares again
        return True

    def _fetch(self, name: str, out: BinaryIO, most_bytes: int) -> None:
        blob = self._look(name)
        if blob is None:
            raise FileNotFoundError(name)
        with tempfile.TemporaryFile() as packed:
            generation = int(blob.generation)
            blob.download_to_file(packed, if_generation_match=generation, timeout=TIMEOUT_S, retry=None)
            packed.seek(0)
            with gzip.GzipFile(fileobj=packed) as content:
                while part := content.read(CHUNK):
                    out.write(part)
                    if out.tell() > most_bytes:
                        raise OverflowError(name)
        out.flush()
        os.fsync(out.fileno())

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # google's libraries raise five unrelated trees; its text may hold a URL
            raise StoreUnavailable(f"{what} in the bucket: {type(error).__name__}") from error


def _object(name: str) -> str:
    return f"{FOLDER}/{name}.gz"
