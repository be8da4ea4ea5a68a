"""Fills reach the rows by themselves: an exit of the next day goes by them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.service import Service

pytestmark = pytest.mark.slow
WITHIN_S = 60


def test_a_fill_is_recorded_without_anybody_asking(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        order = service.alert(strikeprice=24500, lots=1).body["order_id"]
        give_up = time.monotonic() + WITHIN_S
        while time.monotonic() < give_up:
            found = service.get(f"/api/v1/orders/{order}").body
            if found["state"] == "FILLED":
                break
            time.sleep(0.5)
        assert (found["state"], found["filled_quantity"]) == ("FILLED", 65)
