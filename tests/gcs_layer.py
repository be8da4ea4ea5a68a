"""A layer before gcp-storage-emulator that does what Google Cloud Storage documents and the emulator leaves out:

- every write of an object gives it a new generation, never one that was there before;
- `ifGenerationMatch=N` on a write, a delete or a read: 412 unless N is the live object's generation;
- `ifGenerationMatch=0`: 412 unless there is no live object.

Check and write are one step: two writers with the same precondition cannot both pass. With `enforce=False` it lets
everything through, as the emulator alone does; generations are still counted. What the client library asks is passed
on as it is, so that the library's own requests are tested.

    with GcsLayer() as gcs:
        blob = gcs.client().bucket(gcs.bucket).blob("tokens.json")
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

BUCKET = "bucket-of-tests"
_OBJECT = re.compile(r"^/(?:download/)?storage/v1/b/[^/]+/o/([^/?]+)$")
_UPLOAD = re.compile(r"^/upload/storage/v1/b/[^/]+/o$")
_NAME = re.compile(rb'"name"\s*:\s*"([^"]+)"')
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"})
PRECONDITION_FAILED = {
    "error": {
        "code": 412,
        "message": "At least one of the pre-conditions you specified did not hold.",
        "errors": [{"reason": "conditionNotMet", "locationType": "header", "location": "If-Match"}],
    }
}


class GcsLayer:
    """The emulator, in memory, and the layer before it, both on loopback."""

    def __init__(self, *, enforce: bool = True) -> None:
        self.enforce = enforce
        self.bucket = BUCKET
        self.refused = 0
        """How many requests got 412."""
        self.hung = threading.Event()
        self.hung.set()
        """Cleared: no request is answered until it is set."""
        self.generations: dict[str, int] = {}
        self._next = itertools.count(1_700_000_000_000_001)
        self.lock = threading.Lock()
        self._emulator: Any = None
        self.emulator_address: tuple[str, int] = ("", 0)
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        from gcp_storage_emulator.server import create_server  # type: ignore[import-untyped]

        self._emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
        self._emulator.start()
        self.emulator_address = self._emulator._api._httpd.socket.getsockname()
        layer = self

        handler = type("Handler", (_Handler,), {"gcs": layer})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.hung.set()
        for client in self._clients:
            client.close()
        self._server.shutdown()
        self._server.server_close()
        self._emulator.stop()

    def client(self) -> Any:
        """Google's own client, without credentials, on this layer."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        made = storage.Client(
            project="tests",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self.url},
        )
        self._clients.append(made)
        return made

    def put(self, name: str, data: bytes) -> None:
        """Overwrite an object, as a hand in the console would."""
        self.client().bucket(BUCKET).blob(name).upload_from_string(data)

    def get(self, name: str) -> bytes:
        found: bytes = self.client().bucket(BUCKET).blob(name).download_as_bytes()
        return found

    def allows(self, name: str, query: dict[str, list[str]]) -> bool:
        wanted = query.get("ifGenerationMatch")
        if wanted is None or not self.enforce:
            return True
        return self.generations.get(name, 0) == int(wanted[0])

    def wrote(self, name: str) -> None:
        self.generations[name] = next(self._next)


class _Handler(BaseHTTPRequestHandler):
    gcs: GcsLayer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one segment, else each answer waits 40 ms for an acknowledgement

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - http.server's names

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.gcs.hung.wait(30)
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        name = self._name(parts.path, query, body)
        with self.gcs.lock:
            if name is not None and not self.gcs.allows(name, query):
                self.gcs.refused += 1
                self._answer(
                    412, {"Content-Type": "application/json"}, json.dumps(PRECONDITION_FAILED).encode()
                )
                return
            asked = query.get("generation")
            if asked and asked[0] != str(self.gcs.generations.get(name or "")):
                self._answer(404, {}, b"No such object")  # no versions are kept
                return
            status, headers, answer = self._pass_on(re.sub(r"(?<=[?&])generation=\d+&?", "", self.path), body)
            if name is not None and status < 300:
                if self.command in ("POST", "PUT"):
                    self.gcs.wrote(name)
                elif self.command == "DELETE":
                    self.gcs.generations.pop(name, None)
            generation = self.gcs.generations.get(name or "")
        is_metadata = query.get("alt") != ["media"] and "json" in headers.get("Content-Type", "")
        if generation is not None and is_metadata and status < 300:
            fields = json.loads(answer)
            link = f"{self.gcs.url}/download/storage/v1/b/{BUCKET}/o/{quote(name or '', safe='')}"
            media = f"{link}?generation={generation}&alt=media"  # else the library would go round this layer
            answer = json.dumps({**fields, "generation": str(generation), "mediaLink": media}).encode()
        if generation is not None and query.get("alt") == ["media"]:
            headers["X-Goog-Generation"] = str(generation)
        self._answer(status, headers, answer)

    def _name(self, path: str, query: dict[str, list[str]], body: bytes) -> str | None:
        """The object that a request is about."""
        if _UPLOAD.match(path):
            named = query.get("name") or [m.decode() for m in _NAME.findall(body)[:1]]
            return named[0] if named else None
        found = _OBJECT.match(path)
        return unquote(found[1]) if found else None

    def _pass_on(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.gcs.emulator_address, timeout=10)
        try:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP | {"host"}}
            connection.request(self.command, path, body or None, kept)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        return (
            answer.status,
            {k.title(): v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP},
            raw,
        )

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
