"""Legs of a refused exit whose end somebody else has recorded, or a pass that failed right after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection
from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service.position import Place
from app.service.records import AuditEvent, BookStatus, Moved, Position, Quote
from tests.builders import LOT, SCOPE, an_alert
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import TICKER, position_id
from tests.service.test_exit_aftermath import refused_later

LEGS = (Decimal("15.00"), Decimal("25.00"), None)


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def a_sell_of_too_much(desk: TradingDesk) -> tuple[Status, str | None]:
    order = desk.alert("SELL", lots=3).order
    return order.status, order.code


def an_exit_without_budget(desk: TradingDesk) -> tuple[Status, str | None]:
    desk.broker.no_room = NotSent("rate_budget", "the share of a process is too small", 1)
    order = desk.alert("EXIT").order
    desk.broker.no_room = None
    return order.status, order.code


OTHERS = [
    (a_sell_of_too_much, (Status.DENIED, "exceeds_position")),
    (an_exit_without_budget, (Status.NOT_SENT, "rate_budget")),
]


def recorded_elsewhere(desk: TradingDesk, status: int = BookStatus.REJECTED) -> Order:
    """An exit that was refused after it had been accepted, as another alert has found. Its legs are off."""
    leaving = refused_later(desk, status)
    a_sell_of_too_much(desk)
    assert desk.row(leaving).status in (Status.REJECTED, Status.CANCELLED)
    assert position_id() not in desk.broker.protected
    return leaving


def passes(desk: TradingDesk, minutes: float = 2) -> None:
    for _ in range(int(minutes * 12)):
        desk.clock.advance(5)
        desk.reconcile()


def restored(desk: TradingDesk, order: Order) -> tuple[object, int]:
    """The legs that stand on the position, and how often they were put back for this exit."""
    return desk.broker.protected.get(position_id()), desk.events(order).count(Event.LEG_RESTORED)


@pytest.mark.parametrize("status", [BookStatus.REJECTED, BookStatus.CANCELLED])
@pytest.mark.parametrize(("other", "came_to"), OTHERS)
def test_legs_are_put_back_when_another_alert_has_recorded_the_end(
    desk: TradingDesk,
    other: Callable[[TradingDesk], tuple[Status, str | None]],
    came_to: tuple[Status, str],
    status: int,
) -> None:
    leaving = refused_later(desk, status)
    assert other(desk) == came_to
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)
    assert not {"protection_missing", "unprotected"} & set(desk.notifier.pages)


def test_legs_are_put_back_after_a_pass_that_ended_before_it_did(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = refused_later(desk)

    def lost(*_: object) -> bool:
        raise StoreUnavailable("the database is gone")

    with monkeypatch.context() as gone:
        gone.setattr(desk.store, "take_lock", lost)
        with pytest.raises(StoreUnavailable):
            desk.reconcile()
    assert desk.row(leaving).status is Status.REJECTED
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)


def test_legs_are_put_back_once_another_exit_has_left_the_contract(desk: TradingDesk) -> None:
    leaving = refused_later(desk)
    place = Place(SCOPE, TICKER, leaving.product)
    assert desk.store.take_lock(
        place.lease, "another", timedelta(seconds=12), Deadline(desk.clock.monotonic())
    )
    desk.reconcile()
    assert restored(desk, leaving) == (None, 0)
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)


def test_a_sender_that_could_not_say_that_the_legs_are_off_still_gets_them_back(desk: TradingDesk) -> None:
    """Its last writes failed: no event speaks of legs."""
    desk.held()
    desk.reconcile()
    desk.broker.fills = False
    desk.broker.next_place = [Unknown("timed out")]

    def gone_after_the_outcome(_: int) -> None:
        if any(o.status is Status.IN_DOUBT for o in desk.store.orders):
            raise StoreUnavailable("the database is gone")

    desk.store.before_write = gone_after_the_outcome
    leaving = desk.alert("EXIT").order
    desk.store.before_write = None
    assert (leaving.status, Event.LEG_CANCELLED in desk.events(leaving)) == (Status.IN_DOUBT, False)
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    desk.reconcile()  # the dead sender's lease still stands
    assert (desk.row(leaving).status, restored(desk, leaving)) == (Status.REJECTED, (None, 0))
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)


def test_an_exit_that_was_in_doubt_gets_them_back_though_its_sender_called_them_off(
    desk: TradingDesk,
) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.fills = False
    desk.broker.next_place = [Unknown("timed out")]
    leaving = desk.alert("EXIT").order
    assert desk.events(leaving)[-2:] == [Event.LEG_CANCELLED, Event.LEG_UNPROTECTED]
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)


def test_legs_that_were_put_back_and_taken_off_by_hand_stay_off(desk: TradingDesk) -> None:
    leaving = recorded_elsewhere(desk)
    passes(desk)
    desk.broker.protected.clear()
    passes(desk)
    assert restored(desk, leaving) == (None, 1)


def test_legs_that_cannot_be_put_back_are_tried_and_told_once(desk: TradingDesk) -> None:
    leaving = recorded_elsewhere(desk)
    desk.broker.next_protection = [Refused("-50", "no")]
    passes(desk)
    assert restored(desk, leaving) == (None, 0)
    assert desk.events(leaving).count(Event.LEG_UNPROTECTED) == desk.notifier.pages.count("unprotected") == 1


def test_legs_of_an_exit_that_its_own_sender_has_reported_are_not_tried_again(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.next_place = [Refused("-50", "no")]

    def refuse_all_but_the_first() -> None:
        if position_id() not in desk.broker.protected:
            desk.broker.next_protection.append(Refused("-50", "no"))

    desk.broker.on["set_protection"] = refuse_all_but_the_first
    leaving = desk.alert("EXIT").order
    del desk.broker.on["set_protection"]
    assert desk.events(leaving)[-1] is Event.LEG_UNPROTECTED
    passes(desk)
    assert restored(desk, leaving) == (None, 0)


def test_a_stop_that_a_hand_has_set_since_is_left_alone_and_its_end_too(desk: TradingDesk) -> None:
    leaving = recorded_elsewhere(desk)
    by_hand = (Decimal(5), Decimal(0), None)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert restored(desk, leaving) == (by_hand, 0)
    assert desk.events(leaving).count(Event.PROTECTION_SEEN) == 1
    desk.broker.protected.clear()
    passes(desk)
    assert restored(desk, leaving) == (None, 0)


def test_a_list_from_before_the_end_does_not_show_that_a_stop_is_back(desk: TradingDesk) -> None:
    """The exit comes and is refused while the pass has its positions already: it goes by the next ones."""
    desk.held()
    desk.reconcile()
    desk.broker.fills = False
    shown = desk.broker.positions()
    leaving: list[Order] = []

    def read_before_it_came() -> tuple[Position, ...]:
        undone.undo()
        desk.clock.advance(1)
        leaving.append(desk.alert("EXIT").order)
        desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
        a_sell_of_too_much(desk)
        return shown

    desk.clock.advance(60)
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(desk.broker, "positions", read_before_it_came)
        desk.reconcile()
    assert desk.row(leaving[0]).status is Status.REJECTED
    assert restored(desk, leaving[0]) == (None, 0)
    passes(desk)
    assert restored(desk, leaving[0]) == (LEGS, 1)


def test_what_was_closed_and_bought_anew_is_none_of_the_refused_exits_business(desk: TradingDesk) -> None:
    leaving = recorded_elsewhere(desk)
    desk.broker.fills = True
    desk.clock.advance(1)
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    desk.clock.advance(1)
    desk.held()
    desk.broker.protected.clear()  # the new one's own stop does not show
    passes(desk)
    assert (desk.net(), restored(desk, leaving)) == (LOT, (None, 0))


def test_a_newer_exit_has_its_time_and_both_get_the_legs_back_once(desk: TradingDesk) -> None:
    leaving = recorded_elsewhere(desk)
    desk.clock.advance(1)
    newer = desk.alert("EXIT").order
    assert newer.status is Status.ACCEPTED
    passes(desk, minutes=0.5)
    assert restored(desk, leaving) == (None, 0)
    desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    a_sell_of_too_much(desk)
    before = desk.broker.calls.count("set_protection")
    passes(desk)
    assert restored(desk, leaving) == restored(desk, newer) == (LEGS, 1)
    assert desk.broker.calls.count("set_protection") == before + 1


def test_the_distances_are_those_of_what_is_held_and_not_of_an_entry_that_was_refused(
    desk: TradingDesk,
) -> None:
    leaving = recorded_elsewhere(desk)
    desk.broker.prices[TICKER] = Quote(TICKER, Decimal(200), Decimal(199), Decimal(201))
    desk.broker.next_place.append(Refused("margin", "not enough"))
    assert desk.alert().order.status is Status.REJECTED
    passes(desk)
    assert restored(desk, leaving) == (LEGS, 1)


def sent_again(desk: TradingDesk, meanwhile: Callable[[], object]) -> Order:
    """An EXIT that was not sent, an entry of after it, and the EXIT's re-send, which does not fill."""
    out = an_alert("EXIT", key="out", received_at=desk.clock.now())

    def deliver() -> Order:
        return desk.service(out, request_id="r", started=desk.clock.monotonic()).order

    desk.broker.no_room = NotSent("rate_budget", "the share of a process is too small", 1)
    assert deliver().status is Status.NOT_SENT
    desk.broker.no_room = None
    meanwhile()
    desk.clock.advance(2)
    desk.reconcile()
    desk.held()
    desk.reconcile()
    desk.clock.advance(3)
    desk.broker.fills = False
    return deliver()


def test_an_exit_sent_again_leaves_what_was_entered_meanwhile_with_its_stop(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    leaving = sent_again(desk, lambda: desk.broker.trigger_stop(position_id()))
    assert (leaving.status, leaving.code) == (Status.DENIED, "nothing_to_exit")
    passes(desk)
    assert (desk.net(), restored(desk, leaving)) == (LOT, (LEGS, 0))
    assert not {"protection_missing", "unprotected", "lost_alert"} & set(desk.notifier.pages)


@pytest.mark.parametrize("refused", [True, False])
def test_an_exit_sent_again_leaves_the_legs_on_what_was_entered_meanwhile(
    desk: TradingDesk, *, refused: bool
) -> None:
    desk.held()
    desk.reconcile()
    leaving = sent_again(desk, lambda: None)
    assert (leaving.status, leaving.attempt, leaving.quantity) == (Status.ACCEPTED, 2, LOT)
    if refused:
        desk.broker.book[-1] = replace(desk.broker.book[-1], status=BookStatus.REJECTED)
    else:
        desk.broker.fill(leaving.broker_order_id or "")
    passes(desk)
    covered = desk.broker.protected[position_id()]
    assert covered[:2] == LEGS[:2]
    assert (desk.net(), covered[2] in (None, desk.net())) == (2 * LOT if refused else LOT, True)
    assert not {"protection_missing", "unprotected"} & set(desk.notifier.pages)


def test_a_stop_that_was_missed_and_set_by_hand_goes_back_on_after_a_refused_exit(desk: TradingDesk) -> None:
    entry = desk.held()
    desk.reconcile()
    with desk.store.write() as tx:  # as the look of 09:15 marks what is carried
        missed = AuditEvent(Event.PROTECTION_MISSING, tx.now(), entry.status, {})
        tx.record(desk.row(entry), missed, Moved(protection=Protection.MISSING))
    desk.broker.next_place.append(Refused("margin", "not enough"))
    assert desk.alert("EXIT").order.status is Status.REJECTED
    assert desk.broker.protected.get(position_id()) == LEGS
