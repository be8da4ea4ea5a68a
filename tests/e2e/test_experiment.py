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

TRIES = 8


def test_a_limit_entry_fills_at_the_touch_and_is_reported(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        bearer = {"Authorization": f"Bearer {service.admin}"}
        body = json.dumps(KINDS).encode()
        started = service.request("PUT", "/api/v1/experiments/kinds", body, bearer)
        assert started.status == 200, started.body
        tries = 0
        while True:
            tries += 1
            entry = service.alert(strikeprice=24500, lots=1, idempotency_key=f"k{tries}")
            assert entry.status == 200, entry.body
            out = service.alert(strikeprice=24500, action="EXIT", idempotency_key=f"x{tries}")
            if out.status == 200:
                break
            # The price went away between the quote and the order, and the exit cancelled what had not filled.
            assert (out.body["code"], tries < TRIES) == ("nothing_to_exit", True), out.body
            assert out.body["warnings"] == [f"cancelled before it: {entry.body['order_id']}"]
        order = service.get(f"/api/v1/orders/{entry.body['order_id']}").body
        sending = order["events"][0]["detail"]
        assert (sending["kind"], order["filled_quantity"]) == ("LIMIT", 65), order
        assert sending["variant"] in ("kinds/limit", "kinds/wide")
        report = service.get("/api/v1/experiments/kinds/report").body
        assert sum(v["orders"] for v in report["variants"]) == tries
        assert sum(v["filled"] for v in report["variants"]) == 1
