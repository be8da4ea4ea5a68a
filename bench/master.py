"""The contract index on a generated NSE_FO of 98,000 rows: `python -m bench.master`.

Prints the build time, the serving process' resident growth, the look-up times, and the longest pause of a loop
of small reads (what a request does) while a refresh runs beside it, against the same loop alone.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from app.brokers.fyers.index_file import newest_index
from app.brokers.fyers.symbols import IndexedContracts, refresh
from app.domain.alert import ExpiryRule, OptionType
from tests.builders_master import nse_fo

ROWS = 98_000
TODAY = datetime(2026, 11, 23, 5, tzinfo=UTC)
LOOKUPS = 20_000
ALONE_S = 1.0


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


def look_up(contracts: IndexedContracts) -> None:
    contracts.resolve("NIFTY", Decimal(24500), OptionType.CE, ExpiryRule.WEEKLY, None, TODAY)


def longest_pause_ms(contracts: IndexedContracts, stop: threading.Event, limit_s: float) -> float:
    """The longest time between two small reads of a loop that runs until `stop` or `limit_s`."""
    longest, last = 0.0, time.perf_counter()
    end = last + limit_s
    while last < end and not stop.is_set():
        look_up(contracts)
        moment = time.perf_counter()
        longest, last = max(longest, moment - last), moment
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


def run(directory: Path) -> None:
    source, other = directory / "NSE_FO.csv", directory / "other.csv"
    source.write_bytes(nse_fo(ROWS, TODAY.date()))
    other.write_bytes(nse_fo(ROWS + 1, TODAY.date()))
    before = resident_mb()
    report = refresh(directory, {"NSE_FO.csv": source})
    contracts = IndexedContracts(directory, RealClock())
    look_up(contracts)
    started = time.perf_counter()
    for _ in range(LOOKUPS):
        look_up(contracts)
    resolve_us = (time.perf_counter() - started) / LOOKUPS * 1e6
    growth = resident_mb() - before
    path = newest_index(directory)
    assert path is not None
    size_mb = path.stat().st_size / 2**20
    key_us = key_lookup_us(path)
    alone = longest_pause_ms(contracts, threading.Event(), ALONE_S)
    done = threading.Event()

    def again() -> None:
        refresh(directory, {"NSE_FO.csv": other})
        done.set()

    beside_it = threading.Thread(target=again)
    beside_it.start()
    beside = longest_pause_ms(contracts, done, 60)
    beside_it.join()
    contracts.close()
    print(f"rows {ROWS}, options {report.rows}, skipped {report.skipped}, index file {size_mb:.1f} MiB")
    print(f"build (child process, start to swap): {report.seconds:.2f} s       target < 1.5 s")
    print(f"resident growth while serving: {growth:.1f} MiB                    target < 60 MB")
    print(f"look-up by key: {key_us:.1f} us                                     target < 20 us")
    print(f"whole resolve, expiry rule and sentence included: {resolve_us:.1f} us")
    print(f"longest pause of a look-up loop alone: {alone:.1f} ms")
    print(f"longest pause beside a refresh: {beside:.1f} ms                    target < 50 ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        run(Path(scratch))
