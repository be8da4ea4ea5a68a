"""The token as one object in Google Cloud Storage. Writes are conditional on the object's generation."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from app.errors import TokenStoreUnavailable
from app.store.tokens import Held

TIMEOUT_S = 0.4
"""A read may stand in an alert's way, once in `poll_s`: one answer is about 50 ms."""
WRITE_TIMEOUT_S = 3.0
READ_TRIES = 5
T = TypeVar("T")


def load() -> None:
    """Import Google's libraries now (a second), at the start rather than in the first alert's two."""
    import google.api_core.exceptions
    import google.cloud.storage  # noqa: F401 - for its side effect


def client() -> Any:  # noqa: ANN401 - google's client, loaded where it is used only
    """A client with the host's own credentials."""
    from google.cloud import storage

    return storage.Client()


class GcsObject:
    """Implements store.tokens.TokenObject. Google's own retries are off: they would outlast any deadline."""

    poll_s = 15.0
    """Every instance sees a new token within this time and one call; promised are 30 s."""

    def __init__(self, bucket: str, name: str, new_client: Callable[[], Any] = client) -> None:
        self.name = f"gs://{bucket}/{name}"
        self._bucket, self._object, self._new_client = bucket, name, new_client
        self._client: Any = None
        self._process = 0

    def stamp(self) -> object:
        found = self._ask(
            "read", lambda: self._bucket_of().get_blob(self._object, timeout=TIMEOUT_S, retry=None)
        )
        return found.generation if found is not None else None

    def read(self) -> Held | None:
        return self._ask("read", self._read)

    def _read(self) -> Held | None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        for _ in range(READ_TRIES):
            blob = self._bucket_of().get_blob(self._object, timeout=TIMEOUT_S, retry=None)
            if blob is None:
                return None
            generation = int(blob.generation)
            try:
                data = blob.download_as_bytes(if_generation_match=generation, timeout=TIMEOUT_S, retry=None)
            except (NotFound, PreconditionFailed):
                continue  # replaced between the two calls: content and generation must belong together
            return Held(generation, data)
        raise TimeoutError("it changes faster than it can be read")

    def write(self, data: bytes, expected: int) -> bool:
        return self._ask("written", lambda: self._write(data, expected))

    def _write(self, data: bytes, expected: int) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        try:
            self._bucket_of().blob(self._object).upload_from_string(
                data,
                content_type="application/json",
                if_generation_match=expected,  # 0: only when there is none
                timeout=WRITE_TIMEOUT_S,
                retry=None,
            )
        except PreconditionFailed:
            return False
        return True

    def _bucket_of(self) -> Any:  # noqa: ANN401 - google's
        """A client of this process: connections must not be shared with a parent."""
        if self._client is None or self._process != os.getpid():
            self._client, self._process = self._new_client(), os.getpid()
        return self._client.bucket(self._bucket)

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # google's libraries raise five unrelated trees; its text may hold a URL
            raise TokenStoreUnavailable(
                f"the token object cannot be {what}: {type(error).__name__}"
            ) from error
