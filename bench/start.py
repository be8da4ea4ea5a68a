"""From the command to the first served request at a start that is not the first, and what a worker then holds."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.alerts import live_env, simulated
from bench.rows import Row, show
from tests.e2e.service import Service

STARTS = 5
ALERTS = 50
START_S, WORKER_MB = 2.5, 150


def _served(service: Service) -> float:
    """Seconds from the command to a request that is answered."""
    started = time.perf_counter()
    service.spawn()
    while True:
        try:
            service.get("/healthz")
            return time.perf_counter() - started
        except OSError:
            time.sleep(0.005)


def _worker_mb(service: Service) -> float:
    assert service.process is not None
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    sizes = []
    for child in children:
        if b"gunicorn" in Path(f"/proc/{child}/cmdline").read_bytes():
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            sizes.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")))
    return max(sizes)


def _both(name: str, directory: Path, env: dict[str, str]) -> Iterator[Row]:
    with Service(directory, env) as service:  # the first one migrates, and builds the contract index
        service.stop()
        took = []
        for _ in range(STARTS):
            took.append(_served(service))
            service.wait_reconciled(10)
            service.stop()
        yield Row(
            f"cold start to a served request, {name}",
            f"{statistics.median(took):.2f} s",
            f"under {START_S} s",
            met=statistics.median(took) < START_S,
        )
        service.start()
        for n in range(ALERTS):
            answer = service.alert(strikeprice=24500, lots=1, strategy=f"s{n}", idempotency_key=f"k{n}")
            if answer.status != 200:
                raise SystemExit(f"expected 200, was {answer.status}: {answer.body}")
        size = _worker_mb(service)
        yield Row(
            f"a worker after {ALERTS} alerts, {name}",
            f"{size:.0f} MB",
            f"under {WORKER_MB} MB",
            met=size < WORKER_MB,
        )


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("paper", "live"):
            (Path(scratch) / name).mkdir()
        unlimited = {k: v for k, v in live_env(None, "").items() if k.startswith("RISK_")}
        yield from _both("paper", Path(scratch) / "paper", unlimited)
        with simulated(Path(scratch) / "live") as sim:
            yield from _both("live", Path(scratch) / "live", live_env(sim, ""))


if __name__ == "__main__":
    sys.exit(show(rows()))
