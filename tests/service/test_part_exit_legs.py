"""A part exit that was accepted and then did not happen: the stop stands over all that is held again, not over the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import Refused
from app.domain.status import Status
from app.service.flatten import KillSwitch
from app.service.records import BookStatus
from tests.builders import LOT, a_policy
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import TICKER, position_id
from tests.service.test_ends_recorded_elsewhere import passes

DISTANCES = (Decimal("15.00"), Decimal("25.00"))
BY_HAND = (Decimal(5), Decimal(0), None)


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def covered(desk: TradingDesk) -> int:
    """How many contracts our stop stands on."""
    stop, target, quantity = desk.broker.protected[position_id()]
    assert (stop, target) == DISTANCES
    return quantity or abs(desk.net())


def ends(desk: TradingDesk, order: Order, status: int = BookStatus.REJECTED, filled: int = 0) -> None:
    at = next(n for n, row in enumerate(desk.broker.book) if row.broker_order_id == order.broker_order_id)
    desk.broker.book[at] = replace(desk.broker.book[at], status=status, filled_quantity=filled)
    place = TICKER, order.product.value
    desk.broker.net[place] += order.side.sign * filled


def leaving(desk: TradingDesk, lots: int = 1, **changes: Any) -> Order:
    """A part exit that the broker has taken, and that rests there."""
    desk.broker.fills = False
    out = desk.alert("EXIT", lots=lots, **changes).order
    assert out.status is Status.ACCEPTED, out
    return out


def of_two_lots(desk: TradingDesk) -> Order:
    desk.held(lots=2)
    desk.reconcile()
    return leaving(desk)


def of_two_clients(desk: TradingDesk) -> Order:
    desk.held(client="a")
    desk.held(client="b")
    desk.reconcile()
    return leaving(desk, client="a")


def cut_to_the_freeze_quantity(desk: TradingDesk) -> Order:
    desk.held(lots=20)
    desk.held(lots=20)
    desk.reconcile()
    return leaving(desk, lots=40)


PARTS = [of_two_lots, of_two_clients, cut_to_the_freeze_quantity]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("status", [BookStatus.REJECTED, BookStatus.CANCELLED])
def test_the_stop_stands_over_all_again(
    desk: TradingDesk, part: Callable[[TradingDesk], Order], status: int
) -> None:
    out = part(desk)
    assert covered(desk) == desk.net() - out.quantity
    ends(desk, out, status)
    before = desk.broker.calls.count("set_protection")
    passes(desk)
    assert covered(desk) == desk.net()
    assert desk.broker.calls.count("set_protection") == before + 1
    about = desk.events(out)
    told = ["exit_cut"] if part is cut_to_the_freeze_quantity else []
    if status == BookStatus.CANCELLED:  # a rejection is told from the audit trail
        assert about.pop() is Event.EXIT_UNFILLED
        told.append("exit_unfilled")
    assert (about[-1], desk.notifier.pages) == (Event.LEG_RESTORED, told)


def test_over_a_stop_that_stands_the_quantity_is_said(desk: TradingDesk) -> None:
    """What a change leaves out may stay as it is, and it was the rest's."""
    ends(desk, of_two_lots(desk))
    desk.reconcile()
    assert desk.broker.protected[position_id()] == (*DISTANCES, 2 * LOT)


def test_of_what_a_hand_holds_beside_it_nothing_is_covered(desk: TradingDesk) -> None:
    desk.broker.by_hand(TICKER, LOT)
    ends(desk, of_two_lots(desk))
    desk.reconcile()
    assert (desk.net(), covered(desk)) == (3 * LOT, 2 * LOT)


def test_what_has_filled_of_it_needs_no_stop_any_more(desk: TradingDesk) -> None:
    desk.held(lots=3)
    desk.reconcile()
    ends(desk, leaving(desk, lots=2), BookStatus.CANCELLED, filled=LOT)
    desk.reconcile()
    assert covered(desk) == desk.net() == 2 * LOT


def test_one_that_fills_leaves_the_stop_over_the_rest_as_it_is(desk: TradingDesk) -> None:
    ends(desk, of_two_lots(desk), BookStatus.FILLED, filled=LOT)
    before = desk.broker.calls.count("set_protection")
    passes(desk)
    assert covered(desk) == desk.net() == LOT
    assert desk.broker.calls.count("set_protection") == before


def test_an_operators_cancel_of_it_brings_the_stop_back_over_all(desk: TradingDesk) -> None:
    out = of_two_lots(desk)
    assert KillSwitch(desk.desk).cancel("cli:me", "stop").cancelled == [out.id]
    passes(desk)
    assert (desk.row(out).status, covered(desk)) == (Status.CANCELLED, 2 * LOT)


def test_it_comes_back_once_the_other_part_exit_has_ended_too(desk: TradingDesk) -> None:
    desk.held(lots=3)
    desk.reconcile()
    one, two = leaving(desk), leaving(desk)
    ends(desk, one)
    passes(desk, minutes=0.5)
    assert covered(desk) == 2 * LOT  # what the one that still rests will leave
    ends(desk, two, BookStatus.FILLED, filled=LOT)
    passes(desk)
    assert covered(desk) == desk.net() == 2 * LOT


def test_an_end_that_was_recorded_before_its_sender_spoke_of_the_legs_counts_too(desk: TradingDesk) -> None:
    """A pass came between the exit's outcome and its words on the legs, which were about the rest."""
    desk.held(lots=2)
    desk.reconcile()

    def refused_in_between(_: int) -> None:
        for order in list(desk.store.data.orders.values()):
            if order.side.value == "SELL" and order.status is Status.ACCEPTED:
                desk.store.before_write = None
                ends(desk, order)
                desk.reconcile()

    desk.store.before_write = refused_in_between
    out = leaving(desk)
    assert desk.events(out)[-3:] == [Event.ORDER_REJECTED, Event.LEG_CANCELLED, Event.LEG_RESTORED]
    passes(desk)
    assert covered(desk) == 2 * LOT


def test_a_stop_that_a_hand_set_where_ours_could_not_be_put_back_is_left_alone(desk: TradingDesk) -> None:
    desk.held(lots=2)
    desk.reconcile()

    def refuse_all_but_the_first() -> None:
        if position_id() not in desk.broker.protected:
            desk.broker.next_protection.append(Refused("-50", "no"))

    desk.broker.on["set_protection"] = refuse_all_but_the_first
    out = leaving(desk)
    del desk.broker.on["set_protection"]
    desk.broker.protected[position_id()] = BY_HAND
    ends(desk, out)
    passes(desk)
    assert desk.broker.protected[position_id()] == BY_HAND
    assert desk.notifier.pages == ["unprotected"]


def test_a_stop_that_a_hand_set_after_a_later_exit_took_ours_off_is_left_alone(desk: TradingDesk) -> None:
    part = of_two_lots(desk)
    desk.clock.advance(1)
    rest = leaving(desk)
    assert position_id() not in desk.broker.protected
    desk.broker.protected[position_id()] = BY_HAND
    ends(desk, part)
    ends(desk, rest)
    passes(desk)
    assert desk.broker.protected[position_id()] == BY_HAND


@pytest.mark.parametrize("lots", [None, 2])
def test_what_a_lagging_list_does_not_show_is_told(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch, lots: int | None
) -> None:
    desk.held(lots=2)
    desk.reconcile()
    (shown,) = desk.broker.positions()
    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "positions", lambda: (replace(shown, net_quantity=LOT),))
        out = desk.alert("EXIT", lots=lots).order
    assert (out.status, out.quantity, desk.net()) == (Status.ACCEPTED, LOT, LOT)
    assert out.warnings[-1] == f"the broker shows {LOT} of the {2 * LOT} held: exit the rest again"
    assert desk.notifier.pages == ["exit_cut"]
    passes(desk, 3)
    assert "protection_missing" in desk.notifier.pages
