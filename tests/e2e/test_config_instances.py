"""A limit changed by the API of one of three running services: in force on all of them within a second, and rolled back."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Answer, Service

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.quiet]
WITHIN_S = 1.0
EACH = 8
"""Alerts to one service: it has two workers, and each must have heard."""
FREE = {
    "RISK_MAX_ORDERS_PER_MINUTE": "",
    "RISK_MAX_ORDERS_PER_HOUR": "",
    "RISK_MAX_OPEN_LOTS": "",
    "RISK_RUNAWAY": "",
    "WEBHOOK_MAX_QTY": "2",
}


@pytest.fixture
def three(tmp_path: Path, postgres_url: str) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        made = []
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            made.append(stack.enter_context(Service(tmp_path / name, {"DATABASE_URL": postgres_url, **FREE})))
        yield made


def ask(service: Service, method: str, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {service.admin}"}
    answer = service.request(method, path, json.dumps(body).encode(), headers)
    assert answer.status == 200, answer.body
    return answer.body


def test_a_cap_set_by_the_api_of_one_is_in_force_on_all_within_a_second(three: list[Service]) -> None:
    numbers = itertools.count()

    def two_lots(service: Service) -> Answer:
        return service.alert(strikeprice=24500, lots=2, idempotency_key=f"k{next(numbers)}")

    def everywhere() -> list[object]:
        """What two lots come to, at every worker of every service: 200, or the code of the denial."""
        with ThreadPoolExecutor(len(three) * 2) as pool:
            said = list(pool.map(two_lots, three * EACH))
        return sorted({a.body["code"] if a.status == 422 else a.status for a in said}, key=str)

    assert everywhere() == [200]
    ask(three[0], "PUT", "/api/v1/config", {"settings": {"WEBHOOK_MAX_QTY": 1}, "reason": "a calm day"})
    time.sleep(WITHIN_S)
    assert everywhere() == ["max_lots"]

    (kept,) = three[2].get("/api/v1/config/history").body["versions"]
    assert (kept["version"], kept["by"], kept["reason"]) == (1, "api:admin", "a calm day")
    assert [(c["name"], c["old"], c["new"]) for c in kept["changes"]] == [("WEBHOOK_MAX_QTY", "2", "1")]

    ask(three[1], "POST", "/api/v1/config/rollback", {"version": 0, "reason": "as it was"})
    time.sleep(WITHIN_S)
    assert everywhere() == [200]
