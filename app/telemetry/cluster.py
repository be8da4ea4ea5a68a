"""The cluster's and the host's figures as metrics, read at the scrape by whichever worker is asked."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.errors import StoreUnavailable
from app.service import slo
from app.service.figures import Figures, HostFigures, Leg, ReadFigures
from app.telemetry.labels import OTHER, word_of

KEPT_S = 1.0
"""Two scrapers, or one in a hurry, ask the database once."""
STRATEGIES = 20
PERCENTS = (-5.0, -2.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STATES = ("ACTIVE", "REDUCING", "HALTED")


class ClusterFigures(Collector):
    """Without a database it says so, and nothing else: an old count would be taken for a true one."""

    def __init__(
        self, read: ReadFigures, host: Callable[[], HostFigures], monotonic: Callable[[], float]
    ) -> None:
        self._read, self._host, self._monotonic = read, host, monotonic
        self._lock = threading.Lock()
        self._kept: Figures | None = None
        self._until = float("-inf")

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield _gauge("database_up", "Whether the database answered this scrape", float(figures is not None))
        if figures is not None:
            yield from of_cluster(figures)
        yield from of_host(self._host())

    def _figures(self) -> Figures | None:
        with self._lock:
            if self._monotonic() >= self._until:
                try:
                    self._kept = self._read()
                except StoreUnavailable:
                    self._kept = None
                self._until = self._monotonic() + KEPT_S
            return self._kept


def of_cluster(figures: Figures) -> Iterator[Metric]:
    yield _orders(figures)
    yield _gauge("orders_in_doubt", "Orders whose outcome is not known", figures.in_doubt)
    yield _gauge("oldest_doubt_seconds", "Age of the oldest of them", figures.oldest_doubt_s or 0)
    yield _gauge("orders_unaccounted", "Orders whose sender is gone, not looked at yet", figures.unaccounted)
    yield _gauge("orders_needing_review", "Orders that a person must look at", figures.needs_review)
    yield _gauge("exits_pending", "Exits that wait for something else to settle", figures.exit_pending)
    yield _gauge("positions_unprotected", "Held positions whose stop is missing", figures.unprotected)
    state = GaugeMetricFamily("trading_state", "1 for the state that holds", labels=("state",))
    for name in STATES:
        state.add_metric((name,), float(figures.trading_state == name))
    yield state
    if figures.last_pass_s is not None:
        yield _gauge("reconcile_age_seconds", "Since the last whole pass began", figures.last_pass_s)
    used = GaugeMetricFamily("cap_used", "What entries have used of a limit now", labels=("cap",))
    limit = GaugeMetricFamily("cap_limit", "The limit", labels=("cap",))
    for cap in figures.caps:
        used.add_metric((cap.name,), float(cap.used))
        limit.add_metric((cap.name,), float(cap.limit))
    yield used
    yield limit
    yield from _slips(figures)
    yield _gauge("heartbeats_missing", "Strategies whose heartbeat is overdue", figures.heartbeats_missing)
    yield _gauge(
        "oldest_page_waiting_seconds", "Age of the oldest page not delivered", figures.oldest_page_waiting_s
    )
    yield from _jobs(figures)
    yield _gauge(
        "audit_broken", "1: the last verification found the audit changed", float(figures.audit_broken)
    )


def of_host(host: HostFigures) -> Iterator[Metric]:
    if host.master_age_s is not None:
        yield _gauge("master_age_seconds", "Age of the contract index", host.master_age_s)
    if host.master_stale is not None:
        yield _gauge("master_stale", "1: older than the previous trading day", float(host.master_stale))
    if host.trading_day is not None:
        yield _gauge("trading_day", "1: the exchange trades today (IST)", float(host.trading_day))
    allowed = GaugeMetricFamily(
        "slo_error_budget", "Part of all alerts that may go wrong", labels=("objective",)
    )
    for objective in slo.Objective:
        allowed.add_metric((objective.value,), slo.budget(objective))
    yield allowed
    if host.token_left_s is not None:
        yield _gauge(
            "token_seconds_left", "Until the broker's token ends; 0: there is none", host.token_left_s
        )
    if host.budget_left:
        left = GaugeMetricFamily(
            "broker_budget_left_shared", "Calls that all instances may still make", labels=("window",)
        )
        for window, calls in host.budget_left.items():
            left.add_metric((window,), calls)
        yield left


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _orders(figures: Figures) -> GaugeMetricFamily:
    """The strategies with most orders of the day by name, the others together."""
    by_strategy: Tally[str] = Tally()
    for each in figures.orders:
        by_strategy[word_of(each.strategy)] += each.count
    named = {name for name, _ in sorted(by_strategy.items(), key=lambda p: (-p[1], p[0]))[:STRATEGIES]}
    counted: Tally[tuple[str, str, str]] = Tally()
    for each in figures.orders:
        word = word_of(each.strategy)
        counted[each.state, each.product, word if word in named else OTHER] += each.count
    family = GaugeMetricFamily(
        "orders_today", "Orders of the IST day by their state now", labels=("state", "product", "strategy")
    )
    for labels, count in counted.items():
        family.add_metric(labels, count)
    return family


def _jobs(figures: Figures) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "job_success_age_seconds", "Since a job last went well on any instance", labels=("job",)
    )
    failed = GaugeMetricFamily("job_failed", "1: a job's last run that ended failed", labels=("job",))
    for job in figures.jobs:
        if job.success_age_s is not None:
            age.add_metric((job.name,), job.success_age_s)
        failed.add_metric((job.name,), float(job.failed))
    yield age
    yield failed


def _slips(figures: Figures) -> Iterator[Metric]:
    """A histogram with negative buckets has no sum and no count of its own: they stand beside it."""
    labels = ("product", "purpose")
    by_leg: dict[Leg, dict[tuple[str, ...], list[float]]] = {leg: {} for leg in Leg}
    for slip in figures.slips:
        by_leg[slip.leg].setdefault((slip.product, slip.purpose), []).append(float(slip.percent))
    yield from _histogram(
        "fill_slippage",
        "fills_today",
        "Fills of the IST day against the price their order went by; positive is worse",
        labels,
        by_leg[Leg.ORDER_TO_FILL],
    )
    yield from _histogram(
        "signal_slippage",
        "signals_priced_today",
        "Fills of the IST day, and the price their order went by, against their signal's; positive is worse",
        (*labels, "to"),
        {
            (*key, to): percents
            for leg, to in ((Leg.SIGNAL_TO_ORDER, "order"), (Leg.SIGNAL_TO_FILL, "fill"))
            for key, percents in by_leg[leg].items()
        },
    )
    yield _gauge(
        "signals_of_other_instruments_today",
        "Fills of the IST day whose signal had the price of another instrument: not compared",
        figures.signals_elsewhere,
    )


def _histogram(
    name: str, counted: str, text: str, labels: Sequence[str], percents: Mapping[tuple[str, ...], list[float]]
) -> Iterator[Metric]:
    family = HistogramMetricFamily(f"{name}_percent", text, labels=labels)
    count = GaugeMetricFamily(counted, f"How many are in {name}_percent", labels=labels)
    mean = GaugeMetricFamily(f"{name}_mean_percent", f"Mean of {name}_percent", labels=labels)
    for key, mine in sorted(percents.items()):
        buckets = [(str(top), float(sum(p <= top for p in mine))) for top in PERCENTS]
        family.add_metric(key, [*buckets, ("+Inf", float(len(mine)))], sum_value=None)
        count.add_metric(key, len(mine))
        mean.add_metric(key, sum(mine) / len(mine))
    yield from (family, count, mean)
