"""One conditional GET into a file, under an absolute deadline: whatever the other side does, it ends by then."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from urllib.parse import urljoin, urlsplit

from urllib3.exceptions import HTTPError

from app.brokers.fyers.connection import READ_BYTES, Connections, Origin
from app.brokers.fyers.deadline_socket import Phase, Watch

CONNECT_S = 5.0
MOST_REDIRECTS = 3
OK, NOT_MODIFIED = 200, 304
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class DownloadError(Exception):
    """Nothing usable came; the text says why."""


@dataclass(frozen=True, slots=True)
class Got:
    """A whole answer. `etag` and `modified` are the server's own words, for the next time."""

    status: int
    etag: str = ""
    modified: str = ""


class Get(Protocol):
    """Writes the body to `out` and at most `most_bytes` of it. `ends_at` is monotonic. Raises DownloadError."""

    def __call__(
        self, url: str, headers: Mapping[str, str], out: BinaryIO, most_bytes: int, ends_at: float
    ) -> Got: ...


def http_get(url: str, headers: Mapping[str, str], out: BinaryIO, most_bytes: int, ends_at: float) -> Got:
    for _ in range(MOST_REDIRECTS + 1):
        watch = Watch(ends_at)
        try:
            got, elsewhere = _once(url, headers, out, most_bytes, watch)
        except (OSError, HTTPError, http.client.HTTPException, ValueError) as error:
            if watch.timed_out or isinstance(error, TimeoutError):
                raise DownloadError("it did not come within the time that a refresh may take") from None
            raise DownloadError(f"{type(error).__name__}: {error}"[:200]) from error
        if elsewhere is None:
            return got
        url = urljoin(url, elsewhere)
    raise DownloadError(f"it is redirected more than {MOST_REDIRECTS} times")


def _once(
    url: str, headers: Mapping[str, str], out: BinaryIO, most_bytes: int, watch: Watch
) -> tuple[Got, str | None]:
    """The answer, and where a redirect leads. A body shorter than its announced length is an error of urllib3's."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = Connections().new(Origin(parts.scheme, parts.hostname, port))
    try:
        connection.open(watch, CONNECT_S)
        connection.prepare("GET", target, None, {"Accept-Encoding": "gzip", **headers})
        connection.flush(watch)
        watch.phase = Phase.RECEIVE
        response = connection.getresponse()
        if response.status in REDIRECTS:
            return Got(response.status), response.headers.get("Location", "")
        if response.status == OK:
            size = 0
            while piece := response.read(READ_BYTES):  # at most so much after decompression too
                size += len(piece)
                if size > most_bytes:
                    raise DownloadError(f"it is larger than {most_bytes} bytes")
                out.write(piece)
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        return Got(response.status, etag, modified), None
    finally:
        connection.close()
