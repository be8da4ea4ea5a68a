"""A live service's settings against the simulator, and senders of alerts that note every answer and every end."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.service import Service
from tests.fyers_sim import FyersSim

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
NEWER_EVERY_S = 6.0
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


def settled(
    service: Service, order_again: Callable[[], object], within_s: float = 40
) -> list[dict[str, Any]]:
    """All rows, once none is in doubt. `order_again` makes the broker's book newer than any doubt."""
    give_up, again_at = time.monotonic() + within_s, 0.0
    while True:
        rows = all_orders(service)
        waiting = [r for r in rows if r["state"] in ("SENDING", "IN_DOUBT")]
        if not waiting or time.monotonic() > give_up:
            assert not waiting, waiting[:3]
            return rows
        if time.monotonic() >= again_at:
            order_again()
            again_at = time.monotonic() + NEWER_EVERY_S
        time.sleep(0.5)
