"""What the telemetry costs: alerts a second with all of it on against the same service with none, in one run.

In one process, on SQLite and the paper exchange, in turns of a few alerts each, so that a busy machine disturbs both
alike. On: lines on stdout and in a file, figures in the workers' shared files, spans sent to a collector.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from bench.rows import Row, show

TURNS, PER_TURN, FILLS_EVERY = 200, 5, 20
LEAST = 0.9
COLLECTOR = """
import http.server
class Taking(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Taking)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def _collector() -> Iterator[str]:
    """One that takes what it is sent, in a process of its own; its address."""
    with subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def _prepared(directory: Path, collector: str) -> Any:  # noqa: ANN401 - a Settings, imported after the shared directory is set
    os.environ |= {
        "INSTANCE_DIR": str(directory / "instance"),
        "LOG_FILE": str(directory / "a.log"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "RATE_LIMIT_WEBHOOK": "1000000 per minute",
        "RISK_RUNAWAY": "",
        "RISK_MAX_OPEN_LOTS": "",
        **{f"RISK_MAX_ORDERS_PER_{each}": "" for each in ("MINUTE", "HOUR", "DAY")},
    }
    from app.settings import load
    from app.start import prepare

    prepare(load())
    return load()


def _nothing(*_: object, **__: object) -> str:
    return ""


def _off(app: Any, stack: ExitStack) -> None:  # noqa: ANN401 - a Flask app
    """The same app with everything of the telemetry taken out of the way."""
    from app.service import observe
    from app.telemetry.metrics import Metrics

    for name in ("request", "broker_call", "notified", "job"):
        stack.enter_context(mock.patch.object(Metrics, name, _nothing))
    stack.enter_context(mock.patch.object(observe, "begin", _nothing))
    stack.enter_context(mock.patch.object(logging.root, "handlers", []))
    stack.enter_context(mock.patch.object(logging.root, "level", logging.CRITICAL))
    watch = app.extensions["ports"].watcher
    for name in ("request", "answered", "done", "start", "end"):
        stack.enter_context(mock.patch.object(watch.tracing, name, _nothing))


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch, Path(os.devnull).open("w") as nowhere, _collector() as url:
        directory = Path(scratch)
        (directory / "figures").mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory / "figures")
        settings = _prepared(directory, url)
        from app.factory import create_app
        from app.serving.memory import settle

        with redirect_stdout(nowhere):
            app = create_app(settings)
            app.extensions["reconcile"]()
            settle()  # as each worker does
            on, off = _measure(app, settings)
    ratio = statistics.median(a / b for a, b in zip(off, on, strict=True))
    yield Row(
        "throughput with logs, figures and traces on",
        f"{ratio:.3f} of that without",
        f"at least {LEAST}",
        met=ratio >= LEAST,
    )


def _measure(app: Any, settings: Any) -> tuple[list[float], list[float]]:  # noqa: ANN401 - a Flask app
    client, token = app.test_client(), settings.webhook_secret_token.get_secret_value()
    counter = iter(range(10**9))

    def turn() -> float:
        bodies = [
            json.dumps(
                {
                    "token": token, "symbol": "NIFTY", "strikeprice": 24500, "optionType": "CE", "expiry": "WEEKLY",
                    "action": "BUY", "lots": 1, "strategy": f"s{n % 40}", "idempotency_key": f"b{n}",
                }
            )
            for n in (next(counter) for _ in range(PER_TURN))
        ]  # fmt: skip
        started = time.perf_counter()
        for body in bodies:
            answer = client.post("/webhook", data=body)
            if answer.status_code != 200:
                raise SystemExit(f"expected 200, was {answer.status_code}: {answer.text[:300]}")
        return time.perf_counter() - started

    turn()
    on, off = list[float](), list[float]()
    for number in range(TURNS):
        if number % FILLS_EVERY == 0:
            app.extensions["reconcile"]()  # untimed: the orders so far are filled, as on any day
        for with_it in (True, False) if number % 2 else (False, True):
            with ExitStack() as stack:
                if not with_it:
                    _off(app, stack)
                (on if with_it else off).append(turn())
    return on, off


if __name__ == "__main__":
    sys.exit(show(rows()))
