"""An exit that leaves open what it was to close is told to somebody, whoever ended it and however."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.alert import Product
from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import Outcome, Unknown
from app.domain.status import Status
from app.service.flatten import KillSwitch
from app.service.records import BookStatus
from tests.builders import LOT, a_policy
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=60)))


def passes(desk: TradingDesk, times: int = 12) -> list[str]:
    """The pages of them."""
    before = len(desk.notifier.pages)
    for _ in range(times):
        desk.clock.advance(5)
        desk.reconcile()
    return desk.notifier.pages[before:]


def leaving(desk: TradingDesk) -> Order:
    desk.held(lots=2)
    desk.reconcile()
    desk.broker.fills = False
    return desk.alert("EXIT").order


def end(desk: TradingDesk, order: Order, status: int, filled: int = 0) -> None:
    at = next(n for n, row in enumerate(desk.broker.book) if row.tag == order.tag)
    row = replace(desk.broker.book[at], status=status, filled_quantity=filled)
    desk.broker.book[at] = row
    desk.broker.net[desk.contract.ticker, "INTRADAY"] -= filled


@pytest.mark.parametrize("status", [BookStatus.CANCELLED, BookStatus.EXPIRED])
@pytest.mark.parametrize("filled", [0, LOT])
def test_one_that_the_exchange_ends_pages_once(desk: TradingDesk, status: int, filled: int) -> None:
    order = leaving(desk)
    end(desk, order, status, filled)
    assert passes(desk) == ["exit_unfilled"]
    assert f"with {filled} of {2 * LOT} filled" in desk.notifier.messages[-1]


def test_one_that_waited_long_before_pages_for_both(desk: TradingDesk) -> None:
    order = leaving(desk)
    assert passes(desk) == ["exit_unfilled"]
    end(desk, order, BookStatus.CANCELLED)
    assert passes(desk) == ["exit_unfilled"]


def test_one_with_nothing_left_to_close_is_no_news(desk: TradingDesk) -> None:
    order = leaving(desk)
    end(desk, order, BookStatus.CANCELLED)
    desk.broker.by_hand(desk.contract.ticker, -2 * LOT)
    assert passes(desk) == []


@pytest.mark.parametrize("who", ["hand", "client"])
def test_one_whose_position_has_been_closed_is_no_news_at_the_next_entry(desk: TradingDesk, who: str) -> None:
    order = leaving(desk)
    end(desk, order, BookStatus.CANCELLED)
    desk.broker.fills = True
    if who == "hand":
        desk.broker.by_hand(desk.contract.ticker, -2 * LOT)
    else:
        desk.reconcile()
        desk.alert("EXIT")
    assert passes(desk, 2) == []
    assert desk.net() == 0
    desk.held()
    assert passes(desk, 200) == []


def test_one_is_no_news_when_a_hand_holds_something_there_later(desk: TradingDesk) -> None:
    order = leaving(desk)
    end(desk, order, BookStatus.CANCELLED)
    desk.broker.by_hand(desk.contract.ticker, -2 * LOT)
    assert passes(desk, 60) == []
    desk.broker.by_hand(desk.contract.ticker, LOT)
    assert passes(desk) == []


def test_one_that_the_kill_switch_could_not_cancel_pages(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = leaving(desk)
    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "cancel", lambda _: Unknown("lost"))
        assert KillSwitch(desk.desk).cancel("me", "enough").problems
    end(desk, order, BookStatus.EXPIRED)
    assert passes(desk) == ["exit_unfilled"]


def test_one_that_the_kill_switch_cancels_is_told_by_it(desk: TradingDesk) -> None:
    order = leaving(desk)
    assert KillSwitch(desk.desk).cancel("me", "enough").cancelled == [order.id]
    assert passes(desk) == []


def test_one_that_a_new_exit_replaces_is_no_news(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to a pass that comes between the cancel and its record."""
    order, cancel = leaving(desk), desk.broker.cancel

    def cancelled(ident: str) -> Outcome:
        done = cancel(ident)
        desk.reconcile()
        return done

    desk.clock.advance(11)
    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "cancel", cancelled)
        desk.alert("EXIT")
    passes(desk, 1)
    assert desk.row(order).status is Status.CANCELLED
    assert "exit_unfilled" not in desk.notifier.pages


def test_one_that_nobody_knows_anything_of_pages_once(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.protected.clear()
    passes(desk)
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("timed out")], False
    order = desk.alert("EXIT").order
    assert passes(desk, 5) == []
    assert passes(desk, 60) == ["exit_unfilled"]
    assert (desk.row(order).status, order.id in desk.notifier.messages[-1]) == (Status.IN_DOUBT, True)


def test_one_that_waited_and_is_denied_pages(desk: TradingDesk) -> None:
    bracket = Product("BO")
    desk.broker.by_hand(desk.contract.ticker, LOT, bracket.value)
    desk.broker.next_place = [Unknown("timed out")]
    desk.alert("BUY", product=bracket)
    order = desk.alert("EXIT", product=bracket).order
    assert order.status is Status.EXIT_PENDING
    assert passes(desk) == ["exit_cut"]
    assert (desk.row(order).code, desk.net(bracket)) == ("exit_unsupported", 2 * LOT)


def test_one_that_is_cut_at_the_freeze_quantity_pages(desk: TradingDesk) -> None:
    desk.held(lots=27)
    desk.held(lots=27)
    order = desk.alert("EXIT").order
    assert (desk.notifier.pages, order.quantity, desk.net()) == (["exit_cut"], 1755, 1755)
    assert "exit again" in desk.notifier.messages[-1]
    desk.alert("EXIT")
    assert (len(desk.notifier.pages), desk.net()) == (1, 0)


def test_the_operator_reads_so_much_in_his_answer(desk: TradingDesk) -> None:
    desk.held(lots=27)
    desk.held(lots=27)
    desk.alert("EXIT", client="admin")
    assert (desk.notifier.pages, desk.net()) == ([], 1755)


def waiting(desk: TradingDesk) -> Order:
    """An exit that waits for an entry of which nobody knows anything, beside a lot that is held."""
    desk.held()
    passes(desk, 1)
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    desk.alert("BUY")
    order = desk.alert("EXIT").order
    assert order.status is Status.EXIT_PENDING
    return order


def test_one_that_waits_for_long_pages_once(desk: TradingDesk) -> None:
    order = waiting(desk)
    assert passes(desk, 5) == []
    assert passes(desk, 60) == ["exit_unfilled"]
    assert (order.id in desk.notifier.messages[-1], desk.net()) == (True, LOT)


def test_a_stop_that_goes_while_one_waits_for_long_pages(desk: TradingDesk) -> None:
    waiting(desk)
    passes(desk, 3)
    desk.broker.protected.clear()
    assert passes(desk, 2) == []  # it may be about to go itself
    assert passes(desk, 10) == ["protection_missing", "exit_unfilled"]


def test_a_stop_that_is_lost_put_back_and_lost_again_is_news_each_time(desk: TradingDesk) -> None:
    """Whoever sends the pages takes the same words within ten minutes for the same news."""
    desk.held()
    passes(desk, 3)
    stop = dict(desk.broker.protected)
    for _ in range(2):
        desk.broker.protected.clear()
        assert passes(desk, 3) == ["protection_missing"]
        desk.broker.protected.update(stop)
        assert passes(desk, 3) == []
    assert len(set(desk.notifier.messages[-2:])) == 2
