"""Paper mode with Fyers credentials: real contracts and prices, simulated fills, and never an order at the broker."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from app.brokers.paper.master import paper_master
from app.domain.contract import ist_date
from app.wiring import SystemClock
from tests.e2e.service import Service
from tests.fyers_sim import FyersSim

pytestmark = pytest.mark.slow


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    """Its master lists WIPRO, which the paper exchange's own does not know."""
    masters = paper_master(ist_date(SystemClock().now()))
    real = {name: content.replace(b"TCS", b"WIPRO") for name, content in masters.items()}
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=real, rate_limits=False) as running:
        yield running


@pytest.fixture
def service(sim: FyersSim, tmp_path: Path) -> Iterator[Service]:
    env = {
        "TRADING_MODE": "paper",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
    }
    with Service(tmp_path, env) as running:
        yield running


NIFTY = {"strikeprice": 24500, "lots": 1}
WIPRO = {"symbol": "WIPRO", "strikeprice": 3100, "expiry": "MONTHLY", "lots": 1}


def test_a_real_price_a_simulated_fill_and_no_order_at_the_broker(sim: FyersSim, service: Service) -> None:
    for alert, lot in ((NIFTY, 65), (WIPRO, 175)):
        entry = service.alert(**alert)
        assert (entry.status, entry.body["status"], entry.body["mode"]) == (200, "accepted", "paper"), (
            entry.body
        )
        assert (Decimal(entry.body["ltp"]), entry.body["quantity"]) == (Decimal(100), lot)
        out = service.alert(**alert, action="EXIT")
        assert (out.status, out.body["side"], out.body["quantity"]) == (200, "SELL", lot), out.body
        sold_out = service.alert(**alert, action="EXIT", idempotency_key=f"again-{lot}")
        assert sold_out.body["code"] == "nothing_to_exit", sold_out.body
    unknown = service.alert(**{**WIPRO, "symbol": "TCS"})
    assert (unknown.status, unknown.body["code"]) == (422, "unknown_symbol"), unknown.body
    assert sim.ledger.counts["GET /data/quotes"] >= 4
    assert (sim.ledger.orders(), sim.ledger.ops()) == ([], [])


def test_no_price_is_made_up(sim: FyersSim, service: Service) -> None:
    sim.faults.set("GET /data/quotes", "html_503")
    failed = service.alert(**WIPRO)
    assert (failed.status, failed.body["code"]) == (503, "broker_unavailable"), failed.body
    sim.faults.clear()
    chosen = service.get("/api/v1/contracts?symbol=WIPRO&expiry=MONTHLY&strike=3100&type=CE").body
    sim.remove_quote(chosen["symbol"])
    unusable = service.alert(**WIPRO)
    assert (unusable.status, unusable.body["code"]) == (400, "ltp_unavailable"), unusable.body
    assert sim.ledger.orders() == []
