"""A newcomer's first minutes: the service as it starts by itself, in paper mode on SQLite."""

from __future__ import annotations

import re
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, Service

pytestmark = pytest.mark.slow


def test_the_printed_command_places_one_order_that_outlives_a_restart(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        shown = re.search(r"^  (curl .+)$", service.log, re.MULTILINE)
        assert shown, service.log
        answer = subprocess.run(shown.group(1), shell=True, check=True, capture_output=True, cwd=ROOT)
        assert b'"accepted"' in answer.stdout, answer.stdout
        placed = service.get("/api/v1/orders").body
        order = next(iter(placed["orders"]))
        assert Decimal(order["stop_loss"]) < Decimal(order["ltp"]) < Decimal(order["take_profit"])
        assert "WEEKLY" in order["explanation"]
        assert service.token("webhook_token") not in service.log
        service.stop()
        service.start()
        again = service.get(f"/api/v1/orders/{order['order_id']}").body
        assert [e["event"] for e in again["events"]][:2] == ["order:sending", "order:accepted"]


def test_a_repeat_is_one_order_and_an_exit_sells_it_once(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        strike = service.get("/api/v1/contracts?symbol=NIFTY&expiry=WEEKLY&strike=24500&type=CE").body
        first = service.alert(strikeprice=24500, lots=1, idempotency_key="k1")
        repeat = service.alert(strikeprice=24500, lots=1, idempotency_key="k1")
        assert (first.status, repeat.status) == (200, 200), (strike, first.body)
        assert repeat.headers["idempotent-replayed"] == "true"
        assert repeat.body["order_id"] == first.body["order_id"]
        out = service.alert(strikeprice=24500, action="EXIT")
        assert (out.status, out.body["side"], out.body["quantity"]) == (200, "SELL", 65), out.body
        none = service.alert(strikeprice=24500, action="EXIT", idempotency_key="again")
        assert (none.status, none.body["code"]) == (422, "nothing_to_exit")
