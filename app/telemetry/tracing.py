"""Traces by OpenTelemetry. Nothing imports this unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

Whoever works only notes what is to be told. The library's spans are made of that by a thread of this module, many at a time:
one by one, among an alert's other work, they would take a fortieth of it, and a failure of theirs must not be an alert's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Token

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.domain.order import Order
from app.service.observe import Trail
from app.service.records import AuditEvent
from app.telemetry.noted import HERE, SAMPLED, Noted, OnSpan, begin

SERVICE = "tradingview-fyers-options"
EXPORT_S = 1.0
"""For one batch to leave. A collector that is away costs spans, never an order."""
MAKE_S = 0.25
"""Between two looks at what has ended."""
FLUSH_S = 0.5
"""At the end of a process: its last steps have less than a second (gunicorn.conf.py)."""
MAX_KEPT = 2048
OUTSIDE = ("broker", "quote", "book", "redis")
"""Phases that wait for somebody beyond the database have spans. The others' times and statements stand on the span that
they ran under: a span for each would tell less in more words.
"""
READS, A_MOMENT_NS = ("quote", "book"), 500_000
"""A read that was answered sooner waited for nobody (the paper exchange answers from memory), and needs no span either."""
OUR_FAULT = 500
MAX_VALUE = 200
_W3C = TraceContextTextMapPropagator()


Entered = tuple[Noted, Token[Noted | None] | None]


class _Given(IdGenerator):
    """The ids that a span was noted with."""

    def __init__(self) -> None:
        self.here = trace.INVALID_SPAN_CONTEXT

    def generate_span_id(self) -> int:
        return self.here.span_id

    def generate_trace_id(self) -> int:
        return self.here.trace_id


class Tracing:
    """Spans of requests, jobs and what happens in them. Implements service.observe.Spans."""

    statements = OnSpan()

    def __init__(self, endpoint: str, exporter: SpanExporter | None = None) -> None:
        self._ids = _Given()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": SERVICE}),
            sampler=ALWAYS_ON,  # whatever a sender, or a proxy on its way, wants to keep of its own
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=MAX_KEPT, schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer(SERVICE)
        self._ended: deque[Noted] = deque(maxlen=MAX_KEPT)
        self._making, self._closed = threading.Lock(), threading.Event()
        self._maker: threading.Thread | None = None

    # -- below a request or a job

    def start(self, name: str, attributes: dict[str, str]) -> Entered | None:
        if name not in OUTSIDE:
            return None
        above = HERE.get()
        noted = begin(name, SpanKind.CLIENT, above.here if above is not None else None, {**attributes})
        return noted, None if name in READS else HERE.set(noted)

    def end(self, span: Entered, error: BaseException | None) -> None:
        noted = span[0]
        if noted.name in READS and error is None and time.time_ns() - noted.began_ns < A_MOMENT_NS:
            return
        self._leave(span, error)

    # -- a request

    def request(self, trail: Trail, method: str, route: str, headers: Mapping[str, str]) -> Entered:
        """The span of a whole request, below what its sender says it belongs to."""
        above = trace.get_current_span(_W3C.extract(headers)).get_span_context() if headers else None
        about: dict[str, str | int] = {"http.request.method": method, "http.route": route}
        parent = above if above is not None and above.is_valid else None
        return self._enter(begin(f"{method} {route}", SpanKind.SERVER, parent, about), trail)

    def answered(self, span: Entered, trail: Trail, status: int) -> str:
        """The last that is known of it. Gives the header that tells the sender its trace."""
        noted = span[0]
        known = (
            ("request_id", trail.id),
            ("order_id", trail.order_id),
            ("client", trail.client),
            ("outcome", trail.outcome),
            ("code", trail.code),
        )
        noted.attributes |= {name: value[:MAX_VALUE] for name, value in known if value}
        noted.attributes["http.response.status_code"] = status
        if status >= OUR_FAULT:
            noted.error = ""
        return f"00-{trail.trace_id}-{trail.span_id}-{noted.here.trace_flags:02x}"

    def done(self, span: Entered, error: BaseException | None) -> None:
        self._leave(span, error)

    # -- a job, and what a reconcile pass has settled

    @contextmanager
    def job(self, trail: Trail, name: str) -> Iterator[None]:
        span = self._enter(begin(f"job {name}", SpanKind.INTERNAL, None, {}), trail)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._leave(span, error)

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
                trace_flags=SAMPLED,
            )
        except (KeyError, ValueError):
            return
        about: dict[str, str | int] = {"order_id": order.id, "state": order.status.value}
        noted = begin("reconcile", SpanKind.INTERNAL, parent, about)
        if (job := HERE.get()) is not None:
            noted.links = (Link(job.here),)
        self._end(noted, None)

    # -- the end

    def flush(self) -> None:
        """Make and send what has ended so far."""
        self._make()
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is left, and wait no longer than FLUSH_S whatever the collector does."""
        self._closed.set()
        ending = threading.Thread(target=self._finish, daemon=True, name="last traces")
        ending.start()
        ending.join(FLUSH_S)

    def _finish(self) -> None:
        self._make()
        self._provider.shutdown()

    # -- notes to spans

    @staticmethod
    def _enter(noted: Noted, trail: Trail) -> Entered:
        """The span of what this thread does until `_leave`."""
        trail.trace_id, trail.span_id = f"{noted.here.trace_id:032x}", f"{noted.here.span_id:016x}"
        noted.phases = trail.phases
        return noted, HERE.set(noted)

    def _leave(self, span: Entered, error: BaseException | None) -> None:
        noted, token = span
        if token is not None:
            HERE.reset(token)
        self._end(noted, error)

    def _end(self, noted: Noted, error: BaseException | None) -> None:
        noted.ended_ns = time.time_ns()
        if error is not None:
            noted.error = type(error).__name__
        self._ended.append(noted)
        if (
            self._maker is None or not self._maker.is_alive()
        ):  # at the first, and in a process that was forked
            with suppress(RuntimeError):  # no thread to be had: the next one tries again
                self._maker = threading.Thread(target=self._make_on, daemon=True, name="traces")
                self._maker.start()

    def _make_on(self) -> None:
        while not self._closed.wait(MAKE_S):
            self._make()

    def _make(self) -> None:
        with self._making:
            while self._ended:
                with suppress(Exception):  # one that cannot be made is one less
                    self._made(self._ended.popleft())

    def _made(self, noted: Noted) -> None:
        self._ids.here = noted.here
        parent = trace.set_span_in_context(NonRecordingSpan(noted.parent)) if noted.parent else Context()
        span = self._tracer.start_span(
            noted.name, parent, noted.kind, noted.all_attributes(), noted.links, noted.began_ns
        )
        if noted.error is not None:
            span.set_status(Status(StatusCode.ERROR, noted.error or None))
        span.end(noted.ended_ns)
