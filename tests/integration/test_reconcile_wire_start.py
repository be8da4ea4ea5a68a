"""An alert that was not sent, and a service that has just started: on the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.alert import Alert
from app.domain.order import Order
from app.domain.status import Status
from app.errors import BrokerReadFailed, NotReconciled
from app.service.place_order import PlaceOrder
from tests.wire_brokers import UnreachedBroker
from tests.wire_desk import TICKER, Desks, WireDesk

pytestmark = pytest.mark.usefixtures("contract_caps")


def not_sent(desk: WireDesk) -> tuple[Alert, Order]:
    alert = desk.an_alert(key="the alert")
    unreached = PlaceOrder(replace(desk.desk, broker=UnreachedBroker(desk.broker)))
    order = unreached(alert, request_id="r", started=desk.clock.monotonic()).order
    assert (order.status, desk.sim.ledger.orders()) == (Status.NOT_SENT, [])
    desk.assert_caps()
    return alert, order


def test_a_re_send_within_a_minute_takes_the_same_row(desk: WireDesk) -> None:
    alert, order = not_sent(desk)
    desk.pass_on(59)
    assert desk.row(order).status is Status.NOT_SENT
    again = desk.deliver(alert).order
    assert (again.id, again.tag, again.attempt) == (order.id, order.tag, 2)
    desk.pass_on(1)
    assert desk.row(order).status is Status.FILLED
    desk.pass_on(120)
    assert (len(desk.sim.ledger.orders()), desk.notifier.pages) == (1, [])
    assert desk.deliver(alert).replayed
    desk.assert_caps()


def test_three_re_sends_that_are_not_sent_either_end_as_one_lost_alert(desk: WireDesk) -> None:
    alert, order = not_sent(desk)
    unreached = PlaceOrder(replace(desk.desk, broker=UnreachedBroker(desk.broker)))
    for _ in range(3):
        desk.pass_on(5)
        unreached(alert, request_id="r", started=desk.clock.monotonic())
    assert (desk.row(order).status, desk.row(order).attempt) == (Status.NOT_SENT, 4)
    desk.pass_on(59)
    assert desk.row(order).status is Status.NOT_SENT
    for _ in range(3):
        desk.pass_on(1)
        assert desk.row(order).status is Status.EXPIRED
    assert desk.notifier.pages == ["lost_alert"]
    assert desk.sim.ledger.orders() == []
    desk.assert_caps()


def test_a_re_send_after_the_minute_places_nothing(desk: WireDesk) -> None:
    alert, order = not_sent(desk)
    desk.pass_on(60)
    assert (desk.row(order).status, desk.notifier.pages) == (Status.EXPIRED, ["lost_alert"])
    answer = desk.deliver(alert)
    assert (answer.replayed, answer.order.status, answer.order.broker_order_id) == (
        True,
        Status.EXPIRED,
        None,
    )
    desk.pass_on(1)
    assert (desk.sim.ledger.orders(), desk.net(TICKER)) == ([], 0)
    desk.assert_caps()


# --- the first pass ---------------------------------------------------------------------------------------------


def test_entries_wait_for_a_pass_that_began_after_the_start(desks: Desks) -> None:
    peer = desks.start()
    peer.pass_on()
    desks.clock.advance(30)
    desk = desks.start(first_pass=True)
    alert = desk.an_alert(key="early")
    with pytest.raises(NotReconciled):
        desk.deliver(alert)
    desks.clock.advance(5)
    with pytest.raises(NotReconciled):
        desk.deliver(alert)
    assert desk.rows() == ()
    desk.pass_on()
    assert desk.deliver(alert).order.status is Status.ACCEPTED
    assert len(desk.sim.ledger.orders()) == 1


def test_a_peers_pass_after_the_start_is_enough(desks: Desks) -> None:
    peer, desk = desks.start(), desks.start(first_pass=True)
    desks.clock.advance(2)
    with pytest.raises(NotReconciled):
        desk.alert()
    peer.pass_on(1)
    assert desk.alert().status is Status.ACCEPTED


def test_a_failed_pass_opens_nothing(desks: Desks) -> None:
    desk = desks.start(first_pass=True)
    desk.sim.faults.set("GET /positions", "http_500")
    for _ in range(3):
        with pytest.raises(BrokerReadFailed):
            desk.pass_on(1)
        with pytest.raises(NotReconciled):
            desk.alert()
    desk.sim.faults.clear()
    desk.pass_on(1)
    assert desk.alert().status is Status.ACCEPTED


def test_an_exit_of_what_our_rows_hold_does_not_wait(desks: Desks) -> None:
    """What is held is read anew for every exit; only "nothing to exit" may be untrue before the first pass."""
    before = desks.start()
    before.pass_on()
    before.bought()
    before.pass_on(1)
    desks.clock.advance(10)
    desk = desks.start(first_pass=True)
    with pytest.raises(NotReconciled):
        desk.alert("EXIT", strike=24700)
    assert desk.alert("EXIT").status is Status.ACCEPTED
    assert desk.net() == 0


def test_a_dead_process_leaves_its_order_to_the_next_start(desks: Desks) -> None:
    """The row stays SENDING; the first pass of the next process makes a doubt of it and finds it in the book."""
    dead = desks.start()
    dead.pass_on()
    order = dead.bought()
    with dead.store.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE orders SET status = 'SENDING', broker_order_id = NULL, sent_at = NULL"
        )
    desks.clock.advance(10)
    desk = desks.start(first_pass=True)
    desk.pass_on()
    assert desk.row(order).status is Status.FILLED
    assert len(desk.sim.ledger.orders()) == 1
