"""What a person may decide, and what it does to the row, its caps, its record and the next alert."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Order, Protection
from app.domain.outcome import Unknown
from app.domain.risk import TradingState
from app.domain.status import MOVES, Status
from app.errors import InvalidAlert, NotFound
from app.service.control import BY_HAND, Control, Resolution
from app.service.records import Cap
from tests.builders import LOT, NOW, SCOPE, an_order
from tests.service.desk import TradingDesk

VALUE = Cap("value", "2026-11-18", 10_000, 650, returnable=True)
COUNT = Cap("orders", "2026-11-18", 100, 1, returnable=False)
S = Status
MOVES_BY_HAND = {
    S.IN_DOUBT: {S.ACCEPTED, S.REJECTED, S.NOT_PLACED, S.NEEDS_REVIEW},
    S.NEEDS_REVIEW: {
        S.ACCEPTED,
        S.PARTIALLY_FILLED,
        S.FILLED,
        S.CANCELLED,
        S.EXPIRED,
        S.REJECTED,
        S.NOT_PLACED,
    },
    S.EXIT_PENDING: {S.DENIED},
}
LEGAL = [(before, after) for before, afters in MOVES_BY_HAND.items() for after in sorted(afters)]
ILLEGAL = [(a, b) for a in Status for b in Status if b not in MOVES_BY_HAND.get(a, set())]


def desk_with(status: Status, **changes: Any) -> tuple[TradingDesk, Order]:
    """An order in that state, its caps reserved."""
    desk = TradingDesk()
    order = an_order(contract=desk.contract, status=status, **changes)
    with desk.store.write() as tx:
        assert tx.reserve(SCOPE, order.id, (VALUE, COUNT)) is None
    desk.store.data.orders[order.id] = order
    return desk, order


def resolve(desk: TradingDesk, order: Order, status: Status, **more: Any) -> Order:
    verdict = Resolution(status, "cli:me", "seen in the app", **more)
    return Control(desk.desk).resolve(order.id, verdict)


def used(desk: TradingDesk, cap: Cap = VALUE) -> int:
    return desk.store.data.caps[SCOPE, cap.name, cap.window]


def test_the_moves_by_hand_are_moves_of_the_table() -> None:
    assert set(MOVES_BY_HAND) == BY_HAND
    assert all(afters == MOVES[before] - {S.SENDING} for before, afters in MOVES_BY_HAND.items())


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_a_legal_verdict_moves_the_row_and_says_who_and_why(before: Status, after: Status) -> None:
    desk, order = desk_with(before)
    filled = 5 if after is S.PARTIALLY_FILLED else None
    row = resolve(desk, order, after, filled=filled)
    assert (row.status, row.code, row.reason) == (after, "resolved", "seen in the app (cli:me)")
    assert desk.row(order) == row
    (event,) = desk.store.events(SCOPE, order.id)
    assert (event.event, event.status) == (Event.ORDER_RESOLVED, after)
    assert event.detail["by"] == "cli:me"
    assert event.detail["reason"] == "seen in the app"
    assert event.detail["was"] == before.value


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_an_illegal_verdict_changes_nothing_and_says_what_would_be_allowed(
    before: Status, after: Status
) -> None:
    desk, order = desk_with(before)
    with pytest.raises(InvalidAlert) as caught:
        resolve(desk, order, after)
    (error,) = caught.value.errors
    assert error.field == "status"
    wanted = MOVES_BY_HAND.get(before, set())
    assert all(status in error.message for status in wanted)
    assert wanted or "not settled by hand" in error.message
    assert desk.row(order) == order
    assert desk.store.events(SCOPE, order.id) == ()
    assert used(desk) == VALUE.amount


def test_a_rejection_gives_back_all_that_is_returnable() -> None:
    desk, order = desk_with(S.IN_DOUBT)
    resolve(desk, order, S.REJECTED)
    assert (used(desk), used(desk, COUNT)) == (0, 1)


@pytest.mark.parametrize("ended", [S.CANCELLED, S.EXPIRED])
def test_what_ended_in_part_gives_back_the_unfilled_part(ended: Status) -> None:
    desk, order = desk_with(S.NEEDS_REVIEW)
    row = resolve(desk, order, ended, filled=13, price=Decimal("101.5"))
    assert used(desk) == 650 - 650 * (LOT - 13) // LOT == 130
    assert (row.filled_quantity, row.fill_price, row.filled_at) == (13, Decimal("101.5"), NOW)


@pytest.mark.parametrize("after", [S.NOT_PLACED, S.ACCEPTED, S.NEEDS_REVIEW])
def test_what_may_still_turn_up_stays_counted(after: Status) -> None:
    desk, order = desk_with(S.IN_DOUBT)
    resolve(desk, order, after)
    assert used(desk) == VALUE.amount


def test_a_fill_stays_counted_and_is_held() -> None:
    desk, order = desk_with(S.NEEDS_REVIEW)
    resolve(desk, order, S.FILLED)
    assert used(desk) == VALUE.amount
    with desk.store.read() as tx:
        (held,) = tx.holdings(SCOPE, None)
    assert held.net_quantity == LOT


def test_the_levels_stand_on_the_price_that_the_person_saw() -> None:
    distances = {"stop_distance": Decimal(15), "target_distance": Decimal(25)}
    desk, order = desk_with(S.NEEDS_REVIEW, stop_loss=Decimal(85), take_profit=Decimal(125), **distances)
    row = resolve(desk, order, S.FILLED, price=Decimal(110))
    assert (row.fill_price, row.stop_loss, row.take_profit) == (Decimal(110), Decimal(95), Decimal(135))


@pytest.mark.parametrize(
    ("after", "filled", "price", "field"),
    [
        (S.FILLED, LOT - 1, None, "filled"),
        (S.FILLED, LOT + 1, None, "filled"),
        (S.CANCELLED, LOT + 1, None, "filled"),
        (S.CANCELLED, -1, None, "filled"),
        (S.PARTIALLY_FILLED, None, None, "filled"),
        (S.PARTIALLY_FILLED, LOT, None, "filled"),
        (S.REJECTED, 5, None, "filled"),
        (S.NOT_PLACED, 5, None, "filled"),
        (S.CANCELLED, None, Decimal(100), "price"),
    ],
)
def test_quantities_that_cannot_be(
    after: Status, filled: int | None, price: Decimal | None, field: str
) -> None:
    desk, order = desk_with(S.NEEDS_REVIEW)
    with pytest.raises(InvalidAlert) as caught:
        resolve(desk, order, after, filled=filled, price=price)
    assert [e.field for e in caught.value.errors] == [field]
    assert desk.row(order) == order


def test_what_has_filled_in_part_is_never_called_a_rejection() -> None:
    """Its whole cap would be given back, though some of it trades."""
    desk, order = desk_with(S.NEEDS_REVIEW, filled_quantity=5)
    with pytest.raises(InvalidAlert):
        resolve(desk, order, S.REJECTED)
    assert used(desk) == VALUE.amount


def test_a_verdict_is_given_once() -> None:
    desk, order = desk_with(S.IN_DOUBT)
    resolve(desk, order, S.REJECTED)
    with pytest.raises(InvalidAlert):
        resolve(desk, order, S.NOT_PLACED)
    assert desk.row(order).status is S.REJECTED


@pytest.mark.parametrize("reason", ["", "  x  ", "y" * 501])
def test_a_reason_says_something(reason: str) -> None:
    desk, order = desk_with(S.IN_DOUBT)
    control = Control(desk.desk)
    with pytest.raises(InvalidAlert, match="reason"):
        control.resolve(order.id, Resolution(S.REJECTED, "cli:me", reason))
    with pytest.raises(InvalidAlert, match="reason"):
        control.set_state(TradingState.HALTED, "cli:me", reason)
    assert desk.row(order) == order
    assert desk.store.data.states[SCOPE] is TradingState.ACTIVE


def test_an_unknown_order_is_not_found() -> None:
    desk = TradingDesk()
    with pytest.raises(NotFound):
        Control(desk.desk).resolve("NOSUCH", Resolution(S.REJECTED, "cli:me", "a reason"))


def test_a_waiting_exit_denied_by_hand_is_not_run_later() -> None:
    desk = TradingDesk()
    desk.broker.next_place.append(Unknown("no answer"))
    entry = desk.alert().order
    exit_ = desk.alert("EXIT").order
    assert (entry.status, exit_.status) == (S.IN_DOUBT, S.EXIT_PENDING)
    assert resolve(desk, exit_, S.DENIED).status is S.DENIED
    desk.reconcile()
    assert desk.row(entry).status is S.FILLED
    assert len(desk.sent()) == 1
    assert desk.net() == LOT


def test_in_doubt_are_those_that_somebody_has_to_settle() -> None:
    desk = TradingDesk()
    late, under_way = NOW, NOW.replace(hour=6)
    for number, status in enumerate(Status, 1):
        row = an_order(number, desk.contract, status=status, answer_by=late, created_at=NOW)
        desk.store.data.orders[row.id] = row
    busy = an_order(99, desk.contract, status=S.SENDING, answer_by=under_way, created_at=NOW)
    desk.store.data.orders[busy.id] = busy
    found = Control(desk.desk).in_doubt()
    assert {o.status for o in found} == {S.EXIT_PENDING, S.SENDING, S.IN_DOUBT, S.NEEDS_REVIEW}
    assert busy not in found
    assert len(found) == 4


@pytest.mark.parametrize("shows_stop", [False, True])
def test_yesterdays_entry_that_is_settled_as_filled_is_watched_for_its_stop(*, shows_stop: bool) -> None:
    desk = TradingDesk()
    desk.broker.next_place = [Unknown("lost")]
    entry = desk.alert(product=Product.MARGIN).order
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    if not shows_stop:
        desk.broker.protected.clear()
    desk.reconcile()
    resolve(desk, entry, S.FILLED)
    desk.notifier.pages.clear()
    for _ in range(5):
        desk.clock.advance(5)
        desk.reconcile()
    assert desk.notifier.pages == ([] if shows_stop else ["protection_missing"])
    assert desk.row(entry).protection is (Protection.SEEN if shows_stop else Protection.MISSING)
