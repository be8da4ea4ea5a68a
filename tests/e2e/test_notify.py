"""The real service and real channels on loopback: one answers, one hangs, one fails; and the service is killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.alone]
KILLS = 20
"""Of the whole service; tests/integration/test_outbox_kills.py kills the sender alone, at closer moments."""
ORDER = {"strikeprice": 24500, "lots": 1}
REF = re.compile(r"\(ref ([0-9a-f]{12})\)")


class Sink:
    """A channel: keeps what it was sent. `mode`: ok, fail, hang."""

    def __init__(self, mode: str, takes_s: float = 0.0) -> None:
        self.mode, self.takes_s = mode, takes_s
        self.got: list[dict[str, Any]] = []
        self.tried = 0
        self.let_go = threading.Event()

    @property
    def refs(self) -> list[str]:
        return [REF.findall(m["message"])[-1] for m in self.got]

    def text(self) -> str:
        return "\n".join(m["message"] for m in self.got)


@contextmanager
def serving(*sinks: Sink) -> Iterator[str]:
    """NOTIFY_URLS for these."""
    servers = []
    for sink in sinks:

        class Handler(BaseHTTPRequestHandler):
            one = sink

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.one.tried += 1
                if self.one.mode == "hang":
                    self.one.let_go.wait(60)
                    return
                time.sleep(self.one.takes_s)
                if self.one.mode == "ok":
                    self.one.got.append(json.loads(body))
                self.send_response(200 if self.one.mode == "ok" else 500)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    try:
        yield ",".join(f"json://127.0.0.1:{s.server_port}/a-secret-path-{n}" for n, s in enumerate(servers))
    finally:
        for sink in sinks:
            sink.let_go.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def counts(sink: Sink, code: str) -> list[int]:
    """How many notices of a code each message told."""
    found = [re.fullmatch(rf"PAPER (?:PAGE )?{code}(?: x(\d+))?", m["title"]) for m in sink.got]
    return [int(f.group(1) or 1) for f in found if f]


def wait_for(what: Any, within_s: float = 60) -> None:
    give_up = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.1)


def kill_all(service: Service) -> None:
    """Gunicorn and its workers, at once; the sending process is not the service."""
    assert service.process is not None
    pid = service.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for victim in (pid, *map(int, workers)):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    service.process.wait()


def halted(service: Service, state: str, reason: str) -> None:
    headers = {"Authorization": f"Bearer {service.token('admin_token')}"}
    said = service.request(
        "POST", "/api/v1/state", json.dumps({"state": state, "reason": reason}).encode(), headers
    )
    assert said.status == 200


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the workers through /proc")
def test_no_page_is_lost_over_kills_and_none_is_sent_twice(tmp_path: Path) -> None:
    rng, sink = random.Random(12), Sink("ok", takes_s=0.2)
    with serving(sink) as urls:
        service = Service(tmp_path, {"NOTIFY_URLS": urls, "NOTIFY_PER_MINUTE": "600"})
        try:
            for number in range(KILLS):
                service.start()
                halted(service, ("REDUCING", "HALTED")[number % 2], f"round {number} of the kills")
                time.sleep(rng.choice((0, 0.1, 0.5, 2.5)) * rng.random())
                kill_all(service)
            service.start()
            rounds = [f"round {n} of the kills" for n in range(KILLS)]
            wait_for(lambda: all(r in sink.text() for r in rounds))
            time.sleep(3)
        finally:
            service.stop()
    assert [ref for ref, times in Counter(sink.refs).items() if times > 1] == []
    assert {r: sink.text().count(r) for r in rounds} == dict.fromkeys(rounds, 1)


def test_channels_that_hang_and_fail_slow_no_request_and_hold_up_no_other(tmp_path: Path) -> None:
    good, hanging, failing = Sink("ok"), Sink("hang"), Sink("fail")
    with serving(hanging, failing, good) as urls:
        env = {
            "NOTIFY_URLS": urls,
            "WEBHOOK_MAX_QTY": "1",
            "RISK_MAX_ORDERS_PER_MINUTE": "1000",
            "RISK_MAX_ORDERS_PER_HOUR": "1000",
            "RISK_RUNAWAY": "",
            "RISK_MAX_OPEN_LOTS": "1000",
            "NOTIFY_PREFERENCES": '{"3": ["all", "-order_filled"]}',
        }
        with Service(tmp_path, env) as service:
            token = service.token("webhook_token")
            took = []
            for number in range(60):
                began = time.monotonic()
                assert service.alert(**ORDER, idempotency_key=f"n{number}").status == 200
                took.append(time.monotonic() - began)
                if number == 0:  # however quick the service is: the flood comes after the first was told
                    wait_for(lambda: counts(good, "order_accepted") == [1])
            halted(service, "HALTED", "enough of it")
            wait_for(lambda: "enough of it" in good.text())
            wait_for(lambda: hanging.tried and failing.tried)
            assert max(took) < 1.5
            wait_for(lambda: sum(counts(good, "order_accepted")) == 60, 90)
            assert len(counts(good, "order_accepted")) == 2  # the first at once, the flood's rest as one
            titles = [m["title"] for m in good.got]
            assert not [t for t in titles if "order_filled" in t]
            assert hanging.got == failing.got == []
            said = service.alert(action="HEARTBEAT", strategy="orb", every_seconds="60")
            assert (said.status, said.body["status"], said.body["strategy"]) == (200, "ok", "orb")
            log = service.log
    assert "a-secret-path" not in log
    assert token not in good.text()
