"""The same deaths in the real service: gunicorn's own workers, its restarts, real time."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from app.domain.contract import ist_date
from tests.chaos.judge import Verdict, judge
from tests.chaos.points import Point
from tests.chaos.scenarios import LEVELS, LOT, PLAIN
from tests.chaos.served import place
from tests.chaos.simulator import SimProcess
from tests.chaos.world import ADMIN, PREFIX, RESENDS, SESSION, UNSETTLED, WEBHOOK, Sent
from tests.e2e.service import ROOT, Service
from tests.fyers_sim import nifty_ticker, sample_masters

ALERTS = 84
"""As many as there are contracts of two expiries around the money."""
LIMITS = (
    "RISK_MAX_ORDERS_PER_MINUTE",
    "RISK_MAX_ORDERS_PER_HOUR",
    "RISK_MAX_ORDERS_PER_DAY",
    "RISK_MAX_OPEN_LOTS",
    "RISK_RUNAWAY",
)
PAUSE_S = 0.3
BACK_WITHIN_S = 20.0
SETTLED_WITHIN_S = 60.0
WITNESS_AFTER_S = 6.0
"""A row in the book proves a reading fresh when it is five seconds newer than the send."""


def master_date() -> date:
    """Tomorrow's file: its nearest expiry is not over this evening, whatever the hour of the test."""
    return ist_date(datetime.now(UTC)) + timedelta(days=1)


def alerts_of(number: int) -> list[Sent]:
    """So many entries, each in a contract of its own."""
    contracts = itertools.product(range(24000, 25001, 50), ("CE", "PE"), enumerate(("WEEKLY", "NEXT_WEEKLY")))
    found = []
    for n, (strike, kind, (week, rule)) in enumerate(itertools.islice(contracts, number)):
        side = 1 if n % 3 else -1
        body = {"token": WEBHOOK, "symbol": "NIFTY", "strikeprice": strike, "optionType": kind}
        body |= {"expiry": rule, "action": "BUY" if side > 0 else "SELL", "lots": 1}
        if n % 2:
            body["idempotency_key"] = f"alert {n}"
        means = {
            "symbol": nifty_ticker(master_date(), strike, kind, week),
            "qty": LOT,
            "side": side,
            **PLAIN,
            **LEVELS,
        }
        found.append(Sent(f"alert {n}", body, means))
    if len(found) < number:
        raise ValueError(f"expected {number} contracts, were {len(found)}")
    return found


def env_of(sim: SimProcess, database_url: str, account: str = "XGUNICORN-200") -> dict[str, str]:
    """A live service on the simulated broker that settles fast, without a limit that these tests would meet."""
    return {
        "TRADING_MODE": "live",
        "DATABASE_URL": database_url,
        "FYERS_APP_ID": account,
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": f"{sim.door.root_url}/api/v3",
        "FYERS_DATA_URL": f"{sim.door.root_url}/data",
        "SYMBOL_MASTER_URL": f"{sim.door.root_url}/master",
        "WEBHOOK_SECRET_TOKEN": WEBHOOK,
        "ADMIN_TOKEN": ADMIN,
        "SESSION_SECRET": SESSION,
        "ORDER_TAG_PREFIX": PREFIX,
        "SETTLE_MIN_READS": "2",
        "SETTLE_MIN_SECONDS": "2",
        "RECONCILE_INTERVAL_SECONDS": "0.5",
        "PYTHONWARNINGS": "ignore",
        **dict.fromkeys(LIMITS, ""),
    }


def run(directory: Path, database_url: str, points: Sequence[Point], kills: int) -> tuple[int, Verdict]:
    """How many workers died, and the verdict on all alerts together."""
    directory.mkdir()
    sim = SimProcess(directory / "ledger.jsonl", sample_masters(master_date()), datetime.now(UTC))
    plan = directory / "plan"
    env = env_of(sim, database_url) | {
        "PYTHONPATH": f"{ROOT / 'tests/chaos/inject'}:{ROOT}",
        "CHAOS_PLAN": str(plan),
    }
    alerts = alerts_of(ALERTS)
    answered: list[dict[str, Any]] = []
    try:
        with Service(directory, env) as service:
            waiting = deque(points)
            for n, sent in enumerate(alerts):
                plan.write_text(place(waiting[0]))
                _until_answered(service, sent, answered)
                if plan.exists() and len(waiting) > 1:
                    # It does not come here: a worker that keeps a connection to the broker needs no new one.
                    waiting.popleft()
                waiting.rotate(-1)
                plan.unlink(missing_ok=True)
                if len(list(directory.glob("plan.*"))) >= kills:
                    alerts = alerts[: n + 1]
                    break
            rows = _settled(service, sim)
        lines = sim.lines()
    finally:
        sim.close()
    died = len(list(directory.glob("plan.*")))
    return died, judge(alerts, lines, rows, answered, set())


def _until_answered(service: Service, sent: Sent, answered: list[dict[str, Any]]) -> None:
    """Deliver as TradingView does: again after no answer or a 5xx, three times."""
    for _ in range(1 + RESENDS):
        try:
            answer = service.request("POST", "/webhook", json.dumps(sent.body).encode())
        except (OSError, http.client.HTTPException):
            _wait_until_back(service)
            continue
        said = answer.body if isinstance(answer.body, dict) else {}
        answered.append(
            {"answer": sent.name, "status": answer.status, "state": said.get("state") or said.get("code")}
        )
        if answer.status != 409 and answer.status < 500:
            return
        time.sleep(PAUSE_S)
        _wait_until_back(service)


def _wait_until_back(service: Service) -> None:
    """Gunicorn has started another worker, and its first pass has succeeded."""
    give_up = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < give_up:
        try:
            answer = service.get("/readyz")
            if answer.status == 200 and answer.body["checks"]["reconciled"] == "ok":
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"the service did not come back:\n{service.log[-3000:]}")


def _settled(service: Service, sim: SimProcess) -> list[dict[str, Any]]:
    """The orders once every one is settled: with time going by, and other people's trades."""
    give_up = time.monotonic() + SETTLED_WITHIN_S
    time.sleep(WITNESS_AFTER_S)
    while True:
        answer = service.request(
            "GET", "/api/v1/orders?limit=200", headers={"Authorization": f"Bearer {ADMIN}"}
        )
        rows: list[dict[str, Any]] = answer.body["orders"]
        if not any(row["state"] in UNSETTLED for row in rows) or time.monotonic() > give_up:
            return rows
        sim.door.call("place_by_hand", ticker="NSE:SBIN-EQ", side=1, qty=1)
        time.sleep(1)
