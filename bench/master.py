"""The contract index on a generated NSE_FO of 98,000 rows: `python -m bench.master`.

Prints the build time, the serving process' resident growth, the look-up times, and the longest pause of 10,000
look-ups and of 1,000 alerts while whole refreshes (download, full look, build, swap; the job's own child process) run
beside them, against the same alone. The ratio is the measure: the machine's own pauses are in both numbers.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from app.brokers.fyers.index_file import newest_index
from app.brokers.fyers.symbols import IndexedContracts, refresh
from app.domain.alert import ExpiryRule, OptionType
from app.domain.contract import ist_date
from app.factory import create_app
from app.settings import Settings
from app.store.migrate import upgrade
from bench.rows import Row, show
from tests.builders_master import nse_fo

ROWS = 98_000
LOOKUPS = 20_000
BUILD_S, GROWTH_MB, LOOKUP_US, PAUSE_MS = 1.5, 60, 20, 50


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("expected VmRSS in /proc/self/status")


def look_up(contracts: IndexedContracts, now: datetime) -> None:
    contracts.resolve("NIFTY", Decimal(24500), OptionType.CE, ExpiryRule.WEEKLY, None, now)


def longest_ms(work: Callable[[], None], times: int, beside: Refreshes | None = None) -> float:
    """The longest of `times` calls, and of as many more as the first whole refresh beside them takes."""
    longest, done, last = 0.0, 0, time.perf_counter()
    while done < times or (beside is not None and not beside.finished):
        work()
        moment = time.perf_counter()
        longest, last, done = max(longest, moment - last), moment, done + 1
    return longest * 1000


def key_lookup_us(path: Path) -> float:
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    keys = db.execute(
        "SELECT exchange, underlying, expiry, strike, option_type FROM options ORDER BY random() LIMIT ?",
        (LOOKUPS,),
    ).fetchall()
    started = time.perf_counter()
    for key in keys:
        db.execute(
            "SELECT ticker, lot, tick FROM options"
            " WHERE exchange = ? AND underlying = ? AND expiry = ? AND strike = ? AND option_type = ?",
            key,
        ).fetchone()
    spent = time.perf_counter() - started
    db.close()
    return spent / len(keys) * 1e6


class Refreshes:
    """Whole refreshes one after the other, in child processes; each gets another file, so that each builds."""

    def __init__(self, directory: Path, rounds: list[bytes]) -> None:
        self._files, self._rounds = directory / "files", rounds
        self._files.mkdir()
        self._server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "http.server",
                "0",
                "--bind",
                "127.0.0.1",
                "--directory",
                str(self._files),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            text=True,
        )
        assert self._server.stdout is not None
        url = self._server.stdout.readline().split("(")[1].split(")")[0]
        self._environment = {
            **os.environ,
            "FYERS_APP_ID": "BENCH-200",
            "FYERS_ACCESS_TOKEN": "t",
            "SYMBOL_MASTER_URL": url,
            "SYMBOL_MASTER_FILES": "NSE_FO",
            "INSTANCE_DIR": str(directory),
        }
        self.finished = 0
        self.failed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def once(self) -> None:
        (self._files / "NSE_FO.csv").write_bytes(self._rounds[self.finished % len(self._rounds)])
        done = subprocess.run(
            [sys.executable, "-m", "app.refresh"], env=self._environment, capture_output=True, check=False
        )
        self.failed += done.returncode not in (0, 3)
        self.finished += 1

    def _loop(self) -> None:
        while not self._over.is_set():
            self.once()

    def __enter__(self) -> Self:
        self.finished = 0
        self._over.clear()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def close(self) -> None:
        assert self._server.stdout is not None
        self._server.terminate()
        self._server.wait()
        self._server.stdout.close()


def alerts(directory: Path) -> tuple[Callable[[], None], Counter[int]]:
    """One alert to the real service on paper, contract index, SQLite and all; and the statuses that came."""
    (directory / "paper").mkdir()
    (directory / "paper" / "contracts").symlink_to(directory / "contracts-fyers")
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        instance_dir=directory / "paper",
        webhook_secret_token=SecretStr("bench"),
        webhook_max_qty=1,
        rate_limit_webhook="100000 per second",
        log_level="ERROR",
        risk_max_orders_per_minute=None,
        risk_max_orders_per_hour=None,
        risk_max_orders_per_day=None,
        risk_max_open_lots=None,
        risk_runaway=None,
    )
    upgrade(settings.url)
    app = create_app(settings)
    app.extensions["reconcile"]()
    client, statuses, numbers = app.test_client(), Counter[int](), itertools.count()

    def alert() -> None:
        answer = client.post(
            "/webhook",
            json={
                "token": "bench",
                "symbol": "NIFTY",
                "strikeprice": 24500,
                "optionType": "CE",
                "expiry": "WEEKLY",
                "action": "BUY",
                "lots": 1,
                "idempotency_key": f"bench-{next(numbers)}",
            },
        )
        statuses[answer.status_code] += 1

    return alert, statuses


def run(directory: Path) -> Iterator[Row]:
    today = datetime.now(UTC)
    source = directory / "NSE_FO.csv"
    source.write_bytes(nse_fo(ROWS, ist_date(today)))
    before = resident_mb()
    report = refresh(directory / "contracts-fyers", {"NSE_FO.csv": source})
    contracts = IndexedContracts(directory / "contracts-fyers", RealClock())

    def look() -> None:
        look_up(contracts, today)

    look()
    started = time.perf_counter()
    for _ in range(LOOKUPS):
        look()
    resolve_us = (time.perf_counter() - started) / LOOKUPS * 1e6
    growth = resident_mb() - before
    path = newest_index(directory / "contracts-fyers")
    assert path is not None
    size = f"{report.rows} options, {path.stat().st_size / 2**20:.1f} MiB"
    yield _below(f"a {ROWS}-row master built ({size})", report.seconds, BUILD_S, "s", 2)
    yield _below("resident growth while serving from it", growth, GROWTH_MB, "MB", 1)
    yield _below("look-up by key", key_lookup_us(path), LOOKUP_US, "us", 1)
    yield Row("whole resolve, expiry rule and sentence included", f"{resolve_us:.1f} us", "")
    refreshes = Refreshes(directory, [nse_fo(ROWS + 1, ist_date(today)), nse_fo(ROWS + 2, ist_date(today))])
    alert, statuses = alerts(directory)
    try:
        for what, work, times in (("look-ups", look, 10_000), ("alerts", alert, 1_000)):
            alone = longest_ms(work, times)
            with refreshes:
                beside = longest_ms(work, times, refreshes)
            whole = refreshes.failed == 0
            yield Row(
                f"longest of {times} {what} beside {refreshes.finished} refreshes",
                f"{alone:.1f} ms alone, {beside:.1f} ms beside: {beside - alone:+.1f} ms, "
                f"{refreshes.failed} failed",
                f"less than +{PAUSE_MS} ms",
                met=whole and beside - alone < PAUSE_MS,
            )
    finally:
        refreshes.close()
        contracts.close()
    yield Row("the answers of these alerts", str(dict(statuses)), "all 200", met=set(statuses) == {200})


def _below(what: str, value: float, limit: float, unit: str, digits: int) -> Row:
    return Row(what, f"{value:.{digits}f} {unit}", f"under {limit} {unit}", met=value < limit)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        yield from run(Path(scratch))


if __name__ == "__main__":
    sys.exit(show(rows()))
