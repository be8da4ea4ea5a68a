"""Exits that have to wait for something to be settled: on the wire, judged by the ledger."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from app.domain.audit import Event
from app.domain.order import Order
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed
from app.service.control import Control
from app.service.pending import run_pending
from app.service.reconcile import Reconcile
from tests.wire_brokers import UnreachedBroker
from tests.wire_desk import LOT, SOON_S, TICKER, Desks, WireDesk

LEGS = "PATCH /positions"
CANCEL = "DELETE /orders/sync"
SOLD_ONCE = [(TICKER, LOT)]


def waiting_exit(desk: WireDesk, fault: str = "reset_created") -> tuple[Order, Order]:
    """An entry in doubt and the EXIT that has to wait for it."""
    entry = desk.in_doubt(fault)
    out = desk.alert("EXIT", key="out")
    assert (out.status, desk.sold()) == (Status.EXIT_PENDING, [])
    return entry, out


def pages(desk: WireDesk, word: str) -> int:
    return desk.notifier.pages.count(word)


def test_a_waiting_exit_sells_what_the_entry_turns_out_to_have_bought(desk: WireDesk) -> None:
    entry, out = waiting_exit(desk)
    alert = desk.an_alert("EXIT", key="out")
    assert desk.deliver(alert).order.status is Status.EXIT_PENDING
    desk.pass_on(1)
    assert (desk.row(entry).status, desk.row(out).status) == (Status.FILLED, Status.ACCEPTED)
    assert desk.sold() == SOLD_ONCE
    for _ in range(3):
        desk.pass_on(5)
        assert desk.deliver(alert).order.id == out.id
    assert desk.row(out).status is Status.FILLED
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


def test_only_the_filled_part_is_sold_and_the_rest_cannot_fill_behind_it(desk: WireDesk) -> None:
    desk.sim.fill_mode = f"partial:{LOT}"
    entry = desk.in_doubt(lots=2)
    out = desk.alert("EXIT")
    assert (out.status, out.quantity) == (Status.EXIT_PENDING, 2 * LOT)
    desk.pass_on(1)
    desk.sim.fill_mode = "instant"
    desk.sim.match()
    desk.pass_on(5)
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)
    assert (desk.row(entry).status, desk.row(entry).filled_quantity) == (Status.CANCELLED, LOT)
    assert (desk.row(out).status, desk.row(out).quantity) == (Status.FILLED, LOT)


def test_nothing_is_sold_when_the_entry_was_never_placed(desk: WireDesk) -> None:
    entry, out = waiting_exit(desk, "reset")
    for _ in range(20):
        desk.pass_on(10, witness=True)
    assert desk.row(entry).status is Status.NOT_PLACED
    assert (desk.row(out).status, desk.row(out).code) == (Status.DENIED, "nothing_to_exit")
    assert desk.sold() == []


@pytest.mark.parametrize("fault", ["reset", "reset_created", "html_502_created"])
def test_a_leg_cancel_in_doubt_keeps_the_exit_back_and_pages(desk: WireDesk, fault: str) -> None:
    desk.bought()
    desk.pass_on(1)
    desk.sim.faults.next(LEGS, fault)
    out = desk.alert("EXIT")
    assert (out.status, desk.sold()) == (Status.EXIT_PENDING, [])
    assert pages(desk, "exit_waits_for_legs") == 1
    desk.pass_on(1)
    desk.pass_on(1)
    assert desk.row(out).status is Status.FILLED
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


def test_legs_that_stay_in_doubt_page_once_and_the_exit_goes_on_waiting(desk: WireDesk) -> None:
    desk.bought()
    desk.pass_on(1)
    desk.sim.faults.set(LEGS, "reset")
    out = desk.alert("EXIT")
    for _ in range(4):
        desk.pass_on(20)
        assert (desk.row(out).status, desk.sold()) == (Status.EXIT_PENDING, [])
    assert pages(desk, "exit_waits_for_legs") == 1
    desk.sim.faults.clear()
    desk.pass_on(1)
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


def test_a_stop_that_filled_while_the_exit_waited_leaves_nothing_to_sell(desk: WireDesk) -> None:
    desk.bought()
    desk.pass_on(1)
    desk.sim.faults.next(LEGS, "reset")
    out = desk.alert("EXIT")
    desk.sim.trigger_stop(f"{TICKER}-INTRADAY")
    desk.pass_on(1)
    assert (desk.row(out).status, desk.row(out).code) == (Status.DENIED, "nothing_to_exit")
    assert (desk.sold(), desk.net()) == ([], 0)


def test_a_halt_keeps_a_waiting_exit_until_a_person_resumes(desk: WireDesk) -> None:
    entry, out = waiting_exit(desk)
    control = Control(desk.desk)
    control.set_state(TradingState.HALTED, "operator", "test")
    desk.pass_on(1)
    desk.pass_on(60)
    assert (desk.row(entry).status, desk.row(out).status) == (Status.FILLED, Status.EXIT_PENDING)
    assert desk.sold() == []
    control.set_state(TradingState.REDUCING, "operator", "out, and nothing else")
    desk.pass_on(1)
    assert desk.sold() == SOLD_ONCE


@pytest.mark.parametrize("endpoint", ["GET /orders", "GET /positions"])
def test_a_failed_read_keeps_a_waiting_exit(desk: WireDesk, endpoint: str) -> None:
    _, out = waiting_exit(desk)
    desk.sim.faults.set(endpoint, "http_500")
    with pytest.raises(BrokerReadFailed):
        desk.pass_on(1)
    run_pending(desk.desk)
    assert (desk.row(out).status, desk.sold()) == (Status.EXIT_PENDING, [])
    desk.sim.faults.clear()
    desk.pass_on(1)
    assert desk.sold() == SOLD_ONCE


def test_a_waiting_exit_that_could_not_be_sent_waits_on_and_is_no_lost_alert(desk: WireDesk) -> None:
    _, out = waiting_exit(desk)
    unreached = replace(desk.desk, broker=UnreachedBroker(desk.broker))
    Reconcile(unreached)()
    assert (desk.row(out).status, desk.sold()) == (Status.EXIT_PENDING, [])
    desk.sim.advance(300)
    Reconcile(unreached)()
    assert pages(desk, "lost_alert") == 0
    desk.pass_on(1)
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


@pytest.mark.parametrize("fault", ["reset_created", "late_reset", "hang_created"])
def test_an_exit_in_doubt_is_never_doubled(desks: Desks, fault: str) -> None:
    desk = desks.start(read_timeout_s=SOON_S)
    desk.pass_on()
    _, out = waiting_exit(desk)
    desk.sim.faults.next_order(fault, appear_after=20 if fault == "late_reset" else None)
    desk.pass_on(1)
    assert desk.row(out).status is Status.IN_DOUBT
    again = desk.alert("EXIT", key="again")
    assert again.status is (Status.EXIT_PENDING if fault == "late_reset" else Status.DENIED)
    for _ in range(6):
        desk.pass_on(10, witness=True)
    assert desk.row(out).status is Status.FILLED
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)
    assert (desk.row(again).status, desk.row(again).code) == (Status.DENIED, "nothing_to_exit")


def test_an_exit_that_never_arrived_is_no_order_and_the_waiting_one_behind_it_sells(desk: WireDesk) -> None:
    _, out = waiting_exit(desk)
    desk.sim.faults.next_order("reset")
    desk.pass_on(1)
    again = desk.alert("EXIT", key="again")
    assert again.status is Status.EXIT_PENDING
    for _ in range(20):
        desk.pass_on(10, witness=True)
    assert desk.row(out).status is Status.NOT_PLACED
    assert desk.row(again).status is Status.FILLED
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


def test_two_instances_at_once_sell_once(database_url: str, desks: Desks) -> None:
    one, two = (desks.start(url=database_url) for _ in range(2))
    one.pass_on()
    two.pass_on()
    for n in range(5):
        entry = one.in_doubt(strike=24000 + 50 * n)
        out = one.alert("EXIT", strike=24000 + 50 * n)
        assert out.status is Status.EXIT_PENDING
        start = threading.Barrier(2)
        problems: list[str] = []

        def run(desk: WireDesk, start: threading.Barrier = start, problems: list[str] = problems) -> None:
            start.wait()
            try:
                desk.reconcile()
            except Exception as error:  # noqa: BLE001 - a thread's failure has to fail the test
                problems.append(repr(error))

        threads = [threading.Thread(target=run, args=(desk,)) for desk in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        one.pass_on(1)
        one.pass_on(1)
        assert one.row(out).status is Status.FILLED
        assert one.sold().count((entry.ticker, LOT)) == 1
        assert one.net(entry.ticker) == 0


def test_legs_are_back_on_when_another_alert_has_recorded_the_refusal(desk: WireDesk) -> None:
    """The broker's risk desk refuses after it has accepted, and the next look in that contract is not a pass's."""
    desk.bought()
    desk.pass_on(1)
    before = legs(desk)
    desk.sim.fill_mode = "rest"
    out = desk.alert("EXIT")
    assert (out.status, legs(desk)) == (Status.ACCEPTED, (0, 0))
    desk.sim.reject(out.broker_order_id or "", "RED:Margin Shortfall")
    assert desk.alert("SELL", lots=3).code == "exceeds_position"
    assert desk.row(out).status is Status.REJECTED
    for _ in range(24):
        desk.pass_on(5)
    assert (desk.net(), legs(desk), desk.events(out).count(Event.LEG_RESTORED)) == (LOT, before, 1)
    assert pages(desk, "protection_missing") == 0


def legs(desk: WireDesk) -> tuple[object, object]:
    row = next(p for p in desk.sim.positions() if p["id"] == f"{TICKER}-INTRADAY")
    return row["stopLoss"], row["takeProfit"]
