"""The broker and the service as two real processes' worth: the simulator, and live mode against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    """Open whatever the hour, with contracts of today; its ledger is the judge."""
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as running:
        yield running


@pytest.fixture
def service(sim: FyersSim, tmp_path: Path) -> Iterator[Service]:
    """Live mode on the simulator, one lot in one order."""
    env = {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
        "WEBHOOK_MAX_QTY": "1",
    }
    with Service(tmp_path, env) as running:
        yield running
