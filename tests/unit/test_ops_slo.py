"""The promises: how an answer is judged, what the database says of a window, and what the figures say of the rest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.deadline import Deadline
from app.domain.status import Status
from app.jobs.audit import AuditBroken
from app.jobs.run import run_job
from app.service.figures import Figures
from app.service.observe import Trail
from app.service.records import Refusal
from app.service.slo import Objective, Score, budget, is_available, lateness
from app.store.engine import Database
from app.store.sql_figures import figures
from app.telemetry.metrics import Metrics
from tests.builders import an_order
from tests.unit.operator_desk import Operator
from tests.unit.operator_desk import fresh as fresh  # noqa: PLC0414 - a fixture
from tests.unit.operator_desk import operator as operator  # noqa: PLC0414 - a fixture

S = Status
AT = datetime(2026, 11, 18, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "good"),
    [
        (200, None, True),
        (422, "max_lots", True),
        (503, "breaker_open", True),
        (503, "broker_unavailable", True),
        (503, "store_unavailable", False),
        (503, None, False),
        (500, "internal", False),
        (500, "breaker_open", False),
    ],
)
def test_only_a_503_by_somebody_else_is_excused(status: int, code: str | None, *, good: bool) -> None:
    assert is_available(status, code) is good


def test_each_alert_is_judged_once_and_failures_show_from_zero_on() -> None:
    metrics = Metrics()
    assert judged(metrics) == {(o, v): 0.0 for o in ("availability", "latency") for v in ("good", "bad")}
    trail = Trail("request", "r")
    metrics.request(trail, "POST", "/webhook", 200, 0.1)
    trail.code = "store_unavailable"
    metrics.request(trail, "POST", "/webhook", 503, 0.1)
    metrics.request(Trail("request", "s"), "POST", "/webhook", 200, 2.05)
    metrics.request(Trail("request", "t"), "GET", "/readyz", 503, 9.0)  # no alert
    assert judged(metrics) == {
        ("availability", "good"): 2.0,
        ("availability", "bad"): 1.0,
        ("latency", "good"): 2.0,
        ("latency", "bad"): 1.0,
    }


@pytest.mark.parametrize("status", [400, 401, 403, 413, 429])
def test_strangers_who_are_turned_away_dilute_no_failure(status: int) -> None:
    metrics, known = Metrics(), Trail("request", "k", client="default")
    for _ in range(100):
        metrics.request(Trail("request", "s"), "POST", "/webhook", status, 0.01)
    metrics.request(known, "POST", "/webhook", status, 0.1)
    metrics.request(Trail("request", "d", code="store_unavailable"), "POST", "/webhook", 503, 0.1)
    assert (judged(metrics)["availability", "good"], judged(metrics)["availability", "bad"]) == (1, 1)
    assert sum(v for (objective, _), v in judged(metrics).items() if objective == "latency") == 2


def judged(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {
        (s.labels["objective"], s.labels["verdict"]): s.value
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name == "slo_alerts_total"
    }


def test_a_budget_is_used_up_in_proportion() -> None:
    assert budget(Objective.AVAILABILITY) == 0.005
    assert Score(Objective.AVAILABILITY, 0, 0).good_part is None
    assert Score(Objective.AVAILABILITY, 0, 0).budget_left == 1
    assert Score(Objective.AVAILABILITY, 1, 400).budget_left == pytest.approx(0.5)
    assert Score(Objective.AVAILABILITY, 4, 400).budget_left == pytest.approx(-1)


def test_an_outcome_is_late_after_the_deadline_or_when_it_never_came() -> None:
    orders = [replace(an_order(n), answer_by=AT) for n in range(1, 5)]
    first, second, third, fourth = (o.id for o in orders)
    at = {first: AT, second: AT + timedelta(milliseconds=1), third: None}  # the fourth was denied: never sent
    assert fourth not in at
    assert lateness(orders, at) == (2, 3)


def refused(operator: Operator, code: str, status: int = 503, request_id: str = "r") -> None:
    with operator.ports.store.read() as tx:
        now = tx.now()
    refusal = Refusal(now, "127.0.0.1", None, status, code, "", "", {}, request_id)
    operator.ports.store.record_refusal(operator.ports.scope, refusal)


def test_flask_slo_counts_orders_and_refusals_and_names_who_is_lost(operator: Operator) -> None:
    said = operator.said("slo", "--days", "365")
    assert "no alerts yet" in said
    assert "0 of 0" in said
    operator.order(1, S.IN_DOUBT, S.ACCEPTED)
    lost = operator.order(2)  # SENDING, its deadline long ago
    refused(operator, "store_unavailable")
    refused(operator, "breaker_open")
    refused(operator, "not_authenticated", 401)  # a stranger's: no alert
    said = operator.said("slo", "--days", "365")
    rows = {line.split()[0]: line for line in said.splitlines() if line[:1].isalpha()}
    assert "2 of 4" in rows["availability"]
    assert "50.00%" in rows["availability"]
    assert "NO" in rows["correctness"].split()
    assert f"unknown fate: order {lost.id}" in said


def test_an_alert_whose_commit_got_lost_is_judged_by_its_row_alone(operator: Operator) -> None:
    made = operator.order(1, S.ACCEPTED)
    refused(operator, "store_unavailable", request_id=made.request_id)
    assert "0 of 1" in operator.said("slo", "--days", "365")


def read(operator: Operator) -> Figures:
    ports = operator.ports
    database = Database(ports.settings.url, None)
    try:
        limits = ports.desk().policy.limits
        return figures(database, ports.scope, limits, Deadline(ports.clock.monotonic() + 5))
    finally:
        database.close()


def test_a_changed_audit_shows_until_a_good_verification(operator: Operator) -> None:
    operator.order(1)
    assert run_job(operator.ports, "verify-audit") == "whole: 1 orders, 1 events, 0 seals"
    assert not read(operator).audit_broken
    path = operator.ports.settings.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        (detail,) = connection.execute("SELECT detail FROM order_events").fetchone()
        connection.execute("UPDATE order_events SET detail = '{}'")
        connection.commit()
        with pytest.raises(AuditBroken):
            run_job(operator.ports, "verify-audit")
        found = read(operator)
        assert found.audit_broken
        assert [j.failed for j in found.jobs if j.name == "verify-audit"] == [True]
        connection.execute("UPDATE order_events SET detail = ?", (detail,))
        connection.commit()
    run_job(operator.ports, "verify-audit")
    assert not read(operator).audit_broken


def test_a_job_that_failed_otherwise_says_nothing_of_the_audit(operator: Operator) -> None:
    assert operator.ports.beside is not None
    runs = operator.ports.beside.job_runs
    runs.begin("verify-audit", "", "me", None, timedelta(0))
    runs.end("verify-audit", "", "me", "StoreUnavailable: away", ok=False)
    found = read(operator)
    assert not found.audit_broken
    (job,) = found.jobs
    assert (job.name, job.failed, job.success_age_s) == ("verify-audit", True, None)


def test_the_freshest_host_speaks_for_a_job(operator: Operator) -> None:
    assert operator.ports.beside is not None
    runs = operator.ports.beside.job_runs
    for host, ok in (("gone", False), ("here", True)):
        runs.begin("refresh-master", host, "me", None, timedelta(0))
        runs.end("refresh-master", host, "me", "", ok=ok)
    (job,) = read(operator).jobs
    assert not job.failed
    assert job.success_age_s is not None
