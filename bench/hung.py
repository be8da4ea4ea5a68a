"""A broker that takes the connection and says nothing: what the alerts wait, and what everybody else does."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.alerts import live_env, simulated
from bench.rows import Row, show
from tests.e2e.service import Service

QUOTES, ORDERS = "GET /data/quotes", "POST /orders/sync"
ALERTS_AT_ONCE, ROUNDS = 16, 3
ANSWERED_S, OTHERS_S = 2.2, 0.25


def _timed(service: Service, path: str) -> float:
    started = time.perf_counter()
    service.get(path)
    return time.perf_counter() - started


def _while_hung(service: Service, name: str) -> tuple[list[float], list[float], set[int]]:
    def alert(number: int) -> tuple[int, float]:
        started = time.perf_counter()
        answer = service.alert(strikeprice=24500, lots=1, idempotency_key=f"{name}{number}")
        return answer.status, time.perf_counter() - started

    others: list[float] = []
    with ThreadPoolExecutor(ALERTS_AT_ONCE) as pool:
        waiting = [pool.submit(alert, number) for number in range(ALERTS_AT_ONCE)]
        while not all(one.done() for one in waiting):
            others.append(_timed(service, "/readyz"))
    found = [one.result() for one in waiting]
    return [took for _, took in found], others, {status for status, _ in found}


def rows() -> Iterator[Row]:
    for what, hangs, expected in (("quotes", QUOTES, 503), ("orders", ORDERS, 202)):
        with tempfile.TemporaryDirectory() as scratch, simulated(Path(scratch)) as sim:
            env = live_env(sim, "") | {
                "BREAKER_FAIL_MAX": "1000000"
            }  # or the later rounds would wait for nothing
            took, others, statuses = list[float](), list[float](), set[int]()
            with Service(Path(scratch), env) as service:
                sim.faults.set(hangs, "hang")
                for number in range(ROUNDS):
                    some, beside, answers = _while_hung(service, f"{what}{number}-")
                    took, others, statuses = took + some, others + beside, statuses | answers
                sim.faults.clear()
                sim.release_hangs()
            p99 = sorted(others)[int(len(others) * 0.99)]
            yield Row(
                f"{what} hung: slowest of {len(took)} alerts, {ALERTS_AT_ONCE} at once",
                f"{max(took):.2f} s, answered {sorted(statuses)}",
                f"under {ANSWERED_S} s, {expected}",
                met=max(took) < ANSWERED_S and statuses == {expected},
            )
            yield Row(
                f"{what} hung: p99 of {len(others)} other requests",
                f"{p99 * 1000:.0f} ms",
                f"under {OTHERS_S * 1000:.0f} ms",
                met=p99 < OTHERS_S,
            )


if __name__ == "__main__":
    sys.exit(show(rows()))
