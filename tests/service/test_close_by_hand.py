"""The close of what a hand opened: at most once for a position, whatever rests, hangs, or is pressed twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Purpose, Side
from app.domain.outcome import NotSent, Outcome, Refused, Unknown
from app.domain.status import Status
from app.service.by_hand import SHOWN_WITHIN, UNKNOWN_FOR, Done
from app.service.flatten import KillSwitch
from app.service.records import AuditEvent
from tests.builders import LOT, NOW, a_policy, an_order
from tests.service.desk import TradingDesk

Close = Callable[[str, Callable[[], NotSent | None]], Outcome]


@pytest.fixture
def desk() -> TradingDesk:
    """A hand holds one lot, and nothing fills by itself."""
    made = TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))
    made.broker.by_hand(made.contract.ticker, LOT)
    made.broker.fills = False
    return made


def flatten(desk: TradingDesk) -> Done:
    return KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)


def fill_all(desk: TradingDesk) -> None:
    for row in [r for r in desk.broker.book if r.is_working]:
        desk.broker.fill(row.broker_order_id)


def wrap(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch, make: Callable[[Close], Close]) -> None:
    monkeypatch.setattr(desk.broker, "close_position", make(desk.broker.close_position))


def test_a_second_word_while_the_close_rests_opens_no_short(desk: TradingDesk) -> None:
    assert len(flatten(desk).closed_by_hand) == 1
    again = flatten(desk)
    assert (again.closed_by_hand, len(again.problems)) == ([], 1)
    assert "a moment ago" in again.problems[0]
    fill_all(desk)
    assert desk.net() == 0
    assert flatten(desk) == Done()


def test_a_close_that_rests_on_is_replaced(desk: TradingDesk) -> None:
    flatten(desk)
    desk.clock.advance(SHOWN_WITHIN.total_seconds() + 1)
    again = flatten(desk)
    assert (len(again.cancelled), len(again.closed_by_hand), again.problems) == (1, 1, [])
    fill_all(desk)
    assert desk.net() == 0


def test_a_close_that_may_have_arrived_keeps_the_next_one_off_until_it_must_show(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fyers' 201: the counter order has been placed and has not filled."""

    def doubtful(close: Close) -> Close:
        return lambda ident, check: (close(ident, check), Unknown("201"))[1]

    wrap(desk, monkeypatch, doubtful)
    assert "Unknown 201" in flatten(desk).problems[0]
    desk.clock.advance(UNKNOWN_FOR.total_seconds() - 1)
    assert "a moment ago" in flatten(desk).problems[0]
    desk.clock.advance(2)
    assert len(flatten(desk).cancelled) == 1
    fill_all(desk)
    assert desk.net() == 0


def test_two_at_once_close_once(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    second: list[Done] = []

    def beside(close: Close) -> Close:
        def closing(ident: str, check: Callable[[], NotSent | None]) -> Outcome:
            if not second:
                second.append(flatten(desk))
            return close(ident, check)

        return closing

    wrap(desk, monkeypatch, beside)
    assert len(flatten(desk).closed_by_hand) == 1
    assert len(second[0].problems) == 1
    fill_all(desk)
    assert desk.net() == 0


def test_the_hands_own_order_on_that_side_is_cancelled_first(desk: TradingDesk) -> None:
    target = desk.broker._row(desk.contract.ticker, Side.SELL, LOT, "INTRADAY", None, "W")
    other = desk.broker._row(desk.contract.ticker, Side.BUY, LOT, "INTRADAY", None, "W")
    done = flatten(desk)
    assert (len(done.closed_by_hand), done.problems) == (1, [])
    assert [line.split()[0] for line in done.cancelled] == [target]
    assert {r.broker_order_id for r in desk.broker.book if r.is_working and r.side is Side.BUY} == {other}


def test_the_legs_of_a_bracket_go_with_its_position(desk: TradingDesk) -> None:
    desk.broker.by_hand(desk.contract.ticker, -LOT)
    desk.broker.by_hand(desk.contract.ticker, LOT, "BO")
    leg = desk.broker._row(desk.contract.ticker, Side.SELL, LOT, "BO", None, "W")
    at = next(n for n, row in enumerate(desk.broker.book) if row.broker_order_id == leg)
    desk.broker.book[at] = replace(desk.broker.book[at], parent_id="1")
    done = flatten(desk)
    assert (done.cancelled, len(done.closed_by_hand)) == ([], 1)


def test_what_rests_there_and_does_not_go_stops_the_close(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.broker._row(desk.contract.ticker, Side.SELL, LOT, "INTRADAY", None, "W")
    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "cancel", lambda _: Unknown("lost"))
        done = flatten(desk)
    assert (done.closed_by_hand, "rests there" in done.problems[0]) == ([], True)
    assert desk.broker.calls.count("close_position") == 0
    assert len(flatten(desk).closed_by_hand) == 1, "and nothing keeps the next one off"


def rests(desk: TradingDesk) -> str:
    """The hand's stop."""
    return desk.broker._row(desk.contract.ticker, Side.SELL, LOT, "INTRADAY", None, "W")


def works(desk: TradingDesk, ident: str) -> bool:
    return next(row for row in desk.broker.book if row.broker_order_id == ident).is_working


def test_with_its_stop_off_and_no_close_the_position_is_told_and_may_be_closed_at_once(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, cancel = rests(desk), desk.broker.cancel

    def then_down(ident: str) -> Outcome:
        desk.broker.fail = {"positions"}
        return cancel(ident)

    monkeypatch.setattr(desk.broker, "cancel", then_down)
    done = flatten(desk)
    assert ([line.split()[0] for line in done.cancelled], len(done.problems)) == ([stop], 1)
    assert f"{stop} cancelled, and it is not closed" in desk.notifier.messages[-1]
    assert desk.notifier.pages == ["closed_by_hand"]
    desk.broker.fail = set()
    assert len(flatten(desk).closed_by_hand) == 1


@pytest.mark.parametrize("what", ["ours in review", "no room"])
def test_where_the_close_could_not_go_out_nothing_is_taken_off(desk: TradingDesk, what: str) -> None:
    stop = rests(desk)
    if what == "no room":
        desk.broker.no_room = NotSent("rate_budget", "the budget is used up")
    else:
        review = an_order(7, ticker=desk.contract.ticker, purpose=Purpose.EXIT, status=Status.NEEDS_REVIEW)
        with desk.store.write() as tx:
            tx.insert_order(review, AuditEvent(Event.ORDER_NEEDS_REVIEW, NOW, review.status, {}))
    done = flatten(desk)
    assert (done.cancelled, done.closed_by_hand, works(desk, stop)) == ([], [], True)
    assert done.problems
    assert desk.notifier.pages == []


def test_a_leg_that_cannot_be_cancelled_by_itself_keeps_no_position_open(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = rests(desk)
    at = next(n for n, row in enumerate(desk.broker.book) if row.broker_order_id == leg)
    desk.broker.book[at] = replace(desk.broker.book[at], parent_id="1")
    monkeypatch.setattr(desk.broker, "cancel", lambda _: Refused("-1", "a leg"))
    assert len(flatten(desk).closed_by_hand) == 1


def test_what_the_order_on_that_side_has_closed_meanwhile_needs_no_close(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = desk.broker._row(desk.contract.ticker, Side.SELL, LOT, "INTRADAY", None, "W")

    def filled(_: str) -> Outcome:
        desk.broker.fill(target)
        return Refused("-52", "not a pending order")

    monkeypatch.setattr(desk.broker, "cancel", filled)
    assert flatten(desk) == Done()
    assert desk.net() == 0


@pytest.mark.parametrize("what", ["order_book", "refused"])
def test_a_no_or_a_failed_read_may_be_tried_again_at_once(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patch:
        if what == "refused":
            wrap(desk, patch, lambda _: lambda *_: Refused("-1", "margin"))
        else:
            patch.setattr(desk.broker, "fail", {what})
        assert len(flatten(desk).problems) == 1
    assert len(flatten(desk).closed_by_hand) == 1


def test_after_a_crash_around_the_close_the_next_one_waits(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashing(close: Close) -> Close:
        return lambda ident, check: (close(ident, check), 1 / 0)[0]

    with monkeypatch.context() as patch:
        wrap(desk, patch, crashing)
        with pytest.raises(ZeroDivisionError):
            flatten(desk)
    assert "a moment ago" in flatten(desk).problems[0]
