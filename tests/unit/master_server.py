"""A web server for symbol-master files that can misbehave, and a service's settings that point at it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from app.settings import Settings
from tests.builders_master import as_csv, option_row
from tests.unit.master_desk import EXPIRY, many

OPTIONS = ("NSE_FO.csv", "BSE_FO.csv")


class MasterServer:
    """`files` by name. `fault` by name: `cut` (fewer bytes than announced), `drip` (a byte at a time, for ever),
    or an HTTP status. `asked` holds (name, headers, status) of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault: dict[str, str | int] = {}
        self.asked: list[tuple[str, dict[str, str], int]] = []
        self.url = ""
        self.over = threading.Event()

    def statuses(self) -> dict[str, int]:
        return {name: status for name, _, status in self.asked}


def _handler(server: MasterServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            content, fault = server.files.get(name), server.fault.get(name)
            etag = f'"{hashlib.sha256(content or b"").hexdigest()}"'
            status = fault if isinstance(fault, int) else 200 if content is not None else 404
            if status == 200 and self.headers.get("If-None-Match") == etag:
                status = 304
            server.asked.append((name, dict(self.headers), status))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"/elsewhere/{name}")
                server.fault.pop(name)
            body = content if status == 200 and content else b""
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                if fault == "drip":
                    for place in range(len(body)):
                        self.wfile.write(body[place : place + 1])
                        if server.over.wait(0.01):
                            return
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    return Handler


@contextmanager
def serving() -> Iterator[MasterServer]:
    server = MasterServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        thread.join()
        http.server_close()


def settings_of(directory: Path, url: str, files: str = "NSE_FO,BSE_FO") -> Settings:
    return Settings(
        fyers_app_id="SIMAPP-200",
        fyers_access_token="t",  # type: ignore[arg-type] # pydantic makes it a secret
        instance_dir=directory,
        symbol_master_url=url,
        symbol_master_files=files,  # type: ignore[arg-type] # and splits this
        _env_file=None,  # type: ignore[call-arg]
    )


def nse(dated: str = "2026-11-20", lot: int = 65, count: int = 100) -> bytes:
    return as_csv([_dated(row, dated) for row in many(lot)[-count:]])


def bse(dated: str = "2026-11-20", lot: int = 20) -> bytes:
    rows = [
        option_row("SENSEX", EXPIRY, str(strike), "CE", exchange="BSE", scrip=1, token=strike, lot=lot)
        for strike in range(80_000, 85_000, 100)
    ]
    return as_csv([_dated(row, dated) for row in rows])


def _dated(row: list[str], dated: str) -> list[str]:
    return [*row[:7], dated, *row[8:]]
