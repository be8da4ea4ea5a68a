"""A refresh of a master of 98,000 rows beside the requests: no look-up and no alert has to wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.brokers.fyers.symbols import IndexedContracts, refresh
from app.domain.contract import ist_date
from bench.master import PAUSE_MS, ROWS, RealClock, Refreshes, alerts, look_up
from tests.builders_master import nse_fo

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ATTEMPTS = 3
"""A busy machine has pauses of its own, also without a refresh: one quiet attempt tells that ours are none."""


def waited_for_a_core_s() -> float:
    """How long this thread was ready to run and other programs had the cores: no pause of the service's making. Zero where the kernel
    does not count it.
    """
    return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def longest_own_ms(work: Callable[[], None], times: int, refreshes: Refreshes | None = None) -> float:
    """As bench.master's, without the time that the kernel gave to others."""
    longest, done = 0.0, 0
    while done < times or (refreshes is not None and not refreshes.finished):
        started, waited = time.perf_counter(), waited_for_a_core_s()
        work()
        taken = time.perf_counter() - started - (waited_for_a_core_s() - waited)
        longest, done = max(longest, taken), done + 1
    return longest * 1000


def least_added_ms(work: Callable[[], None], times: int, refreshes: Refreshes) -> float:
    """What the refresh adds to the longest of so many calls, in the quietest attempt."""
    added = float("inf")
    for _ in range(ATTEMPTS):
        by_itself = longest_own_ms(work, times)
        with refreshes:
            added = min(added, longest_own_ms(work, times, refreshes) - by_itself)
        assert refreshes.finished >= 1
        if added < PAUSE_MS:
            break
    return added


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="asks Linux's scheduler")
def test_look_ups_and_alerts_during_a_refresh_see_no_pause(tmp_path: Path) -> None:
    today = datetime.now(UTC)
    source = tmp_path / "NSE_FO.csv"
    source.write_bytes(nse_fo(ROWS, ist_date(today)))
    refresh(tmp_path / "contracts-fyers", {"NSE_FO.csv": source})
    contracts = IndexedContracts(tmp_path / "contracts-fyers", RealClock())
    refreshes = Refreshes(tmp_path, [nse_fo(ROWS + 1, ist_date(today)), nse_fo(ROWS + 2, ist_date(today))])
    alert, statuses = alerts(tmp_path)
    try:
        assert least_added_ms(lambda: look_up(contracts, today), 10_000, refreshes) < PAUSE_MS
        assert least_added_ms(alert, 1_000, refreshes) < PAUSE_MS
        assert refreshes.failed == 0
        assert sum(statuses.values()) >= 2_000
        assert max(statuses) < 500, statuses
    finally:
        refreshes.close()
        contracts.close()
