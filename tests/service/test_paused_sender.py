"""A sender that is paused while a pass calls its order in doubt, and goes on."""

from __future__ import annotations

import pytest

from app.domain.order import Order, Ticket
from app.domain.outcome import Unknown
from app.domain.status import Status
from tests.service.desk import TradingDesk

PAUSE_S = 4


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def test_a_sender_paused_before_its_last_look_is_the_proof_that_nothing_went_out(
    desk: TradingDesk,
) -> None:
    """A pass has called its order in doubt meanwhile, and the client's EXIT waits behind it."""
    waiting: list[Order] = []

    def paused() -> None:
        desk.broker.on.clear()
        desk.clock.advance(PAUSE_S)
        desk.reconcile()
        waiting.append(desk.alert("EXIT").order)

    desk.broker.on["place"] = paused
    order = desk.alert().order
    assert (order.status, desk.row(order).status) == (Status.NOT_PLACED, Status.NOT_PLACED)
    assert (waiting[0].status, desk.broker.ledger) == (Status.EXIT_PENDING, [])
    desk.reconcile()
    assert (desk.row(waiting[0]).status, desk.row(waiting[0]).code) == (Status.DENIED, "nothing_to_exit")


def test_a_sender_paused_in_its_write_proves_nothing(desk: TradingDesk) -> None:
    take = desk.broker.take

    def paused(ticket: Ticket) -> str:
        desk.clock.advance(PAUSE_S)
        desk.reconcile()
        return take(ticket)

    desk.broker.take = paused  # type: ignore[method-assign]
    desk.broker.next_place = [Unknown("reset")]
    order = desk.alert().order
    assert (order.status, desk.row(order).status) == (Status.IN_DOUBT, Status.IN_DOUBT)
    desk.reconcile()
    assert desk.row(order).broker_order_id == desk.broker.book[-1].broker_order_id
