"""What the figures and traces are wired to: the one place beside the package's root that knows all sides of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Scope
from app.domain.session import is_trading_day
from app.errors import NoMaster
from app.service.desk import Desk
from app.service.figures import Figures, HostFigures
from app.service.master_age import stale_files
from app.service.ports import Broker, Clock, Contracts, Notifier, Store
from app.service.reconcile import Pass
from app.settings import Settings
from app.settings.telemetry import figures_dir
from app.telemetry.broker import ObservedBroker
from app.telemetry.cluster import ClusterFigures
from app.telemetry.metrics import Metrics
from app.telemetry.notifier import CountingNotifier
from app.telemetry.watcher import TracedReconcile, Watch, tracing_of

if TYPE_CHECKING:
    from app.brokers.guard import Guard
    from app.store.engine import Database
    from app.store.tokens import StoredTokens

SCRAPE_S = 1.0
"""For the database to answer a scrape."""
CLOSED, DUE, OPEN = 0, 1, 2
Reconciling = Callable[[tuple[str, str] | None], Pass]


class Watching:
    """From the settings to a Watch, and what of the service it has to see."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._guard: Guard | None = None
        self._options_files = settings.options_files
        self.watch = Watch(Metrics(figures_dir()), tracing_of(settings))
        self.watch.metrics.samplers.append(self._sample_database)
        if self.watch.tracing is not None:
            from app.store.prepared import hear

            hear(database.engine, self.watch.tracing.statements)

    def notifier(self, inner: Notifier) -> Notifier:
        return CountingNotifier(inner, self.watch.metrics)

    def guard(self, guard: Guard) -> Broker:
        """Fyers behind its guard: its calls, its breakers and what is left of its budget."""
        self._guard = guard
        sample = partial(sample_guard, guard, self.watch.metrics)
        self.watch.metrics.samplers.append(sample)
        guard.listeners.append(sample)  # the next scrape may be another worker's
        return ObservedBroker(guard, self.watch.metrics.broker_call)

    def take_call(self) -> str | None:
        """One of the calls that the guard counts, for a read that goes past it; else why there is none now."""
        over = self._guard.budget.take_read(reserved=True) if self._guard is not None else None
        return over.message if over is not None else None

    def broker(self, broker: Broker) -> Broker:
        is_seen = isinstance(broker, ObservedBroker)
        return broker if is_seen else ObservedBroker(broker, self.watch.metrics.broker_call)

    def reconcile(self, inner: Reconciling, store: Store) -> Reconciling:
        tracing = self.watch.tracing
        return inner if tracing is None else TracedReconcile(inner, store, tracing)

    def scraped(
        self, scope: Scope, desk: Callable[[], Desk], contracts: Contracts, tokens: StoredTokens | None
    ) -> Watch:
        """What a scrape reads of the cluster and of this host."""

        def read() -> Figures:
            from app.store.sql_figures import figures

            limits = desk().policy.limits
            return figures(self._database, scope, limits, Deadline(self._clock.monotonic() + SCRAPE_S))

        def host() -> HostFigures:
            now = self._clock.now()
            shared = self._guard.budget.left_shared() if self._guard is not None else {}
            return HostFigures(
                master_age_s=master_age(contracts, now),
                master_stale=master_stale(contracts, now, self._options_files),
                token_left_s=token_left(tokens, now),
                trading_day=is_trading_day(ist_date(now)),
                budget_left=shared,
            )

        self.watch.metrics.collectors.append(ClusterFigures(read, host, self._clock.monotonic))
        return self.watch

    def _sample_database(self) -> None:
        metrics = self.watch.metrics
        metrics.pool.set(self._database.busy)
        metrics.writers.set(self._database.writers.waiting)


def sample_guard(guard: Guard, metrics: Metrics) -> None:
    for breaker in (guard.orders, guard.reads):
        state = CLOSED if breaker.is_closed else DUE if breaker.is_due else OPEN
        metrics.breaker.labels(breaker.name).set(state)
    for window, left in guard.budget.left().items():
        metrics.budget.labels(window).set(left)


def master_age(contracts: Contracts, now: datetime) -> float | None:
    try:
        return max(0.0, (now - contracts.age().built_at).total_seconds())
    except NoMaster:
        return None


def master_stale(contracts: Contracts, now: datetime, options_files: tuple[str, ...]) -> bool:
    """By the same rule as /readyz/orders; none at all is as bad."""
    try:
        return bool(stale_files(contracts.age(), now, options_files))
    except NoMaster:
        return True


def token_left(tokens: StoredTokens | None, now: datetime) -> float | None:
    """Zero without a token; None where none is needed."""
    if tokens is None:
        return None
    ends_at = tokens.ends_at(now)
    return max(0.0, (ends_at - now).total_seconds()) if ends_at is not None else 0.0
