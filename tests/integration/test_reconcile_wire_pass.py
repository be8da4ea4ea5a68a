"""One pass of the reconciliation: who may write, how often the broker is asked, and what ends it. On the wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.status import Status
from app.errors import OutOfTime, ServiceError
from app.service.reconcile import Reconcile
from tests.wire_desk import Desks, WireDesk, seconds_to

NAME = "reconcile"
BEFORE_MIDNIGHT = datetime(2026, 9, 9, 18, 29, 50, tzinfo=UTC)


class WhileReading:
    """Something happens while a pass reads the positions, after the book."""

    name = "reading"

    def __init__(self, broker: Any, happens: Any) -> None:
        self._broker, self._happens = broker, happens

    def ready(self) -> str | None:
        return None

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[Any]:
        with self._broker.exchange(deadline) as exchanger:
            self._exchanger = exchanger
            yield self

    def positions(self) -> Any:
        self._happens()
        return self._exchanger.positions()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchanger, name)


def take(desk: WireDesk, owner: str) -> None:
    now = Deadline(desk.clock.monotonic() + 1)
    assert desk.store.take_lock(NAME, owner, timedelta(seconds=10), now)


def test_who_has_lost_the_lease_writes_nothing_any_more(desk: WireDesk) -> None:
    """Paused past its lease while another instance took over: what it read is old."""
    order = desk.in_doubt()
    take(desk, "one")

    def paused() -> None:
        desk.sim.advance(11)
        take(desk, "two")

    slow = replace(desk.desk, broker=WhileReading(desk.broker, paused))
    with pytest.raises(OutOfTime):
        Reconcile(slow, lease=(NAME, "one"))()
    assert desk.row(order).status is Status.IN_DOUBT
    Reconcile(desk.desk, lease=(NAME, "two"))()
    assert desk.row(order).status is Status.FILLED


def test_a_pass_that_midnight_interrupts_concludes_nothing(desks: Desks) -> None:
    """Its book may be the old day's or the new one's, and nobody can say which."""
    desk = desks.start()
    desk.sim.advance(seconds_to(desks.clock, BEFORE_MIDNIGHT))
    desk.pass_on()
    order = desk.in_doubt()
    late = replace(desk.desk, broker=WhileReading(desk.broker, lambda: desk.sim.advance(20)))
    with pytest.raises(OutOfTime):
        Reconcile(late)()
    assert desk.row(order).status is Status.IN_DOUBT
    desk.pass_on(61)
    assert desk.row(order).status is Status.NEEDS_REVIEW


def test_the_broker_is_asked_only_while_something_waits_or_once_a_minute(desk: WireDesk) -> None:
    def asked() -> int:
        return desk.sim.ledger.counts.get("GET /orders", 0)

    before = asked()
    for _ in range(11):
        desk.pass_on(5)
    assert asked() == before
    desk.pass_on(5)
    assert asked() == before + 1
    desk.sim.fill_mode = "rest"
    order = desk.bought()
    for _ in range(5):
        desk.pass_on(5)
    assert asked() == before + 6
    desk.sim.fill(order.broker_order_id or "")
    desk.pass_on(5)
    assert desk.row(order).status is Status.FILLED


@pytest.mark.parametrize("fault", ["reset", "reset_created"])
def test_instances_at_the_same_doubt_settle_it_once(desks: Desks, database_url: str, fault: str) -> None:
    instances = [desks.start(url=database_url) for _ in range(3)]
    one = instances[0]
    for desk in instances:
        desk.pass_on()
    orders = [one.in_doubt(fault, strike=24000 + 50 * n) for n in range(4)]
    problems: list[str] = []

    def run(desk: WireDesk) -> None:
        try:
            desk.reconcile()
        except ServiceError as error:
            problems.append(error.code)

    for _ in range(9):
        one.sim.advance(20)
        one.witness()
        threads = [threading.Thread(target=run, args=(desk,)) for desk in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    verdict = Event.ORDER_NOT_PLACED if fault == "reset" else Event.ORDER_FILLED
    for order in orders:
        assert one.events(order).count(verdict) == 1
        assert one.row(order).status is (Status.NOT_PLACED if fault == "reset" else Status.FILLED)
    assert len(one.sim.ledger.orders()) == len(orders)
    assert problems == []


def test_a_waiting_exit_is_not_run_twice_by_a_slow_pass(desk: WireDesk, desks: Desks) -> None:
    """The first pass stands still in the exit's own reads; another sells meanwhile; the first must see it."""
    desk.in_doubt()
    out = desk.alert("EXIT")
    assert out.status is Status.EXIT_PENDING
    peer = desks.start()
    done: list[bool] = []

    def meanwhile() -> None:
        if not done:
            done.append(True)
            desk.sim.advance(11)  # past the exit's lease too
            peer.pass_on()

    slow = replace(desk.desk, broker=WhileReading(desk.broker, meanwhile))
    Reconcile(slow)()
    desk.pass_on(1)
    assert desk.row(out).status is Status.FILLED
    assert (len(desk.sold()), desk.net()) == (1, 0)
