"""Starts the real service, gunicorn and all, on a free loopback port, and talks to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.leak_watch import CANARIES, GIVEN_TOKEN, WATCH

ROOT = Path(__file__).parents[2]
START_WITHIN_S = 60
UNGUARDED = {
    "BREAKER_FAIL_MAX": "1000000",
    "FYERS_ORDERS_PER_SECOND": "500",
    "FYERS_CALLS_PER_SECOND": "1000000",
    "FYERS_CALLS_PER_MINUTE": "1000000",
    "FYERS_CALLS_PER_DAY": "1000000",
    "RISK_INTRADAY_CUTOFF": "",
}
"""Against the simulator, where a test is not about the breaker, the budget and the hour: they are in nobody's way."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Service:
    """`with Service(tmp_path, env) as service:`; the instance directory outlives a restart."""

    directory: Path
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def instance(self) -> Path:
        return self.directory / "instance"

    @property
    def log(self) -> str:
        return (self.directory / "service.log").read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def spawn(self) -> None:
        """Start it and wait for nothing."""
        if self.env.get("FYERS_ACCESS_TOKEN") == "t":  # too short to be looked for; the simulator takes both
            self.env = {**self.env, "FYERS_ACCESS_TOKEN": GIVEN_TOKEN}
        env = {
            **CANARIES,
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PORT": str(self.port),
            "INSTANCE_DIR": str(self.instance),
            "RATE_LIMIT_WEBHOOK": "1000000 per minute",  # a test that is about it gives its own
            **(UNGUARDED if "FYERS_API_URL" in self.env else {}),
            **self.env,
        }
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app.wsgi:app"]
        with (self.directory / "service.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        WATCH.service(self)

    def start(self) -> None:
        self.spawn()
        assert self.process is not None
        give_up = time.monotonic() + START_WITHIN_S
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                break
            try:
                if self.get("/readyz").status == 200:
                    self.wait_reconciled()
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the service did not become ready:\n{self.log[-4000:]}")

    def wait_reconciled(self, within_s: float = 3) -> bool:
        """Each worker answers entries with 503 until its first pass, and /readyz speaks of the worker that was asked, so
        the log is read for all of them. With a broken broker the pass never comes, and False does.
        """
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            if self.get("/readyz").body["checks"]["reconciled"] == "ok":
                log = self.log.rsplit("Starting gunicorn", 1)[-1]
                if log.count("this worker takes entries") >= log.count("Booting worker with pid"):
                    return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)

    def token(self, name: str) -> str:
        return (self.instance / name).read_text().strip()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        body_out = json.loads(raw) if "json" in (answer.headers.get_content_type() or "") else raw
        return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body_out)

    def get(self, path: str) -> Answer:
        headers = {}
        if path.startswith(("/api", "/readyz")) and (admin := self.admin):
            headers["Authorization"] = f"Bearer {admin}"
        return self.request("GET", path, headers=headers)

    @property
    def admin(self) -> str | None:
        """None before the first start has made it."""
        given, made = self.env.get("ADMIN_TOKEN"), self.instance / "admin_token"
        return given or (made.read_text().strip() if made.is_file() else None)

    def alert(self, **fields: Any) -> Answer:
        body = {
            "token": self.token("webhook_token"),
            "symbol": "NIFTY",
            "optionType": "CE",
            "expiry": "WEEKLY",
            "action": "BUY",
            **fields,
        }
        return self.request("POST", "/webhook", json.dumps(body, default=str).encode())
