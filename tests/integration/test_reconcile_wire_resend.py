"""Exits of less than a chart counts, and between a 503 and its re-send: on the wire, judged by the ledger."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.domain.order import Order, Purpose
from app.domain.status import Status
from app.service import place_order
from app.service.intent import Job, put_sending
from app.service.place_order import PlaceOrder
from app.service.ports import Transaction
from tests.integration.test_postgres_transactions import until
from tests.wire_brokers import UnreachedBroker
from tests.wire_desk import LOT, TICKER, Desks, WireDesk

SOLD_ONCE = [(TICKER, LOT)]
WAITS = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


def test_a_sell_of_the_whole_entry_closes_the_part_that_has_filled(desk: WireDesk) -> None:
    desk.sim.fill_mode = f"partial:{LOT}"
    entry = desk.bought(lots=2)
    desk.pass_on(5)
    assert desk.row(entry).status is Status.PARTIALLY_FILLED
    desk.sim.fill_mode = "instant"
    assert desk.alert("SELL", lots=2).quantity == LOT
    desk.pass_on(5)
    assert (desk.row(entry).status, desk.sold(), desk.net()) == (Status.CANCELLED, SOLD_ONCE, 0)


def test_a_sell_of_the_whole_entry_closes_what_a_hand_has_left_of_it(desk: WireDesk) -> None:
    desk.bought(lots=2)
    desk.pass_on(5)
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY", LOT)
    desk.pass_on(5)
    out = desk.alert("SELL", lots=2)
    assert (out.status, out.quantity, desk.net()) == (Status.ACCEPTED, LOT, 0)
    desk.pass_on(5)
    assert desk.alert("SELL").purpose is Purpose.ENTRY  # nothing is left that it could close


@pytest.mark.usefixtures("contract_caps")
@pytest.mark.parametrize("held", [True, False])
def test_an_entry_that_was_not_sent_is_not_sent_after_an_exit(desk: WireDesk, *, held: bool) -> None:
    if held:
        desk.bought()
    alert = desk.an_alert("BUY", key="in")
    unreached = PlaceOrder(replace(desk.desk, broker=UnreachedBroker(desk.broker)))
    entry = unreached(alert, request_id="r", started=desk.clock.monotonic()).order
    assert entry.status is Status.NOT_SENT
    desk.sim_clock.advance(2)
    out = desk.alert("EXIT")
    assert out.status is (Status.ACCEPTED if held else Status.DENIED)
    desk.sim_clock.advance(3)
    answer = desk.deliver(alert)
    assert (answer.replayed, answer.order.status, answer.order.code) == (
        True,
        Status.DENIED,
        "overtaken_by_exit",
    )
    assert (desk.sends(entry), desk.net(), desk.sold()) == (0, 0, SOLD_ONCE if held else [])
    assert desk.caps("contracts") == (LOT if held else 0)


def test_an_exit_waits_for_an_entry_that_is_just_being_sent_again(
    desks: Desks, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its intent is written and not committed when the exit comes to its row."""
    one, two = (desks.start(url=postgres_url) for _ in range(2))
    one.bought()
    one.pass_on(1)
    alert = one.an_alert("BUY", key="in")
    unreached = PlaceOrder(replace(one.desk, broker=UnreachedBroker(one.broker)))
    assert unreached(alert, request_id="r", started=one.clock.monotonic()).order.status is Status.NOT_SENT
    written, go = threading.Event(), threading.Event()

    def slowly(tx: Transaction, job: Job, order: Order) -> None:
        put_sending(tx, job, order)
        written.set()
        assert go.wait(10)

    monkeypatch.setattr(place_order, "put_sending", slowly)
    with ThreadPoolExecutor(2) as pool, one.store.database.without_limits() as look:
        entry = pool.submit(one.deliver, alert)
        assert written.wait(10)
        leaving = pool.submit(two.alert, "EXIT")
        until(lambda: look.execute(WAITS).scalar_one() > 0)
        go.set()
        entered, out = entry.result(10).order, leaving.result(10)
    assert (entered.status, out.status) == (Status.ACCEPTED, Status.EXIT_PENDING)
    one.pass_on(5)
    assert (one.row(entered).status, one.net()) == (Status.FILLED, 0)
