"""What can be seen of the real service: figures over two workers, and no secret in lines, figures and traces."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.service import Service

pytestmark = pytest.mark.slow
CANARY = "Canary/7+Secret=Value-0123"


def page_of(service: Service) -> str:
    answer = service.request(
        "GET", "/metrics", headers={"Authorization": f"Bearer {service.token('admin_token')}"}
    )
    assert answer.status == 200
    return str(answer.body.decode())


def total(page: str, name: str, **labels: str) -> float:
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def figures_dir(service: Service) -> Path:
    assert service.process is not None
    return Path(f"/dev/shm/tv-fyers-metrics-{os.getuid()}-{service.process.pid}")


def wait(condition: Callable[[], Any], within_s: float = 20) -> Any:
    give_up = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)
    return found


def workers(service: Service) -> list[int]:
    return [int(n) for n in re.findall(r"Booting worker with pid: (\d+)", service.log)]


def send(service: Service, prefix: str, count: int) -> None:
    """That many accepted orders. A busy machine may answer 503 (nothing was sent): the alert is sent again."""

    def one(number: int) -> None:
        wait(
            lambda: (
                service.alert(
                    strikeprice=24500, lots=1, idempotency_key=f"{prefix}{number}", strategy=f"s{number % 40}"
                ).status
                == 200
            )
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def test_the_sums_are_right_after_a_worker_is_killed_and_replaced(tmp_path: Path, postgres_url: str) -> None:
    many = {"RISK_MAX_ORDERS_PER_MINUTE": "", "RISK_MAX_OPEN_LOTS": "", "RISK_RUNAWAY": ""}
    with Service(tmp_path, {"DATABASE_URL": postgres_url, **many}) as service:
        first = wait(lambda: found if len(found := workers(service)) == 2 else None)
        send(service, "a", 60)
        served = {pid for pid in first if (figures_dir(service) / f"counter_{pid}.db").exists()}
        assert served == set(first)  # else the rest proves nothing
        page = page_of(service)
        assert total(page, "orders_total", state="ACCEPTED") == 60
        assert total(page, "webhook_outcomes_total", outcome="accepted") == 60
        assert total(page, "alert_phase_seconds_count", phase="broker") == 60
        assert total(page, "orders_today") == 60
        strategies = {
            s.labels["strategy"]
            for family in text_string_to_metric_families(page)
            for s in family.samples
            if s.name == "orders_total"
        }
        assert len(strategies) == 21  # of both workers together

        os.kill(first[0], signal.SIGKILL)
        wait(lambda: len(workers(service)) == 3)
        wait(lambda: not list(figures_dir(service).glob(f"gauge_live*_{first[0]}.db")))
        assert total(page_of(service), "orders_total", state="ACCEPTED") == 60
        send(service, "b", 40)
        page = page_of(service)
        assert total(page, "orders_total", state="ACCEPTED") == 100
        assert total(page, "http_requests_total", route="/webhook", status="200") == 100
        # Each worker keeps the database's figures for a second, so that one of the two may still show the old ones.
        page = wait(lambda: found if total(found := page_of(service), "orders_today") == 100 else None)
        assert total(page, "cap_used", cap="orders_day") == 100
        mine = figures_dir(service)
        assert mine.is_dir()
    assert not mine.exists()


class Sink(ThreadingHTTPServer):
    """Takes traces as a collector does, and keeps them as they came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Collector)

    def spans(self) -> list[Any]:
        found = []
        for body in list(self.bodies):
            request = ExportTraceServiceRequest.FromString(body)
            found += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return found


class Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Sink)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") is None and self.path == "/v1/traces":
            self.server.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def ask_everything(service: Service) -> None:
    """Requests of every kind, each with the secret where somebody could put it."""
    bearer = {"Authorization": f"Bearer {CANARY}"}
    basic = {"Authorization": "Basic " + base64.b64encode(f"u:{CANARY}".encode()).decode()}
    body = {"token": CANARY, "symbol": "NIFTY", "strikeprice": 24500, "optionType": "CE", "action": "BUY"}
    full = json.dumps({**body, "expiry": "WEEKLY", "lots": 1}).encode()
    assert service.request("POST", "/webhook", full).status == 200
    assert service.request("POST", "/webhook", json.dumps(body).encode()).status == 400
    assert service.request("POST", "/webhook", full[:-3]).status == 400
    service.request("POST", "/webhook", full.replace(b'"lots"', b'"token2"'))
    service.request("POST", "/webhook", full, {"webhook-signature": f"v1,{CANARY}", "webhook-id": CANARY})
    for headers in (bearer, basic, {"X-Request-Id": CANARY}, {"Cookie": f"session={CANARY}"}):
        for path in (
            "/api/v1/orders",
            f"/api/v1/orders/{quote(CANARY, safe='')}",
            "/metrics",
            "/api/v1/state",
        ):
            service.request("GET", path, headers=headers)
    assert service.request("POST", "/api/v1/orders", full, bearer).status == 200
    service.request("POST", "/api/v1/check", full, bearer)
    service.request("GET", f"/fyers/callback?auth_code={quote(CANARY, safe='')}&state=x")
    service.request("GET", f"/nowhere?token={quote(CANARY, safe='')}")
    service.request("POST", "/fyers/login", f"token={quote(CANARY, safe='')}".encode())
    assert service.alert(strikeprice=24500, lots=1).status == 401


def spellings() -> list[str]:
    encoded = [
        base64.b64encode(b"\0" * n + CANARY.encode()).decode()[4 if n else 0 : (n + len(CANARY)) // 3 * 4]
        for n in range(3)
    ]
    return [CANARY, quote(CANARY), quote(CANARY, safe=""), *encoded]


def test_no_secret_in_lines_figures_and_traces(tmp_path: Path, sink: Sink) -> None:
    env = {
        "WEBHOOK_SECRET_TOKEN": CANARY,
        "LOG_LEVEL": "DEBUG",
        "LOG_FILE": str(tmp_path / "logs" / "a.log"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_port}",
    }
    with Service(tmp_path, env) as service:
        (service.instance / "webhook_token").write_text("not the one")
        ask_everything(service)
        page = page_of(service)
        wait(lambda: any(s.name == "POST /webhook" for s in sink.spans()))
        order = service.get("/api/v1/orders").body["orders"][0]["order_id"]
    shown = {
        "lines": service.log,
        "file": (tmp_path / "logs" / "a.log").read_text(encoding="utf-8"),
        "figures": page,
        "traces": b"".join(sink.bodies).decode("latin-1"),
    }
    for where, text in shown.items():
        assert [s for s in spellings() if s in text] == [], where
    assert order in shown["lines"]
    assert order in shown["traces"]
    kept = [json.loads(line) for line in shown["file"].splitlines()]
    canonical = [line for line in kept if line["event"] == "request" and line["path"] == "/webhook"]
    assert canonical[0]["outcome"] == "accepted"
    assert canonical[0]["client"] == "default"
    assert {"queue", "auth", "quote", "commit", "broker", "record"} <= set(canonical[0]["phases_ms"])


def test_one_trace_from_the_alert_to_the_broker_and_its_database(tmp_path: Path, sink: Sink) -> None:
    endpoint = f"http://127.0.0.1:{sink.server_port}"
    with Service(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as service:
        assert service.alert(strikeprice=24500, lots=1).status == 200
        trace = wait(lambda: whole(sink.spans()))
    names = {s.name for s in trace}
    assert "broker" in names
    told = {(s.name, a.key): a.value.string_value for s in trace for a in s.attributes}
    statements = told["POST /webhook", "db.statements"].split("; ")
    assert {"INSERT orders", "INSERT order_events", "UPDATE orders"} <= set(statements)
    assert {"auth", "quote", "commit", "check", "record"} <= {
        each.split()[0] for each in told["POST /webhook", "phases_ms"].split("; ")
    }


def whole(spans: list[Any]) -> list[Any]:
    """The alert's trace, once every span in it stands below another one."""
    root = next((s for s in spans if s.name == "POST /webhook"), None)
    trace = [s for s in spans if root is not None and s.trace_id == root.trace_id]
    ids = {s.span_id for s in trace}
    return trace if [s for s in trace if s.parent_span_id not in ids] == [root] else []
