"""An exit that finds nothing beside an entry of another instance that is just being committed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic

import pytest
from sqlalchemy import text

from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.status import Status
from app.errors import OutOfTime
from app.service import place_order
from app.service.desk import Desk
from app.service.place_order import PlaceOrder
from app.service.ports import Transaction
from app.service.send import Slot, take_slot
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import NOW, an_alert
from tests.integration.test_caps_race import Instances, Still

WITHIN_S = 20
WAITS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


class Later(Still):
    """Of an exit that is received after the entry."""

    def now(self) -> datetime:
        return NOW + timedelta(seconds=1)


def place(desk: Desk, action: str) -> Order:
    alert = an_alert(action, f"the {action}", received_at=desk.clock.now())
    return PlaceOrder(desk)(alert, request_id="r", started=monotonic()).order


def test_the_exit_waits_for_it_and_says_no_only_where_none_has_come(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Instances(postgres_url, Limits(max_lots=2))
    later = SqlStore(Database(postgres_url, Later()), Later())
    exits = replace(two.desks[1], store=later, clock=Later())
    looked, goes_on = threading.Event(), threading.Event()

    def held_up(desk: Desk, tx: Transaction) -> Slot | None:
        """It has seen no exit, and is not committed yet."""
        looked.set()
        assert goes_on.wait(WITHIN_S)
        return take_slot(desk, tx)

    monkeypatch.setattr(place_order, "take_slot", held_up)
    try:
        with ThreadPoolExecutor(2) as pool, later.database.without_limits() as look:
            entry = pool.submit(place, two.desks[0], "BUY")
            assert looked.wait(WITHIN_S)
            out = pool.submit(place, exits, "EXIT")
            while not out.done() and not look.execute(WAITS).scalar_one():
                threading.Event().wait(0.005)
            goes_on.set()
            with pytest.raises(OutOfTime):  # 503: it comes again
                out.result(WITHIN_S)
            assert entry.result(WITHIN_S).status is Status.ACCEPTED
    finally:
        goes_on.set()
        later.close()
        two.close()
