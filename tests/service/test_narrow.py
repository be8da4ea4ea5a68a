"""An entry that fills beside an exit that rests: its stop and the exit together never close more than there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection, Purpose
from app.domain.outcome import NotSent, Outcome, Refused, Unknown
from app.domain.risk import Limits
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service import legs, narrow
from app.service.desk import Answer
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
    assert covered(desk) == 3 * LOT


def test_a_new_exit_replaces_the_old_one_and_closes_all(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk, lots=2)
    passes(desk)
    desk.clock.advance(20)
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    passes(desk)
    assert (desk.net(), position_id() in desk.broker.protected) == (0, False)


@pytest.mark.parametrize("said", [Refused("-50", "no"), Unknown("timed out"), NotSent("rate_budget", "none")])
def test_a_person_hears_once_where_the_broker_does_not_take_it(desk: TradingDesk, said: Outcome) -> None:
    leaving = resting_exit(desk)
    beside(desk)
    desk.broker.next_protection = [said] * 5
    events = len(desk.events(leaving))
    passes(desk, 5)
    assert desk.notifier.pages == [PAGE]
    assert len(desk.events(leaving)) == events + 2  # that it is about to, and what it came to
    asked = desk.broker.calls.count("set_protection")
    desk.broker.next_protection.clear()
    passes(desk)
    again = desk.broker.calls.count("set_protection") - asked
    # A refusal is an answer: it is not asked for again until something else is to be covered.
    assert (covered(desk), again) == ((None, 0) if isinstance(said, Refused) else (LOT, 1))
    beside(desk)
    passes(desk)
    assert covered(desk) == 2 * LOT


def test_a_call_that_breaks_does_not_stop_the_pass(desk: TradingDesk) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    resting_exit(desk)
    entry = beside(desk)
    desk.broker.on["set_protection"] = broken
    passes(desk)
    assert Event.PROTECTION_SEEN in desk.events(entry)  # what a pass does after it
    del desk.broker.on["set_protection"]
    passes(desk)
    assert covered(desk) == LOT


def test_what_may_have_arrived_is_put_back_over_all_when_the_exit_ends(desk: TradingDesk) -> None:
    leaving = resting_exit(desk)
    beside(desk, lots=2)
    desk.broker.next_protection = [Unknown("timed out")]
    desk.reconcile()
    desk.broker.protected[position_id()] = (STOP, TARGET, 2 * LOT)  # it had arrived
    desk.broker.cancel(leaving.broker_order_id or "")
    passes(desk)
    assert covered(desk) == 3 * LOT


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


@pytest.mark.parametrize("ends", [False, True])
def test_a_pass_that_ends_after_the_change_makes_it_again(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Also where the exit has ended meanwhile: what it has set is ours, and no hand's."""
    leaving = resting_exit(desk)
    beside(desk)
    with monkeypatch.context() as gone:
        record = narrow._record

        def lost(*given: Any) -> None:
            if given[2] is Event.LEG_RESTORED:
                raise StoreUnavailable("the database is gone")
            record(*given)

        gone.setattr(narrow, "_record", lost)
        with pytest.raises(StoreUnavailable):
            desk.reconcile()
    assert (covered(desk), desk.events(leaving)[-1]) == (LOT, Event.LEG_CHANGING)
    if ends:
        desk.broker.cancel(leaving.broker_order_id or "")
    passes(desk)
    assert (covered(desk), desk.events(leaving)[-1]) == (2 * LOT if ends else LOT, Event.LEG_RESTORED)


@pytest.mark.parametrize("lots", [1, 2])
def test_an_exit_that_fills_between_the_two_reads(desk: TradingDesk, lots: int) -> None:
    leaving = resting_exit(desk)
    beside(desk, lots=lots)
    passes(desk)

    def fills() -> None:
        del desk.broker.on["positions"]
        desk.broker.fill(leaving.broker_order_id or "")

    desk.broker.on["positions"] = fills
    passes(desk)
    assert covered(desk) == desk.net() == lots * LOT
    assert desk.notifier.pages == []


def test_a_book_that_cannot_be_read_again_is_waited_for(desk: TradingDesk) -> None:
    resting_exit(desk)
    beside(desk)
    desk.broker.on["positions"] = lambda: desk.broker.fail.add("order_book")
    entry = next(o for o in desk.store.orders if o.purpose is Purpose.ENTRY)
    passes(desk, 1)
    assert (covered(desk), desk.row(entry).protection) == (None, Protection.SEEN)  # the pass went on
    desk.broker.on.clear()
    desk.broker.fail.clear()
    passes(desk)
    assert covered(desk) == LOT


def test_an_exit_in_doubt_beside_one_that_rests_may_fill_too(desk: TradingDesk) -> None:
    leaving = resting_exit(desk, lots=3, qty=LOT)
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT", qty=LOT).order.status is Status.IN_DOUBT
    desk.clock.advance(1)
    beside(desk, lots=2)
    passes(desk)
    assert covered(desk) == 3 * LOT
    desk.proven_absent(desk.store.orders[-2])
    assert (desk.row(leaving).status, covered(desk)) == (Status.ACCEPTED, 4 * LOT)


def test_the_newer_of_two_part_exits_ends_unfilled(desk: TradingDesk) -> None:
    """What it was about to close is covered at once, and not only when the other has ended."""
    resting_exit(desk, lots=4, qty=LOT)
    desk.broker.fills = False
    newer = desk.alert("EXIT", qty=LOT).order
    assert covered(desk) == 2 * LOT
    desk.clock.advance(1)
    desk.broker.cancel(newer.broker_order_id or "")
    before = desk.broker.calls.count("set_protection")
    passes(desk, 5)
    assert (covered(desk), desk.broker.calls.count("set_protection")) == (3 * LOT, before + 1)


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


@pytest.mark.parametrize("is_narrow", [True, False])
def test_no_stop_is_left_where_a_hand_has_closed_the_rest(desk: TradingDesk, is_narrow: bool) -> None:
    """The exit closes what is left. Only a stop that is ours for certain is taken off; of another a person hears."""
    leaving = resting_exit(desk)
    beside(desk)
    passes(desk, 3 if is_narrow else 0)
    desk.broker.by_hand(TICKER, -LOT)
    passes(desk)
    assert (position_id() in desk.broker.protected, PAGE in desk.notifier.pages) == (
        not is_narrow,
        not is_narrow,
    )
    if is_narrow:  # and should the exit end, it is put back
        desk.broker.cancel(leaving.broker_order_id or "")
        passes(desk)
        assert desk.broker.protected[position_id()][:2] == (STOP, TARGET)


def test_a_stop_over_all_that_a_hand_sets_beside_an_exit_of_all_is_told(desk: TradingDesk) -> None:
    resting_exit(desk)
    by_hand = (Decimal(5), Decimal(0), None)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert (desk.broker.protected[position_id()], desk.notifier.pages) == (by_hand, [PAGE])


def test_a_stop_that_a_hand_has_moved_beside_a_part_exit_is_left_alone(desk: TradingDesk) -> None:
    resting_exit(desk, lots=3, qty=LOT)
    by_hand = (Decimal(5), Decimal(0), 2 * LOT)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert (desk.broker.protected[position_id()], desk.notifier.pages) == (by_hand, [])


def test_an_exit_that_says_late_that_it_took_the_legs_off(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass has recorded the fill of the entry before."""
    after: list[Callable[[], None]] = []
    noted = legs._noted

    def late(*given: Any, **more: Any) -> Answer:
        for one in after:
            one()
        return noted(*given, **more)

    monkeypatch.setattr(legs, "_noted", late)

    def meanwhile() -> None:
        after.clear()
        desk.broker.fills = True
        beside(desk)
        passes(desk)
        desk.clock.advance(20)

    after.append(meanwhile)
    desk.held()
    desk.clock.advance(1)
    after.clear()
    desk.reconcile()
    desk.broker.fills = False
    after.append(meanwhile)
    leaving = desk.alert("EXIT").order
    assert desk.events(leaving)[-1] is Event.LEG_CANCELLED
    passes(desk)
    assert covered(desk) == LOT


def test_a_fill_that_is_recorded_while_the_stop_is_narrowed(desk: TradingDesk) -> None:
    leaving = resting_exit(desk)
    beside(desk)

    def another_fills() -> None:
        del desk.broker.on["set_protection"]
        beside(desk)

    desk.broker.on["set_protection"] = another_fills
    desk.reconcile()
    desk.broker.protected[position_id()] = (STOP, TARGET, None)  # its legs came last
    passes(desk)
    assert covered(desk) == 2 * LOT
    stop_and_exit_fill(desk, leaving)
    assert desk.net() == 0


def test_an_exit_on_the_other_side_closes_nothing_of_it(desk: TradingDesk) -> None:
    """Of a client who is short, beside one who is long: what his exit buys back makes the position larger."""
    desk.held("SELL", client="short")
    desk.clock.advance(1)
    desk.reconcile()
    desk.broker.fills = False
    assert desk.alert("EXIT", client="short").order.status is Status.ACCEPTED
    desk.clock.advance(1)
    desk.broker.fills = True
    beside(desk, lots=3)
    passes(desk)
    assert (desk.net(), covered(desk)) == (2 * LOT, None)


def test_legs_of_an_entry_whose_distances_nobody_knows_are_a_persons(desk: TradingDesk) -> None:
    """One that was adopted from the book."""
    resting_exit(desk)
    entry = beside(desk)
    desk.store.data.orders[entry.id] = replace(desk.row(entry), stop_distance=None, target_distance=None)
    passes(desk)
    assert (covered(desk), desk.notifier.pages) == (None, [PAGE])


def test_an_entry_without_a_stop_brings_none(desk: TradingDesk) -> None:
    """One that was adopted from the book, without a stop: what stands there then is a hand's."""
    resting_exit(desk)
    entry = beside(desk)
    desk.store.data.orders[entry.id] = replace(desk.row(entry), protection=Protection.NONE)
    by_hand = (Decimal(5), Decimal(0), None)
    desk.broker.protected[position_id()] = by_hand
    passes(desk)
    assert (desk.broker.protected[position_id()], desk.notifier.pages) == (by_hand, [PAGE])


def test_an_exit_whose_sender_could_not_say_that_it_took_the_legs_off(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gone:
        gone.setattr("app.service.legs._noted", lambda _, answer, *__, **___: answer)
        leaving = resting_exit(desk)
    assert Event.LEG_CANCELLED not in desk.events(leaving)
    beside(desk)
    passes(desk)
    assert covered(desk) == LOT
