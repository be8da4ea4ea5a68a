"""SIGTERM at random moments under load, against the real service; the broker's ledger judges.

`SHUTDOWNS=250` (make shutdown) for the full number.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("SHUTDOWNS", "10"))
EXIT_WITHIN_S = 9.0
SENDERS = 6
SECRETS = {"WEBHOOK_SECRET_TOKEN": "hook-token-of-the-test", "ADMIN_TOKEN": "admin-token-of-the-test"}
UNLIMITED = (
    "RISK_MAX_ORDERS_PER_MINUTE",
    "RISK_MAX_ORDERS_PER_HOUR",
    "RISK_MAX_ORDERS_PER_DAY",
    "RISK_MAX_OPEN_LOTS",
    "RISK_RUNAWAY",
)
CUT = "cut"
"""The connection ended after the request was written, without an answer."""
AWAY = "away"
"""Nobody took the connection."""


def env_of(sim: FyersSim) -> dict[str, str]:
    return {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "SESSION_SECRET": "session-secret-of-the-test",
        "ORDER_TAG_PREFIX": "SHUT",
        "ENFORCE_MARKET_HOURS": "false",
        "RECONCILE_INTERVAL_SECONDS": "0.3",
        "SETTLE_MIN_SECONDS": "1",
        "SETTLE_MIN_READS": "2",
        "EXPECTED_PROCESSES": "2",
        **dict.fromkeys(UNLIMITED, ""),
        **SECRETS,
    }


@dataclass
class Senders:
    """Alerts one after the other from several threads, each on a connection of its own, until nobody takes them."""

    port: int
    name: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(SENDERS)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, number: int) -> None:
        count, pause = 0, random.Random(f"{self.name}{number}")
        while not self.stop.is_set():
            count += 1
            key = f"{self.name}-{number}-{count}"
            if self.send(key) == AWAY:
                return
            self.stop.wait(pause.uniform(0, 0.03))

    def send(self, key: str) -> str:
        """`said`, CUT or AWAY."""
        body = {
            "token": SECRETS["WEBHOOK_SECRET_TOKEN"],
            "symbol": "NIFTY",
            "optionType": "CE",
            "expiry": "WEEKLY",
            "action": "BUY",
            "strikeprice": 24500,
            "lots": 1,
            "idempotency_key": key,
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            try:
                connection.connect()
            except OSError:
                return AWAY
            began = time.monotonic()
            try:
                connection.request("POST", "/webhook", json.dumps(body))
                answer = connection.getresponse()
                self.answers[key] = answer.status, json.loads(answer.read())
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            except (OSError, http.client.HTTPException) as error:
                self.ends[key] = repr(error)
                return CUT
            return "said"
        finally:
            connection.close()


def all_orders(service: Service) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = service.get(f"/api/v1/orders?limit=200{cursor and '&cursor=' + cursor}").body
        rows += page["orders"]
        if not page["next_cursor"]:
            return rows
        cursor = page["next_cursor"]


def settled(service: Service, within_s: float = 40) -> list[dict[str, Any]]:
    give_up = time.monotonic() + within_s
    while True:
        rows = all_orders(service)
        waiting = [r for r in rows if r["state"] in ("SENDING", "IN_DOUBT")]
        if not waiting or time.monotonic() > give_up:
            assert not waiting, waiting[:3]
            return rows
        time.sleep(0.5)


def terminated(process: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to the end of the whole service."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(EXIT_WITHIN_S + 5)
    return time.monotonic() - began


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_sigterm_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = {} if database == "sqlite" else {"DATABASE_URL": request.getfixturevalue("postgres_url")}
    masters = paper_master(ist_date(SystemClock().now()))
    rounds = max(1, ROUNDS // 2)
    chance = random.Random(f"shutdown {database}")
    took: list[float] = []
    said: dict[str, tuple[int, Any]] = {}
    cut: dict[str, str] = {}
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as sim:
        service = Service(tmp_path, env_of(sim) | url)
        try:
            for number in range(rounds):
                service.start()
                assert service.wait_reconciled(20)
                senders = Senders(service.port, f"{database}{number}")
                threads = senders.run()
                for fault in chance.choices(("slow_created", "hang_created", "reset_created"), k=2):
                    sim.faults.next_order(fault, seconds=chance.uniform(0.2, 3))
                time.sleep(chance.uniform(0.05, 1.5))
                assert service.process is not None
                took.append(terminated(service.process))
                senders.stop.set()
                for thread in threads:
                    thread.join(20)
                said |= senders.answers
                cut |= senders.ends
                assert senders.slowest_s < 8, senders.slowest_s
            sim.faults.clear()
            service.start()
            assert service.wait_reconciled(20)
            rows = settled(service)
            judge(sim, service, rows, said, cut)
        finally:
            service.stop()
    assert max(took) <= EXIT_WITHIN_S, took
    assert len(said) > rounds, "the load was no load"
    # Between the last look at the queue and the listener's end lie microseconds.
    assert len(cut) <= 1 + rounds // 50, cut


def judge(
    sim: FyersSim,
    service: Service,
    rows: list[dict[str, Any]],
    said: dict[str, tuple[int, Any]],
    cut: dict[str, str],
) -> None:
    """Ledger and database agree; every answer is kept; whoever got none was never taken."""
    assert {status for status, _ in said.values()} <= {200, 202, 503}, said
    tags = [line["body"]["orderTag"] for line in sim.ledger.orders()]
    assert len(tags) == len(set(tags)), "an order was sent twice"
    placed = {line["body"]["orderTag"]: line["order_id"] for line in sim.ledger.placed()}
    by_id = {row["order_id"]: row for row in rows}
    known = {row["tag"]: row["broker_order_id"] for row in rows if row["broker_order_id"] is not None}
    assert known == placed, "ledger and database differ"
    accepted = [body["order_id"] for status, body in said.values() if status == 200]
    assert len(accepted) == len(set(accepted))
    for order_id in accepted:
        assert by_id[order_id]["broker_order_id"] is not None, by_id[order_id]
    # Whose answer never came: sent again it must turn out to be new, else it had been taken and left without a word.
    again = Senders(service.port, "again")
    for key, how in cut.items():
        before = len(sim.ledger.orders())
        assert again.send(key) == "said"
        assert len(sim.ledger.orders()) == before + 1, f"{key} was taken, and its client cut off: {how}"


def test_sigterm_while_it_starts_ends_it_at_once(tmp_path: Path) -> None:
    chance = random.Random("starting")
    service = Service(tmp_path)
    for _ in range(max(2, ROUNDS // 5)):
        starting = threading.Thread(target=_start, args=(service,))
        service.process = None
        starting.start()
        while service.process is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2.5))
        assert terminated(service.process) <= EXIT_WITHIN_S
        starting.join(30)
        assert not starting.is_alive()


def _start(service: Service) -> None:
    try:
        service.start()
    except (AssertionError, OSError, http.client.HTTPException):
        return  # it was told to stop


def test_a_jobs_lease_is_free_when_the_service_has_ended(tmp_path: Path) -> None:
    """Stopped in the middle of a run that hangs: the next process must not wait for the lease's end."""
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as sim:
        service = Service(tmp_path, env_of(sim))
        with service:
            sim.faults.set("GET /orders", "hang", seconds=20)
            sim.faults.next_order("reset_created")
            senders = Senders(service.port, "lease")
            assert senders.send("one") == "said"
            wait_until(lambda: holders(service) != [])
            assert service.process is not None
            assert terminated(service.process) <= EXIT_WITHIN_S
            assert holders(service) == []
            sim.release_hangs()


def holders(service: Service) -> list[str]:
    import sqlite3

    with sqlite3.connect(service.instance / "orders.sqlite3") as connection:
        found = [
            str(r[0]) for r in connection.execute("SELECT name FROM locks WHERE name LIKE 'job:reconcile%'")
        ]
    connection.close()
    return found


def wait_until(condition: Any, within_s: float = 10) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)
