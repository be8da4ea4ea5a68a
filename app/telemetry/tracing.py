"""Traces by OpenTelemetry. Nothing imports this unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

Attributes are chosen by hand, and none holds a value that a request or a statement brought with it: routes and not paths,
the first word and the table of a statement and not its text, codes and not details.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.domain.order import Order
from app.service.observe import Trail
from app.service.records import AuditEvent

SERVICE = "tradingview-fyers-options"
EXPORT_S = 1.0
"""For one batch to leave. A collector that is away costs spans, never an order."""
FLUSH_S = 0.5
"""At the end of a process: its last steps have less than a second (gunicorn.conf.py)."""
MAX_KEPT = 2048
OUTSIDE = ("broker", "quote", "book", "redis")
"""Phases that wait for somebody beyond the database have spans. The others' times, and all statements, stand on the span of
the request or job: a span costs a tenth of the milliseconds that a transaction takes.
"""
READS, A_MOMENT_NS = ("quote", "book"), 500_000
"""A read that was answered sooner waited for nobody (the paper exchange answers from memory), and needs no span either."""
OUR_FAULT = 500
MAX_VALUE = 200
MOST_STATEMENTS = 100
"""On one span. An alert has some thirteen; a purge or the pass after a long stop may have thousands."""
_TABLE = re.compile(r"\s*(\w+)(?:(?<=UPDATE)\s+(\w+)|.*?\b(?:FROM|INTO)\s+(\w+))?", re.IGNORECASE | re.DOTALL)
_W3C = TraceContextTextMapPropagator()


@dataclass(slots=True)
class _Statements:
    """Of one span: the first MOST_STATEMENTS, and how many came after them. Words are made of them at its end."""

    asked: list[str] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    """Number in `asked` and the error's class."""
    more: int = 0

    def __str__(self) -> str:
        if not self.failed and not self.more:
            return _told(tuple(self.asked))
        told = [f"{_words_of(s)} {self.failed.get(n, '')}".rstrip() for n, s in enumerate(self.asked)]
        return "; ".join([*told, *([f"and {self.more} more"] if self.more else [])])


_STATEMENTS: ContextVar[_Statements | None] = ContextVar("statements", default=None)


@lru_cache(512)
def _words_of(statement: str) -> str:
    """A statement's first word and table, and nothing that a caller brought."""
    found = _TABLE.match(statement)
    return f"{found[1].upper()} {found[2] or found[3] or ''}".strip() if found else "SQL"


@lru_cache(512)
def _told(statements: tuple[str, ...]) -> str:
    """Nearly every alert asks the same of the database, in the same order."""
    return "; ".join(_words_of(s) for s in statements)


def _phases(trail: Trail) -> str:
    return "; ".join(f"{phase} {took * 1000:.1f}" for phase, took in trail.phases.items())


class _OnSpan:
    """Each is told on the span that it ran under: a span or a clock for each would slow an alert. A look outside of any
    request or job is no trace of its own. Implements store.prepared.Hearer.
    """

    @staticmethod
    def asked(statement: str) -> None:
        if (done := _STATEMENTS.get()) is None:
            return
        if len(done.asked) < MOST_STATEMENTS:
            done.asked.append(statement)
        else:
            done.more += 1

    @staticmethod
    def failed(statement: str | None, error: BaseException) -> None:
        done = _STATEMENTS.get()
        if done is not None and done.asked and statement == done.asked[-1] and not done.more:
            done.failed[len(done.asked) - 1] = type(error).__name__


Entered = tuple[Span, Token[Context], Token[_Statements | None]]


def _entered(span: Span) -> Entered:
    """The span of what this thread does until `_left`."""
    return span, context.attach(trace.set_span_in_context(span)), _STATEMENTS.set(_Statements())


def _left(entered: Entered, error: BaseException | None) -> None:
    span, token, statements = entered
    try:
        context.detach(token)
        if (done := _STATEMENTS.get()) is not None and done.asked:
            span.set_attribute("db.statements", str(done))
        _STATEMENTS.reset(statements)
    finally:
        _finish(span, error)


def _finish(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its text may hold anything
    span.end()


class Tracing:
    """Spans of requests, jobs and what happens in them. Implements service.observe.Spans."""

    statements = _OnSpan()

    def __init__(self, endpoint: str, exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": SERVICE}),
            sampler=ALWAYS_ON,  # whatever a sender, or a proxy on its way, wants to keep of its own
            shutdown_on_exit=False,
        )
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=MAX_KEPT, schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer(SERVICE)

    # -- below a request or a job

    def start(self, name: str, attributes: dict[str, str]) -> object:
        return (name, attributes, time.time_ns()) if name in OUTSIDE else None

    def end(self, span: Any, error: BaseException | None) -> None:  # noqa: ANN401 - what `start` gave
        """A span with hindsight, below the request or job: what may have run within it (Redis, within the broker's) is
        its sibling, and its statements are theirs. Never raises: the broker has answered.
        """
        name, attributes, began_ns = span
        if name in READS and error is None and time.time_ns() - began_ns < A_MOMENT_NS:
            return
        with suppress(Exception):
            begun = self._tracer.start_span(
                name, kind=SpanKind.CLIENT, attributes=attributes, start_time=began_ns
            )
            _finish(begun, error)

    # -- a request

    def request(self, trail: Trail, method: str, route: str, headers: Mapping[str, str]) -> Entered:
        """The span of a whole request, below what its sender says it belongs to."""
        span = self._tracer.start_span(
            f"{method} {route}",
            context=_W3C.extract(headers) if headers else Context(),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )
        self._follow(trail, span)
        return _entered(span)

    def answered(self, span: Entered, trail: Trail, status: int) -> str:
        """The last that is known of it. Gives the header that tells the sender its trace."""
        begun = span[0]
        known = (
            ("request_id", trail.id),
            ("order_id", trail.order_id),
            ("client", trail.client),
            ("outcome", trail.outcome),
            ("code", trail.code),
            ("phases_ms", _phases(trail)),
        )
        told: dict[str, str | int] = {name: value[:MAX_VALUE] for name, value in known if value}
        begun.set_attributes({"http.response.status_code": status, **told})
        if status >= OUR_FAULT:
            begun.set_status(Status(StatusCode.ERROR))
        return f"00-{trail.trace_id}-{trail.span_id}-{begun.get_span_context().trace_flags:02x}"

    @staticmethod
    def done(span: Entered, error: BaseException | None) -> None:
        _left(span, error)

    # -- a job, and what a reconcile pass has settled

    @contextmanager
    def job(self, trail: Trail, name: str) -> Iterator[None]:
        span = self._tracer.start_span(f"job {name}", context=context.Context())
        self._follow(trail, span)
        begun = _entered(span)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            if trail.phases:
                span.set_attribute("phases_ms", _phases(trail))
            _left(begun, error)

    def settled(self, order: Order, events: tuple[AuditEvent, ...]) -> None:
        """In the trace of the alert that the order came of, linked to the pass that has brought it to its state."""
        there = next((e.detail for e in reversed(events) if "trace_id" in e.detail), None)
        if there is None:
            return
        try:
            parent = SpanContext(
                int(there["trace_id"], 16),
                int(there["span_id"], 16),
                is_remote=True,
                trace_flags=TraceFlags(1),
            )
        except (KeyError, ValueError):
            return
        span = self._tracer.start_span(
            "reconcile",
            context=trace.set_span_in_context(NonRecordingSpan(parent)),
            links=[Link(trace.get_current_span().get_span_context())],
            attributes={"order_id": order.id, "state": order.status.value},
        )
        span.end()

    # -- the end

    def close(self) -> None:
        """Send what is left, and wait no longer than FLUSH_S whatever the collector does."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True, name="traces")
        ending.start()
        ending.join(FLUSH_S)

    @staticmethod
    def _follow(trail: Trail, span: Span) -> None:
        here = span.get_span_context()
        trail.trace_id, trail.span_id = f"{here.trace_id:032x}", f"{here.span_id:016x}"
