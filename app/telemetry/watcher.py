"""Figures and traces of one process, as one thing that the rest of the service is given."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from app.errors import StoreUnavailable
from app.service import observe
from app.service.observe import Trail
from app.service.ports import Store
from app.service.reconcile import Pass
from app.settings.telemetry import TelemetrySettings
from app.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from app.telemetry.tracing import Tracing

MOST_SETTLED = 100
"""Orders of one pass that are told to their traces."""


class Watch:
    """Implements service.observe.Watcher."""

    def __init__(self, metrics: Metrics | None = None, tracing: Tracing | None = None) -> None:
        self.metrics, self.tracing = metrics or Metrics(), tracing

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        around = observe.current()  # of the request that asked for the run, and what came with it
        hidden = around.hidden if around is not None else ()
        trail = Trail("job", f"{name}-{secrets.token_hex(4)}", spans=self.tracing, hidden=hidden)
        ok = False
        span = self.tracing.job(trail, name) if self.tracing is not None else nullcontext()
        try:
            with observe.following(trail), span:
                yield
            ok = True
        finally:
            self.metrics.job(name, ok=ok)

    def page(self) -> tuple[bytes, str]:
        return self.metrics.page()

    def close(self) -> None:
        if self.tracing is not None:
            self.tracing.close()


class TracedReconcile:
    """A pass, and what it settled told to the trace of each order's alert."""

    def __init__(
        self, inner: Callable[[tuple[str, str] | None], Pass], store: Store, tracing: Tracing
    ) -> None:
        self._inner, self._store, self._tracing = inner, store, tracing

    def __call__(self, lease: tuple[str, str] | None = None) -> Pass:
        done = self._inner(lease)
        for order in done.changed[:MOST_SETTLED]:
            try:
                events = self._store.events(order.scope, order.id)
            except StoreUnavailable:
                break  # the pass is done; a trace is not worth its failure
            self._tracing.settled(order, events)
        return done


def tracing_of(settings: TelemetrySettings) -> Tracing | None:
    """None, and nothing imported, without an address to send traces to."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from app.telemetry.tracing import Tracing

    return Tracing(settings.otel_exporter_otlp_endpoint)
