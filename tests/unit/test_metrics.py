"""/metrics: what is counted, which labels there can be, and what is read at the scrape."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.domain.outcome import NotSent, Refused, Unknown
from app.errors import StoreUnavailable
from app.service.figures import CapUse, Figures, HostFigures, Leg, OrderCount, Slip
from app.telemetry.broker import ObservedBroker
from app.telemetry.cluster import ClusterFigures, of_cluster
from app.telemetry.labels import OTHER, Few, word_of
from app.telemetry.metrics import STRATEGIES, Metrics
from app.telemetry.notifier import CountingNotifier
from app.telemetry.watcher import Watch
from tests.fakes import FakeNotifier
from tests.unit.web_desk import TOKEN, WebDesk

Labels = tuple[tuple[str, str], ...]


def read(page: bytes) -> dict[tuple[str, Labels], float]:
    """Every sample, as Prometheus itself would read it."""
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }


def scraped(desk: WebDesk) -> dict[tuple[str, Labels], float]:
    answer = desk.api("get", "/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    return read(answer.data)


def of(samples: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(v for (n, have), v in samples.items() if n == name and wanted <= set(have))


@pytest.fixture
def desk(tmp_path: Path) -> WebDesk:
    desk = WebDesk(tmp_path)
    watch = desk.app.extensions["ports"].watcher
    assert isinstance(watch, Watch)
    # As the wiring does it: the broker of the desk is seen.
    desk.desk = replace(desk.desk, broker=ObservedBroker(desk.broker, watch.metrics.broker_call))
    return desk


def test_only_the_admin_sees_them(desk: WebDesk) -> None:
    assert desk.client.get("/metrics").status_code == 401
    assert desk.api("get", "/metrics", TOKEN).status_code == 403


def test_requests_are_counted_by_route_and_never_by_path(desk: WebDesk) -> None:
    for path in ("/api/v1/orders/A", "/api/v1/orders/B", "/no/such/path", "/another"):
        desk.api("get", path)
    samples = scraped(desk)
    assert of(samples, "http_requests_total", route="/api/v1/orders/<order_id>", status="404") == 2
    assert of(samples, "http_requests_total", route="unmatched", status="404") == 2
    assert of(samples, "http_request_seconds_count", route="/api/v1/orders/<order_id>") == 2


def test_an_unknown_method_is_one_label(desk: WebDesk) -> None:
    for method in ("BREW", "PURGE", "X" * 50):
        desk.client.open("/webhook", method=method)
    assert {
        m
        for (n, labels), _ in scraped(desk).items()
        if n == "http_requests_total"
        for k, m in labels
        if k == "method"
    } <= {"other", "GET"}


@pytest.mark.parametrize(
    ("step", "outcome", "reason"),
    [
        (None, "accepted", "none"),
        (Refused("-99", "no"), "rejected", "-99"),
        (NotSent("broker_unreachable", "no"), "not_sent", "broker_unreachable"),
        (Unknown("?"), "in_doubt", "in_doubt"),
    ],
)
def test_alerts_by_what_they_came_to(desk: WebDesk, step: Any, outcome: str, reason: str) -> None:
    if step is not None:
        desk.broker.next_place.append(step)
    desk.webhook(strategy="orb", idempotency_key="k")
    samples = scraped(desk)
    assert of(samples, "webhook_outcomes_total", outcome=outcome, reason=reason) == 1
    assert of(samples, "webhook_outcomes_total") == 1
    assert of(samples, "orders_total", state=outcome.upper(), product="INTRADAY", strategy="orb") == 1
    word = {"rejected": "refused", "in_doubt": "unknown"}.get(outcome, outcome)
    assert of(samples, "broker_calls_total", call="place", outcome=word) == 1


def test_refusals_and_repeats(desk: WebDesk) -> None:
    assert desk.webhook(token="wrong").status_code == 401
    assert desk.webhook(lots=0).status_code == 400
    for _ in range(3):
        assert desk.webhook(idempotency_key="k").status_code == 200
    samples = scraped(desk)
    assert of(samples, "webhook_outcomes_total", outcome="refused", reason="not_authenticated") == 1
    assert of(samples, "webhook_outcomes_total", outcome="refused", reason="invalid_alert") == 1
    assert of(samples, "webhook_outcomes_total", outcome="accepted") == 3
    assert of(samples, "orders_total") == 1


def test_a_heartbeat_is_no_alert_that_went_well(desk: WebDesk) -> None:
    """A strategy's beats by the hundred would make each lost alert of it look rare."""
    beat = {"token": TOKEN, "action": "HEARTBEAT", "strategy": "orb", "every_seconds": 300}
    assert desk.client.post("/webhook", json=beat).status_code == 200
    samples = scraped(desk)
    assert of(samples, "webhook_outcomes_total", outcome="heartbeat") == 1
    assert of(samples, "webhook_outcomes_total") == 1
    assert of(samples, "slo_alerts_total", verdict="good") == 0


def test_an_alert_has_its_phases(desk: WebDesk) -> None:
    desk.webhook()
    samples = scraped(desk)
    for phase in ("auth", "resolve", "quote", "risk", "broker"):
        assert of(samples, "alert_phase_seconds_count", phase=phase) == 1, phase
    assert of(samples, "broker_calls_total", call="quotes", outcome="ok") == 1


def test_a_failed_read_is_counted_as_one(desk: WebDesk) -> None:
    desk.broker.fail.add("quotes")
    assert desk.webhook().status_code == 503
    assert of(scraped(desk), "broker_calls_total", call="quotes", outcome="failed") == 1


def test_hostile_strategies_stay_few(desk: WebDesk) -> None:
    for number in range(STRATEGIES + 15):
        desk.webhook(strategy=f"s{number} \n{{}}\"'é" + "x" * number, idempotency_key=f"k{number}")
    samples = scraped(desk)
    strategies = {dict(labels)["strategy"] for (n, labels) in samples if n == "orders_total"}
    assert len(strategies) == STRATEGIES + 1
    assert OTHER in strategies
    assert all(len(s) <= 40 for s in strategies)
    assert of(samples, "orders_total") == STRATEGIES + 15


def test_processes_agree_on_the_few_names_also_those_that_come_later(tmp_path: Path) -> None:
    first, second = Few(3, tmp_path), Few(3, tmp_path)
    assert [first("a"), second("b"), first("c"), second("d"), first("e")] == ["a", "b", "c", OTHER, OTHER]
    assert [second("a"), second("c"), first("b")] == ["a", "c", "b"]
    later = Few(3, tmp_path)
    assert [later("z"), later("a"), later("c")] == [OTHER, "a", "c"]


def test_words_are_plain() -> None:
    assert word_of('a{b="c"}\n') == "a_b_c_"
    assert word_of("") == "none"
    assert len(word_of("é" * 100 + "a" * 100)) <= 40


def test_notifications_by_code() -> None:
    metrics, inner = Metrics(), FakeNotifier()
    notifier = CountingNotifier(inner, metrics)
    notifier.notify("in_doubt", "text")
    notifier.notify("halt", "text", page=True)
    samples = read(metrics.page()[0])
    assert of(samples, "notifications_total", code="in_doubt", page="no") == 1
    assert of(samples, "notifications_total", code="halt", page="yes") == 1
    assert (inner.notes, inner.pages) == (["in_doubt"], ["halt"])


def test_jobs_leave_their_last_success_and_a_failure_does_not() -> None:
    watch = Watch()
    with watch.job("purge"):
        pass
    with pytest.raises(StoreUnavailable), watch.job("seal"):
        raise StoreUnavailable("down")
    samples = read(watch.page()[0])
    assert of(samples, "job_runs_total", job="purge", outcome="ok") == 1
    assert of(samples, "job_runs_total", job="seal", outcome="failed") == 1
    assert of(samples, "job_last_success_timestamp_seconds", job="purge") > 0
    assert ("job_last_success_timestamp_seconds", (("job", "seal"),)) not in samples


FIGURES = Figures(
    orders=(OrderCount("FILLED", "INTRADAY", "orb", 3), OrderCount("DENIED", "INTRADAY", "x", 1)),
    in_doubt=2,
    oldest_doubt_s=41.5,
    unaccounted=1,
    unprotected=1,
    trading_state="REDUCING",
    last_pass_s=3.0,
    caps=(CapUse("orders_day", 7, 300),),
    slips=(
        *(Slip("INTRADAY", "entry", Decimal(p)) for p in ("-0.3", "0.1", "7")),
        Slip("INTRADAY", "entry", Decimal(2), Leg.SIGNAL_TO_ORDER),
        Slip("INTRADAY", "entry", Decimal(-3), Leg.SIGNAL_TO_FILL),
    ),
    signals_elsewhere=4,
)


def test_the_clusters_figures_are_read_at_the_scrape(desk: WebDesk) -> None:
    watch, now = desk.app.extensions["ports"].watcher, [0.0]
    found: list[Figures | None] = [FIGURES]

    def figures() -> Figures:
        if found[-1] is None:
            raise StoreUnavailable("down")
        return found[-1]

    host = HostFigures(master_age_s=60.0, token_left_s=120.0, budget_left={"orders": 8})
    watch.metrics.collectors.append(ClusterFigures(figures, lambda: host, lambda: now[0]))
    samples = scraped(desk)
    assert of(samples, "database_up") == 1
    assert of(samples, "orders_today", state="FILLED", strategy="orb") == 3
    assert of(samples, "orders_in_doubt") == 2
    assert of(samples, "oldest_doubt_seconds") == 41.5
    assert of(samples, "orders_unaccounted") == 1
    assert of(samples, "positions_unprotected") == 1
    assert of(samples, "trading_state", state="REDUCING") == 1
    assert of(samples, "trading_state", state="ACTIVE") == 0
    assert (of(samples, "cap_used", cap="orders_day"), of(samples, "cap_limit", cap="orders_day")) == (7, 300)
    assert of(samples, "fill_slippage_percent_bucket", le="0.0") == 1
    assert of(samples, "fill_slippage_percent_bucket", le="5.0") == 2
    assert of(samples, "fills_today", product="INTRADAY", purpose="entry") == 3
    assert of(samples, "fill_slippage_mean_percent") == pytest.approx(6.8 / 3)
    assert of(samples, "signal_slippage_mean_percent", to="order") == 2
    assert of(samples, "signal_slippage_mean_percent", to="fill") == -3
    assert of(samples, "signal_slippage_percent_bucket", to="order", le="1.0") == 0
    assert of(samples, "signal_slippage_percent_bucket", to="order", le="2.0") == 1
    assert of(samples, "signals_of_other_instruments_today") == 4
    assert (of(samples, "master_age_seconds"), of(samples, "token_seconds_left")) == (60, 120)
    assert of(samples, "broker_budget_left_shared", window="orders") == 8
    found.append(None)
    assert of(scraped(desk), "orders_in_doubt") == 2  # kept for a second
    now[0] = 1.5
    samples = scraped(desk)
    assert of(samples, "database_up") == 0
    assert not [name for name, _ in samples if name.startswith(("orders_in_doubt", "orders_today"))]
    assert of(samples, "master_age_seconds") == 60


def test_strategies_of_the_day_are_bounded_by_their_number_of_orders() -> None:
    many = tuple(OrderCount("FILLED", "INTRADAY", f"s{n}", n + 1) for n in range(100))
    (family,) = [m for m in of_cluster(Figures(orders=many)) if m.name == "orders_today"]
    by_name = {s.labels["strategy"]: s.value for s in family.samples}
    assert len(by_name) == STRATEGIES + 1
    assert by_name["s99"] == 100
    assert sum(by_name.values()) == sum(range(1, 101))


def test_no_secret_of_a_request_stands_on_the_page(desk: WebDesk) -> None:
    canary = "canary-token-1234567"
    desk.webhook(token=canary, strategy=f"orb {TOKEN}")
    desk.webhook(strategy="orb", idempotency_key=canary)
    desk.api("get", f"/api/v1/orders/{canary}", canary)
    page = desk.api("get", "/metrics").text
    assert canary not in page
    assert TOKEN not in page
