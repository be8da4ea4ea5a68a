"""An experiment on a real service on the paper exchange: LIMIT at the touch fills, its exit is as ever, and it is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.alone]
KINDS = {
    "variants": [{"name": "limit", "kind": "LIMIT"}, {"name": "wide", "kind": "LIMIT", "sl_percent": 30}],
    "reason": "to see",
}


def test_a_limit_entry_fills_at_the_touch_and_is_reported(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        bearer = {"Authorization": f"Bearer {service.admin}"}
        body = json.dumps(KINDS).encode()
        started = service.request("PUT", "/api/v1/experiments/kinds", body, bearer)
        assert started.status == 200, started.body
        entry = service.alert(strikeprice=24500, lots=1, idempotency_key="k1")
        assert entry.status == 200, entry.body
        out = service.alert(strikeprice=24500, action="EXIT")
        assert out.status == 200, out.body
        order = service.get(f"/api/v1/orders/{entry.body['order_id']}").body
        sending = order["events"][0]["detail"]
        assert (sending["kind"], order["filled_quantity"]) == ("LIMIT", 65), order
        assert sending["variant"] in ("kinds/limit", "kinds/wide")
        report = service.get("/api/v1/experiments/kinds/report").body
        assert sum(v["orders"] for v in report["variants"]) == 1
        assert sum(v["filled"] for v in report["variants"]) == 1
