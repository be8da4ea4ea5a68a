"""Live mode on the simulated broker, judged by the broker's own ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    masters = paper_master(ist_date(SystemClock().now()))
    with FyersSim(ledger=tmp_path / "ledger.jsonl", masters=masters, rate_limits=False) as running:
        yield running


@pytest.fixture
def service(sim: FyersSim, tmp_path: Path) -> Iterator[Service]:
    env = {
        "TRADING_MODE": "live",
        "FYERS_APP_ID": "X-200",
        "FYERS_ACCESS_TOKEN": "t",
        "FYERS_API_URL": sim.base_url,
        "FYERS_DATA_URL": sim.data_url,
        "SYMBOL_MASTER_URL": sim.master_url,
    }
    with Service(tmp_path, env) as running:
        yield running


@pytest.mark.parametrize(("action", "side"), [("BUY", 1), ("SELL", -1)])
def test_one_alert_is_one_line_in_the_ledger(sim: FyersSim, service: Service, action: str, side: int) -> None:
    answer = service.alert(strikeprice=24500, lots=1, action=action)
    assert answer.status == 200, answer.body
    (line,) = sim.ledger.orders()
    sent = line["body"]
    assert sent["symbol"] == answer.body["symbol"]
    assert isinstance(sent["qty"], int)
    assert (sent["qty"], sent["side"], sent["type"]) == (65, side, 2)
    assert (sent["productType"], sent["validity"]) == ("INTRADAY", "DAY")
    assert (sent["stopLoss"], sent["takeProfit"], sent["legType"]) == (15.0, 25.0, 1)
    assert re.fullmatch(r"[A-Za-z0-9]{1,20}", sent["orderTag"])


def test_exit_sells_what_is_held_once_and_nothing_of_a_hand(sim: FyersSim, service: Service) -> None:
    for key in ("one", "two"):
        assert service.alert(strikeprice=24500, lots=1, idempotency_key=key).status == 200
    ticker = sim.ledger.orders()[0]["body"]["symbol"]
    sim.place_by_hand(ticker, 1, 130, "INTRADAY")
    out = service.alert(strikeprice=24500, action="EXIT")
    assert (out.status, out.body["quantity"]) == (200, 130), out.body
    again = service.alert(strikeprice=24500, action="EXIT", idempotency_key="again")
    assert (again.status, again.body["code"]) == (422, "nothing_to_exit"), again.body["detail"]
    sold = [line["body"] for line in sim.ledger.orders() if line["body"]["side"] == -1]
    assert [(s["symbol"], s["qty"]) for s in sold] == [(ticker, 130)]
    assert "stopLoss" not in sold[0]
