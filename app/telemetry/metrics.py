"""The figures of /metrics. Counts of this process's own doings, summed over the instance's workers by files in
PROMETHEUS_MULTIPROC_DIR (gunicorn.conf.py); what is true for the whole cluster is read from the database at each scrape
(cluster.py), so that it does not double with the workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.service import slo
from app.service.heartbeat import HEARTBEAT
from app.service.observe import Sampler, Trail
from app.telemetry.labels import Few, word_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
PHASES = (
    "queue",
    "auth",
    "read",
    "resolve",
    "quote",
    "risk",
    "commit",
    "check",
    "book",
    "broker",
    "record",
    "redis",
)
ALERT_ROUTES = ("/webhook", "/api/v1/orders")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
STRATEGIES = 20
"""Labels of strategies; an alert can name whatever it likes, and the rest are `other`."""
CODES = 200
"""Reasons and codes are words of ours and of the broker's."""
SAMPLE_S = 1.0
REFUSED_FROM = 300


class Metrics:
    """All of one process. Several at once, in tests, have a registry each.

    `shared`: where the workers of one instance keep what is summed; the library itself must have been told the same.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        self.samplers: list[Sampler] = []
        self.collectors: list[Collector] = []
        self.strategies = Few(STRATEGIES, self._shared)
        self.codes = Few(CODES)
        self._sampling = threading.Lock()
        self._thread: threading.Thread | None = None
        self._of_requests(self.registry)
        self._of_broker_and_jobs(self.registry)
        self._of_process(self.registry)

    # Of what every alert counts the children are kept by their labels: the library's own look-up takes a lock.

    def _of_requests(self, r: CollectorRegistry) -> None:
        self._requests = cache(
            Counter("http_requests", "Answered requests", ("route", "method", "status"), registry=r).labels
        )
        self._took = cache(
            Histogram(
                "http_request_seconds",
                "From the first byte to the answer",
                ("route",),
                buckets=SECONDS,
                registry=r,
            ).labels
        )
        self._alerts = cache(
            Counter("webhook_outcomes", "What alerts came to", ("outcome", "reason"), registry=r).labels
        )
        self._orders = cache(
            Counter(
                "orders", "Orders answered for the first time", ("state", "product", "strategy"), registry=r
            ).labels
        )
        self._phases = Histogram(
            "alert_phase_seconds", "Time of an alert by phase", ("phase",), buckets=SECONDS, registry=r
        )
        self._promises = cache(
            Counter(
                "slo_alerts",
                "Alerts judged by what is promised of them",
                ("objective", "verdict"),
                registry=r,
            ).labels
        )
        for objective in slo.Objective:  # from zero on: a first failure must show as an increase
            for verdict in ("good", "bad"):
                self._promises(objective.value, verdict)
        self._phase = {name: self._phases.labels(name) for name in PHASES}

    def _of_broker_and_jobs(self, r: CollectorRegistry) -> None:
        self._calls = cache(
            Counter("broker_calls", "Calls to the broker", ("broker", "call", "outcome"), registry=r).labels
        )
        self._call_took = cache(
            Histogram(
                "broker_call_seconds",
                "Time of a call to the broker",
                ("broker", "call"),
                buckets=SECONDS,
                registry=r,
            ).labels
        )
        self._notified = Counter(
            "notifications",
            "Notices of the service; those of orders are counted as orders",
            ("code", "page"),
            registry=r,
        )
        self._job_runs = Counter("job_runs", "Runs of jobs", ("job", "outcome"), registry=r)
        self._job_last = Gauge(
            "job_last_success_timestamp_seconds",
            "When a job last went well in this instance",
            ("job",),
            multiprocess_mode="max",
            registry=r,
        )

    def _of_process(self, r: CollectorRegistry) -> None:
        self.breaker = Gauge(
            "breaker_state",
            "0 closed, 1 open and due for a probe, 2 open: the worst of the workers",
            ("breaker",),
            multiprocess_mode="livemax",
            registry=r,
        )
        self.budget = Gauge(
            "broker_budget_left",
            "Calls that the workers may still make, where no Redis is shared",
            ("window",),
            multiprocess_mode="livesum",
            registry=r,
        )
        self._feed_events = Counter(
            "order_feed_events",
            "What the broker's order feed said, or what it ended with",
            ("event",),
            registry=r,
        )
        self.order_feed_wanted = Gauge(
            "order_feed_wanted",
            "1 where an address of the broker's order feed is set",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.order_feed = Gauge(
            "order_feed_connected",
            "1 while this instance listens to the broker's order feed",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.pool = Gauge(
            "database_connections_in_use",
            "Connections in transactions",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.writers = Gauge(
            "database_writers_waiting",
            "Writers in the queue of their process (SQLite: all; Postgres: entries)",
            multiprocess_mode="livesum",
            registry=r,
        )

    # -- what the service does

    def request(self, trail: Trail, method: str, route: str, status: int, took: float) -> None:
        """One answered request, `took` from its first byte; an alert's outcome, phases and order with it."""
        self._start_sampling()
        self._requests(route, method if method in METHODS else "other", str(status)).inc()
        self._took(route).observe(took)
        if route not in ALERT_ROUTES or method != "POST":
            return
        outcome = trail.outcome or ("accepted" if status < REFUSED_FROM else "refused")
        self._alerts(word_of(outcome), self.codes(trail.code or "none")).inc()
        if outcome != HEARTBEAT and slo.is_judged(status, trail.client):
            self._judged(slo.Objective.AVAILABILITY, good=slo.is_available(status, trail.code))
            self._judged(slo.Objective.LATENCY, good=slo.is_in_time(took))
        for name, seconds in trail.phases.items():
            if (child := self._phase.get(name)) is not None:
                child.observe(seconds)
        order = trail.order
        if order is not None and not trail.replayed:
            self._orders(order.status.value, order.product.value, self.strategies(order.strategy)).inc()

    def _judged(self, objective: slo.Objective, *, good: bool) -> None:
        self._promises(objective.value, "good" if good else "bad").inc()

    def broker_call(self, broker: str, call: str, outcome: str, took: float) -> None:
        self._calls(broker, call, outcome).inc()
        self._call_took(broker, call).observe(took)

    def notified(self, code: str, *, page: bool) -> None:
        self._notified.labels(self.codes(code), "yes" if page else "no").inc()

    def job(self, name: str, *, ok: bool) -> None:
        self._job_runs.labels(name, "ok" if ok else "failed").inc()
        if ok:
            self._job_last.labels(name).set(time.time())

    def order_feed_event(self, word: str) -> None:
        self._feed_events.labels(self.codes(word)).inc()

    # -- the page

    def page(self) -> tuple[bytes, str]:
        self.sample()
        registry = CollectorRegistry()
        if self._shared is not None:
            MultiProcessCollector(registry, str(self._shared))  # type: ignore[no-untyped-call]
        else:
            registry.register(_Forwarded(self.registry.collect))
        for collector in self.collectors:
            registry.register(collector)
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def sample(self) -> None:
        """What a process knows of itself goes into its gauges."""
        if not self._sampling.acquire(blocking=False):
            return
        try:
            for sampler in self.samplers:
                sampler()
        finally:
            self._sampling.release()

    def _start_sampling(self) -> None:
        """Only where another process's scrape has to find it; otherwise the scrape itself looks."""
        if self._shared is None or self._thread is not None:
            return
        thread = threading.Thread(target=self._sample_on, daemon=True, name="metrics")
        with suppress(RuntimeError):  # no thread to be had: the next request tries again
            thread.start()
            self._thread = thread

    def _sample_on(self) -> None:
        while True:
            self.sample()
            time.sleep(SAMPLE_S)


class _Forwarded(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()
