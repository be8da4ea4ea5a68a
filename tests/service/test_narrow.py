"""An entry that fills beside an exit that rests: its stop and the exit together never close more than there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection
from app.domain.outcome import Outcome, Refused, Unknown
from app.domain.risk import Limits
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service.position import Place
from app.service.records import BookStatus
from tests.builders import LOT, SCOPE, a_policy
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import TICKER, position_id

STOP, TARGET = Decimal("15.00"), Decimal("25.00")
SIDES = ["BUY", "SELL"]
PAGE = "stop_beside_exit"


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def resting_exit(desk: TradingDesk, side: str = "BUY", lots: int = 1, **part: Any) -> Order:
    """Of what is held; it has not filled."""
    desk.held(side, lots=lots)
    desk.clock.advance(1)
    desk.reconcile()
    desk.broker.fills = False
    leaving = desk.alert("EXIT", **part).order
    assert leaving.status is Status.ACCEPTED
    desk.clock.advance(1)
    desk.broker.fills = True
    return leaving


def beside(desk: TradingDesk, side: str = "BUY", lots: int = 1) -> Order:
    """An entry that fills while the exit rests."""
    entry = desk.held(side, lots=lots)
    desk.clock.advance(1)
    return entry


def covered(desk: TradingDesk) -> int | None:
    stop, target, quantity = desk.broker.protected[position_id()]
    assert (stop, target) == (STOP, TARGET)
    return quantity


def stop_and_exit_fill(desk: TradingDesk, leaving: Order) -> None:
    desk.broker.trigger_stop(position_id())
    desk.broker.fill(desk.row(leaving).broker_order_id or "")


def passes(desk: TradingDesk, number: int = 3) -> None:
    for _ in range(number):
        desk.clock.advance(1)
        desk.reconcile()


@pytest.mark.parametrize("side", SIDES)
def test_the_stop_covers_what_the_exit_will_leave(desk: TradingDesk, side: str) -> None:
    leaving = resting_exit(desk, side)
    beside(desk, side, lots=2)
    passes(desk)
    assert covered(desk) == 2 * LOT
    assert desk.events(leaving).count(Event.LEG_RESTORED) == 1
    stop_and_exit_fill(desk, leaving)
    assert desk.net() == 0
    assert desk.notifier.pages == []


def test_without_a_pass_they_would_open_the_other_side(desk: TradingDesk) -> None:
    """What the pass is for: the broker lets both fill."""
    leaving = resting_exit(desk)
    beside(desk)
    assert covered(desk) is None
    stop_and_exit_fill(desk, leaving)
    assert desk.net() == -LOT


def test_beside_a_part_exit_too(desk: TradingDesk) -> None:
    leaving = resting_exit(desk, lots=3, qty=LOT)
    assert covered(desk) == 2 * LOT
    beside(desk)
    assert covered(desk) is None
    passes(desk)
    assert covered(desk) == 3 * LOT
    stop_and_exit_fill(desk, leaving)
    assert desk.net() == 0


def test_each_fill_that_brings_legs_is_followed(desk: TradingDesk) -> None:
    resting_exit(desk)
    for held in (1, 2, 3):
        beside(desk)
        passes(desk)
        assert covered(desk) == held * LOT


def test_what_has_filled_of_the_exit_is_closed_already(desk: TradingDesk) -> None:
    leaving = resting_exit(desk, lots=2)
    desk.broker.fill_part(leaving.broker_order_id or "", LOT)
    beside(desk)
    passes(desk)
    assert (desk.net(), covered(desk)) == (2 * LOT, LOT)


@pytest.mark.parametrize("end", [BookStatus.CANCELLED, BookStatus.REJECTED])
def test_all_is_covered_again_when_the_exit_ends_unfilled(desk: TradingDesk, end: int) -> None:
    leaving = resting_exit(desk)
    beside(desk, lots=2)
    passes(desk)
    book = desk.broker.book
    book[:] = [replace(r, status=end) if r.broker_order_id == leaving.broker_order_id else r for r in book]
    passes(desk)
    assert covered(desk) in (None, 3 * LOT)


def test_a_new_exit_replaces_the_old_one_and_closes_all(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk, lots=2)
    passes(desk)
    desk.clock.advance(20)
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    passes(desk)
    assert (desk.net(), position_id() in desk.broker.protected) == (0, False)


def test_a_stop_that_a_hand_has_set_beside_the_exit_is_left_alone(desk: TradingDesk) -> None:
    resting_exit(desk)
    by_hand = (Decimal(5), Decimal(0), None)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert desk.broker.protected[position_id()] == by_hand


@pytest.mark.parametrize("said", [Refused("-50", "no"), Unknown("timed out")])
def test_a_person_hears_once_where_the_broker_does_not_take_it(desk: TradingDesk, said: Outcome) -> None:
    leaving = resting_exit(desk)
    beside(desk)
    desk.broker.next_protection = [said]
    passes(desk, 5)
    assert desk.notifier.pages == [PAGE]
    assert desk.events(leaving)[-1] is Event.PROTECTION_SEEN


def test_another_exit_at_it_has_its_time(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk)
    lease = Place(SCOPE, TICKER, desk.held().product).lease
    assert desk.store.take_lock(lease, "another", timedelta(seconds=12), Deadline(desk.clock.monotonic()))
    passes(desk, 1)
    assert covered(desk) is None
    desk.clock.advance(15)
    passes(desk, 1)
    assert covered(desk) == 2 * LOT


def test_an_exit_in_doubt_is_waited_for(desk: TradingDesk) -> None:
    """It may not be there at all: then the entry's stop is right."""
    desk.held()
    desk.clock.advance(1)
    desk.reconcile()
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT").order.status is Status.IN_DOUBT
    desk.clock.advance(1)
    beside(desk)
    passes(desk, 1)
    assert covered(desk) is None


def test_a_pass_that_fails_after_the_change_makes_it_again(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = resting_exit(desk)
    beside(desk)

    def lost(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database is gone")

    with monkeypatch.context() as gone:
        gone.setattr("app.service.narrow.said_of_legs", lost)
        with pytest.raises(StoreUnavailable):
            desk.reconcile()
    assert (covered(desk), desk.events(leaving).count(Event.LEG_RESTORED)) == (LOT, 0)
    passes(desk)
    assert (covered(desk), desk.events(leaving).count(Event.LEG_RESTORED)) == (LOT, 1)


def test_a_stop_that_a_hand_has_taken_off_stays_off(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk)
    desk.broker.protected.clear()
    passes(desk)
    assert desk.broker.protected == {}


def test_what_is_held_in_another_product_is_another_position(desk: TradingDesk) -> None:
    """And what a hand holds there too is not ours."""
    desk.held(product=Product.MARGIN, lots=4)
    desk.broker.by_hand(TICKER, 3 * LOT)
    resting_exit(desk)
    beside(desk, lots=2)
    passes(desk)
    assert covered(desk) == 2 * LOT
    assert desk.broker.protected[f"{TICKER}-MARGIN"][2] is None


def test_nothing_is_left_to_cover_where_a_hand_has_closed_the_rest(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk)
    desk.broker.by_hand(TICKER, -LOT)
    asked = desk.broker.calls.count("set_protection")
    passes(desk)
    assert desk.broker.calls.count("set_protection") == asked


def test_an_entry_without_a_stop_brings_none(desk: TradingDesk) -> None:
    """One that was adopted from the book, without a stop: what stands there then is a hand's."""
    resting_exit(desk)
    entry = beside(desk)
    desk.store.data.orders[entry.id] = replace(desk.row(entry), protection=Protection.NONE)
    by_hand = (Decimal(5), Decimal(0), None)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert desk.broker.protected[position_id()] == by_hand


def test_an_exit_whose_sender_could_not_say_that_it_took_the_legs_off(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gone:
        gone.setattr("app.service.legs._noted", lambda _, answer, *__: answer)
        leaving = resting_exit(desk)
    assert Event.LEG_CANCELLED not in desk.events(leaving)
    beside(desk)
    passes(desk)
    assert covered(desk) == LOT
