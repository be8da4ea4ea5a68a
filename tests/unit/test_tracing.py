"""Traces: one from the alert to the broker's answer and to the reconcile that settled it; nothing secret in any span."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, StatusCode
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from app.domain.outcome import Unknown
from app.factory import create_app
from app.service.observe import phase
from app.service.reconcile import Pass
from app.store.prepared import hear
from app.telemetry import tracing
from app.telemetry.broker import ObservedBroker
from app.telemetry.noted import MOST_STATEMENTS, Noted
from app.telemetry.requests import trace_of
from app.telemetry.tracing import FLUSH_S, Tracing
from app.telemetry.watcher import TracedReconcile, Watch
from tests.builders import SCOPE
from tests.unit.web_desk import ADMIN, TOKEN, WebDesk

PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class Traced:
    """A web desk whose spans are kept."""

    def __init__(self, directory: Path) -> None:
        self.kept = InMemorySpanExporter()
        self.tracing = Tracing("http://127.0.0.1:9", self.kept)
        self.desk = desk = WebDesk(directory)
        self.watch = Watch(tracing=self.tracing)
        ports = replace(desk.app.extensions["ports"], watcher=self.watch)
        desk.desk = replace(desk.desk, broker=ObservedBroker(desk.broker, self.watch.metrics.broker_call))
        desk.app = create_app(ports=ports)
        desk.client = desk.app.test_client()

    def spans(self) -> tuple[ReadableSpan, ...]:
        self.tracing.flush()
        return self.kept.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [s for s in self.spans() if s.name == name]
        return span


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    traced = Traced(tmp_path)
    yield traced
    traced.tracing.close()


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_one_trace_from_the_alert_to_the_brokers_answer(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.telemetry.tracing.A_MOMENT_NS", 0)  # the broker in memory takes no time
    answer = traced.desk.webhook(headers={"traceparent": PARENT})
    assert answer.status_code == 200
    root = traced.named("POST /webhook")
    assert trace_id(root) == "ab" * 16
    assert root.parent is not None
    assert root.parent.span_id == int("cd" * 8, 16)
    below = {s.name: s for s in traced.spans() if s is not root}
    assert set(below) == {"quote", "broker"}  # what waits for somebody; the store is one in memory here
    assert {trace_id(s) for s in below.values()} == {"ab" * 16}
    for name in ("quote", "broker"):
        parent = below[name].parent
        assert parent is not None
        assert parent.span_id == span_id(root)
    told = dict(root.attributes or {})
    phases = [each.split(" ")[0] for each in str(told.pop("phases_ms")).split("; ")]
    assert phases == ["auth", "resolve", "quote", "risk", "broker"]
    assert told == {
        "http.request.method": "POST",
        "http.route": "/webhook",
        "http.response.status_code": 200,
        "request_id": answer.get_json()["request_id"],
        "order_id": answer.get_json()["order_id"],
        "client": "default",
        "outcome": "accepted",
    }
    assert answer.headers["traceresponse"] == f"00-{'ab' * 16}-{span_id(root):016x}-01"


def test_a_sender_that_keeps_no_trace_of_its_own_does_not_switch_ours_off(traced: Traced) -> None:
    answer = traced.desk.webhook(headers={"traceparent": PARENT[:-2] + "00"})
    assert trace_id(traced.named("POST /webhook")) == "ab" * 16
    assert answer.headers["traceresponse"].endswith("-01")


def test_two_requests_of_one_thread_are_two_traces(traced: Traced) -> None:
    for number in range(2):
        traced.desk.webhook(idempotency_key=f"k{number}")
    roots = [s for s in traced.spans() if s.name == "POST /webhook"]
    assert len({trace_id(s) for s in roots}) == 2
    assert [s.parent for s in roots] == [None, None]


def test_the_reconcile_that_settles_an_order_stands_in_its_alerts_trace(traced: Traced) -> None:
    desk = traced.desk
    desk.broker.next_place.append(Unknown("no answer"))
    desk.webhook(headers={"traceparent": PARENT})
    (order,) = desk.store.orders
    sending = desk.store.events(SCOPE, order.id)[0]
    assert sending.detail["trace_id"] == "ab" * 16
    done = Pass(desk.clock.now(), asked_broker=True, changed=(order,))
    reconcile = TracedReconcile(lambda _: done, desk.store, traced.tracing)
    with traced.watch.job("reconcile"):
        assert reconcile(None) is done
    settled, job = traced.named("reconcile"), traced.named("job reconcile")
    assert trace_id(settled) == "ab" * 16
    assert settled.parent is not None
    assert settled.parent.span_id == span_id(traced.named("POST /webhook"))
    assert [link.context.span_id for link in settled.links] == [span_id(job)]
    assert trace_id(job) != "ab" * 16
    assert (settled.attributes or {})["order_id"] == order.id


def test_no_secret_stands_in_a_span(traced: Traced) -> None:
    desk, canary = traced.desk, "canary-0123456789"
    desk.webhook(token=canary, strategy=canary)
    desk.webhook(idempotency_key=canary)
    desk.broker.fail.add("quotes")
    desk.webhook(strategy="x")
    desk.api("get", f"/api/v1/orders/{canary}?x={canary}", canary)
    desk.api("get", f"/{canary}")
    shown = "".join(s.to_json() for s in traced.spans())
    assert "POST /webhook" in shown
    assert not [secret for secret in (canary, TOKEN, ADMIN) if secret in shown]


def test_a_statement_is_its_verb_and_its_table(traced: Traced) -> None:
    engine = create_engine("sqlite://")
    hear(engine, traced.tracing.statements)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id TEXT)"))  # outside of any work: nothing
        with traced.watch.job("purge"):
            connection.execute(text("INSERT INTO orders VALUES (:id)"), {"id": "canary-1"})
            connection.execute(text("SELECT id FROM orders WHERE id = 'canary-2'"))
            connection.execute(text("UPDATE orders SET id = 'canary-4'"))
            with pytest.raises(Exception, match="no such table"):
                connection.execute(text("SELECT 'canary-3' FROM nowhere"))
    (job,) = traced.spans()
    told = str((job.attributes or {})["db.statements"])
    assert told == "INSERT orders; SELECT orders; UPDATE orders; SELECT nowhere OperationalError"
    assert "canary" not in job.to_json()
    engine.dispose()


def test_an_error_while_rows_are_fetched_is_not_put_on_a_statement_begun_since(traced: Traced) -> None:
    engine = create_engine("sqlite://")
    hear(engine, traced.tracing.statements)
    with engine.begin() as connection, traced.watch.job("purge"):
        # The second row's value cannot be worked out: SQLite says so when it is fetched, not before.
        rows = connection.execute(
            text("SELECT abs(n) FROM (SELECT 1 AS n UNION ALL SELECT -9223372036854775807 - 1)")
        )
        connection.execute(text("SELECT 1 FROM sqlite_master"))
        with pytest.raises(OperationalError, match="integer overflow"):
            rows.all()
    (job,) = traced.spans()
    told = str((job.attributes or {})["db.statements"]).split("; ")
    assert told[-1] == "SELECT sqlite_master"
    assert len(told) == 2
    engine.dispose()


def test_a_job_tells_its_phases(traced: Traced) -> None:
    with traced.watch.job("reconcile"), phase("book"):
        pass
    (job,) = [s for s in traced.spans() if s.name == "job reconcile"]
    assert str((job.attributes or {})["phases_ms"]).startswith("book ")


def test_a_pass_over_thousands_of_orders_makes_no_span_of_their_length(traced: Traced) -> None:
    engine = create_engine("sqlite://")
    hear(engine, traced.tracing.statements)
    with engine.begin() as connection, traced.watch.job("purge"):
        for _ in range(MOST_STATEMENTS + 7):
            connection.execute(text("SELECT 1 FROM sqlite_master"))
    (job,) = traced.spans()
    told = str((job.attributes or {})["db.statements"]).split("; ")
    assert len(told) == MOST_STATEMENTS + 1
    assert told[-1] == "and 7 more"
    engine.dispose()


def test_a_read_that_took_no_time_has_no_span_and_one_that_failed_has(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.telemetry.tracing.A_MOMENT_NS", 10**12)
    assert traced.desk.webhook().status_code == 200
    assert {s.name for s in traced.spans()} == {"POST /webhook", "broker"}
    traced.desk.broker.fail.add("quotes")
    traced.desk.webhook(idempotency_key="another")
    (quote,) = [s for s in traced.spans() if s.name == "quote"]
    assert quote.status.status_code is StatusCode.ERROR


def test_a_span_that_cannot_be_made_changes_nothing_of_an_order_or_of_other_spans(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = traced.tracing._tracer.start_span

    def failing(name: str, *args: Any, **kwargs: Any) -> Span:
        if name == "broker":
            raise MemoryError
        return start(name, *args, **kwargs)

    monkeypatch.setattr(traced.tracing._tracer, "start_span", failing)
    answer = traced.desk.webhook()
    assert (answer.status_code, answer.get_json()["status"]) == (200, "accepted")
    assert {s.name for s in traced.spans()} == {"POST /webhook"}


def test_a_span_has_the_times_of_what_it_tells_and_not_of_its_making(traced: Traced) -> None:
    began = time.time_ns()
    traced.desk.webhook()
    ended = time.time_ns()
    root, broker = traced.named("POST /webhook"), traced.named("broker")
    times = [root.start_time, broker.start_time, broker.end_time, root.end_time]
    assert sorted([began, *(t or 0 for t in times), ended]) == [began, *times, ended]


def test_what_runs_within_the_brokers_call_stands_below_it(traced: Traced) -> None:
    with traced.watch.job("reconcile"), phase("broker"), phase("redis"):
        traced.tracing.statements.asked("SELECT 1 FROM orders")
    job, broker, redis = (traced.named(name) for name in ("job reconcile", "broker", "redis"))
    parents = {s.name: s.parent.span_id if s.parent else None for s in (job, broker, redis)}
    assert parents == {"job reconcile": None, "broker": span_id(job), "redis": span_id(broker)}
    assert (redis.attributes or {})["db.statements"] == "SELECT orders"


def test_spans_are_made_without_being_asked_for(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = traced.tracing._made, threading.Event()

    def making(noted: Noted) -> None:
        make(noted)
        made.set()

    monkeypatch.setattr(traced.tracing, "_made", making)
    with traced.watch.job("purge"):
        pass
    assert made.wait(5)
    traced.tracing._provider.force_flush()
    assert [s.name for s in traced.kept.get_finished_spans()] == ["job purge"]


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.let_go.wait(30)
        return SpanExportResult.FAILURE


def test_the_end_waits_for_a_hanging_collector_no_longer_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert FLUSH_S < 2
    monkeypatch.setattr(tracing, "FLUSH_S", 0.1)
    exporter = Hanging()
    traces = Tracing("http://127.0.0.1:9", exporter)
    with Watch(tracing=traces).job("x"):
        pass
    started = time.monotonic()
    traces.close()
    assert time.monotonic() - started < 1
    assert exporter.asked.is_set()
    exporter.let_go.set()


def test_without_an_address_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from app.settings import Settings; from app.factory import create_app; "
        f"create_app(Settings(_env_file=None, instance_dir={str(tmp_path)!r})); "
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("traceparent", "cloud", "found"),
    [
        (PARENT, "", "ab" * 16),
        ("", "cd" * 16 + "/123;o=1", "cd" * 16),
        ("00-" + "0" * 32 + "-" + "cd" * 8 + "-01", "", ""),
        ("x" * 10_000, "\n{}", ""),
    ],
)
def test_a_request_says_its_trace_by_either_header(traceparent: str, cloud: str, found: str) -> None:
    assert trace_of(traceparent, cloud) == found
