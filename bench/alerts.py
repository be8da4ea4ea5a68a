"""One client's p50 and 32 clients' throughput against the bare durable view, as ratios of one run.

Both are served by gunicorn with one worker of 16 threads on SQLite, against the same simulated broker.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.service import ROOT, Service, free_port
from tests.fyers_sim import FyersSim

ONE_CLIENT = 150
CLIENTS = 32
PER_CLIENT = 10


def _post(port: int, bodies: list[bytes], took: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/webhook", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        took.append(time.perf_counter() - started)
        if answer.status != 200:
            raise SystemExit(f"expected 200, was {answer.status}: {text[:300]!r}")
    connection.close()


def _measure(port: int, body: dict[str, object]) -> tuple[float, float, float]:
    counter = iter(range(10**9))

    def bodies(n: int) -> list[bytes]:
        return [json.dumps({**body, "idempotency_key": f"b{next(counter)}"}).encode() for _ in range(n)]

    _post(port, bodies(20), [])
    alone: list[float] = []
    _post(port, bodies(ONE_CLIENT), alone)
    together: list[float] = []
    threads = [
        threading.Thread(target=_post, args=(port, bodies(PER_CLIENT), together)) for _ in range(CLIENTS)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(alone), len(together) / (time.perf_counter() - started), max(together)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        masters = paper_master(ist_date(SystemClock().now()))
        with FyersSim(ledger=directory / "ledger.jsonl", masters=masters, rate_limits=False) as sim:
            env = {
                "TRADING_MODE": "live",
                "FYERS_APP_ID": "X-200",
                "FYERS_ACCESS_TOKEN": "t",
                "FYERS_API_URL": sim.base_url,
                "FYERS_DATA_URL": sim.data_url,
                "SYMBOL_MASTER_URL": sim.master_url,
                "RISK_MAX_ORDERS_PER_DAY": "1000000",
                "FYERS_ORDERS_PER_SECOND": "1000",
                "FYERS_CALLS_PER_SECOND": "1000000",
                "FYERS_CALLS_PER_MINUTE": "1000000",
                "FYERS_CALLS_PER_DAY": "1000000000",
                "BARE_DATABASE_URL": f"sqlite:///{directory / 'bare.sqlite3'}",
            }
            alert: dict[str, object] = {
                "symbol": "NIFTY", "strikeprice": 24500, "optionType": "CE",
                "expiry": "WEEKLY", "action": "BUY", "lots": 1,
            }  # fmt: skip
            with Service(directory, env) as service:
                alert["token"] = service.token("webhook_token")
                ours = _measure(service.port, alert)
            port = free_port()
            command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", "gthread"]
            bare = subprocess.Popen(
                [*command, "--threads", "16", "--log-level", "error", "bench.bare:app"],
                cwd=scratch,  # here lies no gunicorn.conf.py of ours
                env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
            )
            try:
                time.sleep(2)
                ticker = sim.ledger.orders()[0]["body"]["symbol"]
                floor = _measure(port, {"ticker": ticker})
            finally:
                bare.terminate()
                bare.wait()
    print(
        f"one client   p50 {ours[0] * 1000:.1f} ms, bare view {floor[0] * 1000:.1f} ms: {ours[0] / floor[0]:.2f} x (target 1.6)"
    )
    print(
        f"{CLIENTS} clients  {ours[1]:.0f}/s, bare view {floor[1]:.0f}/s: {ours[1] / floor[1]:.2f} x (target 0.6)"
    )
    print(f"{CLIENTS} clients  slowest {ours[2]:.2f} s (target 2.2)")


if __name__ == "__main__":
    main()
