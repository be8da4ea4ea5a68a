"""An exit that finds nothing beside an entry of another instance that is just being committed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.status import Status
from app.errors import OutOfTime
from app.service import place_order
from app.service.desk import Answer, Desk
from app.service.intent import claim
from app.service.place_order import PlaceOrder
from app.service.ports import Transaction
from app.service.send import Slot, take_slot
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import NOW, an_alert
from tests.integration.test_caps_race import Instances, Still

WITHIN_S = 20
WAITS = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


class Later(Still):
    """Of an exit that is received after the entry."""

    def now(self) -> datetime:
        return NOW + timedelta(seconds=1)


def place(desk: Desk, action: str) -> Order:
    alert = an_alert(action, f"the {action}", received_at=desk.clock.now())
    return PlaceOrder(desk)(alert, request_id="r", started=monotonic()).order


@pytest.fixture
def two(postgres_url: str) -> Iterator[Instances]:
    made = Instances(postgres_url, Limits(max_lots=2))
    yield made
    made.close()


@pytest.fixture
def exits(two: Instances) -> Iterator[Desk]:
    """Another instance, which receives an exit after the entry."""
    store = SqlStore(Database(two.url, Later()), Later())
    yield replace(two.desks[1], store=store, clock=Later())
    store.close()


class HeldUp:
    """An entry in its transaction, until the exit waits for it."""

    def __init__(self) -> None:
        self.there, self.goes_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.there.set()
        assert self.goes_on.wait(WITHIN_S)

    def both(self, two: Instances, exits: Desk) -> Order:
        """The entry, as it was answered. The exit is to be told to come again."""
        with ThreadPoolExecutor(2) as pool, two.stores[2].database.without_limits() as look:
            try:
                entry = pool.submit(place, two.desks[0], "BUY")
                assert self.there.wait(WITHIN_S)
                out = pool.submit(place, exits, "EXIT")
                while not out.done() and not look.execute(WAITS).scalar_one():
                    threading.Event().wait(0.005)
            finally:
                self.goes_on.set()
            with pytest.raises(OutOfTime):
                out.result(WITHIN_S)
            return entry.result(WITHIN_S)


def test_the_exit_waits_for_it_and_says_no_only_where_none_has_come(
    two: Instances, exits: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = HeldUp()

    def seen_no_exit(desk: Desk, tx: Transaction) -> Slot | None:
        held_up()
        return take_slot(desk, tx)

    monkeypatch.setattr(place_order, "take_slot", seen_no_exit)
    assert held_up.both(two, exits).status is Status.ACCEPTED


def test_the_exit_and_an_entry_that_is_sent_again_do_not_wait_for_one_another(
    two: Instances, exits: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.broker.numbers = count(7)  # the one that is not sent
    assert place(two.desks[0], "BUY").status is Status.NOT_SENT
    held_up = HeldUp()

    def has_its_row(*about: Any) -> Answer | None:
        answer = claim(*about)
        held_up()
        return answer

    monkeypatch.setattr(place_order, "claim", has_its_row)
    assert held_up.both(two, exits).status is Status.ACCEPTED
