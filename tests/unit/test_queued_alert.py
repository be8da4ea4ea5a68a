"""The sender's patience begins with its first byte: what an alert waited for a thread is gone from its time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.service import observe
from tests.unit.web_desk import WebDesk


@pytest.mark.parametrize(("waited_s", "status", "sent"), [(0.5, 200, 1), (1.6, 503, 0)])
def test_time_in_the_queue_counts(tmp_path: Path, waited_s: float, status: int, sent: int) -> None:
    desk = WebDesk(tmp_path)
    observe.queued(time.monotonic() - waited_s)  # as the worker says it, before the app is called
    answer = desk.webhook(idempotency_key="k")
    assert (answer.status_code, len(desk.sent())) == (status, sent)
    again = desk.webhook(idempotency_key="k")  # the wait was that one request's alone
    assert (again.status_code, len(desk.sent())) == (200, 1)
