"""Each alarm that pages, provoked at a running service: a fault, then the alarm fires in a real Prometheus.

Alarms that go by the hour of the day (token, master, error budget) are judged by promtool at a chosen hour, over what
was scraped from the running service: Prometheus itself knows no other clock than the machine's.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.prometheus import Prometheus, binary, scraped
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim
from tests.unit.ops_rules import PROMETHEUS, alarms, run_promtool

pytestmark = pytest.mark.slow
NOBODY_LISTENS = "json://127.0.0.1:9/"
BY_THE_HOUR = {"TokenMissing", "MasterStale", "ErrorBudgetBurn14x", "ErrorBudgetBurn6x"}
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
BOOK = "GET /orders"


def today() -> date:
    return ist_date(SystemClock().now())


def live(sim: FyersSim, tmp_path: Path, **env: str) -> Service:
    calendar = tmp_path / "calendar.txt"
    calendar.write_text(f"{today()} trading\n")
    fixed = {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "ENFORCE_MARKET_HOURS": "false",
        "RECONCILE_INTERVAL_SECONDS": "1",
        "HOLIDAYS_FILE": str(calendar),
        "NOTIFY_URLS": NOBODY_LISTENS,
    }
    return Service(tmp_path, fixed | env)


def database(service: Service) -> Path:
    (path,) = service.instance.glob("*.sqlite3")
    return path


def job(service: Service, name: str) -> int:
    headers = {"Authorization": f"Bearer {service.admin}"}
    return service.request("POST", f"/internal/jobs/{name}", headers=headers).status


def damage_the_audit(service: Service) -> None:
    with closing(sqlite3.connect(database(service), timeout=5)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            connection.execute(f"DROP TRIGGER {name}")
        changed = connection.execute('UPDATE order_events SET detail = \'{"by": "nobody"}\'').rowcount
        connection.commit()
    assert changed


def test_money_and_broker(sim: FyersSim, tmp_path: Path) -> None:
    binary()
    quick = {"BREAKER_FAIL_MAX": "3", "BREAKER_RESET_SECONDS": "5"}
    with live(sim, tmp_path, **quick) as service, Prometheus(tmp_path, service) as prometheus:
        sim.overlay_mode = "ignored"
        assert service.alert(strikeprice=24500, lots=1).status == 200
        prometheus.wait_for("UnprotectedFill", within_s=40)
        assert "InDoubtOver30s" not in prometheus.firing()
        sim.faults.next_order("reset_created")
        sim.faults.set(BOOK, "http_500")
        assert service.alert(strikeprice=24600, lots=1).status == 202
        prometheus.wait_for(
            "InDoubtOver30s", "BreakerOpen", "NotificationsFailing", "ReconcileNotRun", within_s=150
        )
        assert "AuditSealBroken" not in prometheus.firing()
        damage_the_audit(service)
        job(service, "verify-audit")
        prometheus.wait_for("AuditSealBroken", within_s=20)
        assert "ServiceDown" not in prometheus.firing()
        service.stop()
        prometheus.wait_for("ServiceDown", within_s=60)


def test_an_outcome_that_cannot_be_recorded(sim: FyersSim, tmp_path: Path) -> None:
    """A stranger keeps the database's write lock from the send on: the order stays SENDING, and reconcile cannot help."""
    binary()
    with live(sim, tmp_path) as service, Prometheus(tmp_path, service) as prometheus:
        sim.faults.next_order("hang_created")
        with ThreadPoolExecutor(1) as pool, closing(connected(service)) as stranger:
            sending = pool.submit(service.alert, strikeprice=24500, lots=1)
            until_sending(service)
            stranger.execute("BEGIN IMMEDIATE")
            assert sending.result().status in (202, 503)
            prometheus.wait_for("UnaccountedAlerts", within_s=60)
            stranger.rollback()


def connected(service: Service) -> sqlite3.Connection:
    return sqlite3.connect(database(service), timeout=5, isolation_level=None)


def until_sending(service: Service) -> None:
    give_up = time.monotonic() + 5
    with closing(connected(service)) as connection:
        while time.monotonic() < give_up:
            if connection.execute("SELECT 1 FROM orders WHERE status = 'SENDING'").fetchone():
                return
            time.sleep(0.01)
    raise AssertionError("the order was never being sent")


def test_a_database_that_does_not_answer(tmp_path: Path, postgres_url: str) -> None:
    binary()
    env = {"DATABASE_URL": postgres_url}
    with Service(tmp_path, env) as service, Prometheus(tmp_path, service) as prometheus:
        time.sleep(3)  # some scrapes that are well
        assert "DatabaseDown" not in prometheus.firing()
        shut(postgres_url)
        prometheus.wait_for("DatabaseDown", within_s=60)


def shut(postgres_url: str) -> None:
    """Nobody gets into this database any more, and who is in is put out."""
    url = make_url(postgres_url)
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false"))
        ends = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        connection.execute(ends, {"name": url.database})
    engine.dispose()


def test_a_strategy_that_is_heard_no_more(tmp_path: Path) -> None:
    if not FAKETIME.exists():
        if os.environ.get("CI"):
            pytest.fail("libfaketime is missing: .ci/run installs Debian's package faketime")
        pytest.skip("libfaketime is missing: apt-get install faketime")
    binary()
    clock = tmp_path / "clock"
    clock.write_text("@2026-11-25 10:00:00\n")  # IST, a Wednesday on which the exchange trades
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "TZ": "Asia/Kolkata",
    }
    with Service(tmp_path, env) as service, Prometheus(tmp_path, service) as prometheus:
        body = {"token": service.token("webhook_token"), "action": "HEARTBEAT", "strategy": "orb"}
        beat = service.request("POST", "/webhook", json.dumps(body | {"every_seconds": 60}).encode())
        assert beat.status == 200, beat.body
        time.sleep(3)
        assert "HeartbeatMissing" not in prometheus.firing()
        # Each minute, as Cloud Scheduler would: between two words it stands still, and a longer jump is an outage of ours.
        for later in ("10:00", "10:01", "10:02", "10:03"):
            clock.write_text(f"@2026-11-25 {later}:00\n")
            assert job(service, "alert-watch") == 200
        clock.write_text("@2026-11-25 10:03:05\n")
        prometheus.wait_for("HeartbeatMissing", within_s=30)


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """What a live service without a login and with an old contract list shows, before and after its failures."""
    masters = paper_master(today() - timedelta(days=20))
    with (
        FyersSim(masters=masters, rate_limits=False) as sim,
        live(sim, tmp_path, FYERS_ACCESS_TOKEN=expired()) as service,
    ):
        before = scraped(service)
        with closing(sqlite3.connect(database(service), timeout=5)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            for number in range(3):
                answer = service.alert(strikeprice=24500, lots=1, idempotency_key=str(number))
                assert answer.status == 503, answer.body
            stranger.rollback()
        yield before, scraped(service)


def expired() -> str:
    """A token that ended yesterday."""

    def part(fields: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'exp': int(time.time()) - 86400})}.c2lnbmF0dXJl"


def test_by_the_hour(refused: tuple[dict[str, float], dict[str, float]], tmp_path: Path) -> None:
    """At 10:10 IST of a trading day, over the series as the service gave them."""
    before, after = refused
    steps = [(before, 260), (after, 60)]  # minutes from 05:30 IST
    series = [
        {
            "series": name.replace("\\", ""),
            "values": " ".join(f"{sample.get(name, 0):g}x{minutes * 4 - 1}" for sample, minutes in steps),
        }
        for name in after
        if name.startswith(("slo_", "token_seconds", "master_stale", "trading_day"))
    ]
    cases = [{"alertname": name, "eval_time": "262m", "exp_alerts": []} for name in sorted(BY_THE_HOUR)]
    test = {"interval": "15s", "input_series": series, "alert_rule_test": cases}
    (tmp_path / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "tests.yml").write_text(json.dumps(whole))
    judged = run_promtool("test", "rules", "tests.yml", cwd=tmp_path)
    said = judged.stdout + judged.stderr
    # Nothing is expected there, so promtool prints each alarm that fires.
    fired = {name for name in BY_THE_HOUR if f'Labels:{{alertname="{name}"' in said}
    print(f"FIRING at the chosen hour: {sorted(fired)}")  # noqa: T201
    assert fired == BY_THE_HOUR, said


def test_every_alarm_that_pages_is_provoked_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    paging = {name for name, alarm in alarms().items() if alarm["labels"]["severity"] == "page"}
    assert {name for name in paging if f'"{name}"' in here} == paging
