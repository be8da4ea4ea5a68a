"""The budget of calls in one process, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest

from app.brokers.guard import CallBudget, Rates
from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed
from tests.fake_store import FakeClock
from tests.fakes import FakeNotifier
from tests.guard_desk import TICKET, GuardDesk

REAL = Rates()
IST_DAY_S = 86_400


def budget_of(rates: Rates = REAL) -> tuple[CallBudget, FakeClock, FakeNotifier]:
    clock, notifier = FakeClock(), FakeNotifier()
    return CallBudget(rates, clock, notifier), clock, notifier


def passed(budget: CallBudget, tries: int, *, reserved: bool = True, orders: bool = False) -> int:
    take = budget.take_order if orders else budget.take_read
    return sum(take(reserved=reserved) is None for _ in range(tries))


def test_a_second_a_minute_and_their_reserves() -> None:
    budget, clock, _ = budget_of()
    assert passed(budget, 30, orders=True, reserved=False) == 7
    assert passed(budget, 30, orders=True) == 1, "the eighth is kept for an exit or a cancel"
    assert passed(budget, 30, reserved=False) == 0
    assert passed(budget, 30) == 2
    total = 10
    for _ in range(40):
        clock.advance(1.1)
        total += passed(budget, 30, reserved=False)
    assert total == 160, "of a minute's 200 calls 40 are kept"
    for _ in range(8):
        clock.advance(1.1)
        total += passed(budget, 30)
    assert total == 200


@pytest.mark.parametrize("back_s", [45.0, 3600.0])
def test_a_clock_that_was_ahead_and_is_set_right_holds_nothing_back(back_s: float) -> None:
    budget, clock, _ = budget_of(Rates(calls_per_minute=5))
    assert passed(budget, 9) == 5
    budget.heed(None)
    clock.set_back(back_s)
    assert passed(budget, 9) == 0, "what was called is not forgotten"
    assert (over := budget.unready()) is not None
    assert over.wait_s <= 62
    clock.advance(61.9)
    assert passed(budget, 9) == 0
    clock.advance(0.2)
    assert budget.unready() is None
    assert passed(budget, 9) == 5


def test_a_process_that_stood_still_between_its_clocks_has_no_clock_set_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget, clock, _ = budget_of(Rates(calls_per_minute=5))
    assert passed(budget, 9) == 5
    now = clock.now

    def stood() -> datetime:
        clock.advance(30)
        return now()

    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", stood)
        assert passed(budget, 1) == 0
    clock.advance(31)
    assert passed(budget, 1) == 0
    clock.advance(1.1)
    assert passed(budget, 9) == 5


def test_over_the_budget_says_when_to_come_back() -> None:
    budget, clock, _ = budget_of(Rates(calls_per_minute=5))
    assert passed(budget, 9) == 5
    over = budget.take_read(reserved=True)
    assert over is not None
    assert (over.code, over.retry_after_s) == ("rate_budget", 62)
    clock.advance(61.9)
    assert budget.take_read(reserved=True) is not None
    clock.advance(0.2)
    assert budget.take_read(reserved=True) is None


def test_without_redis_a_process_has_its_share() -> None:
    budget, clock, _ = budget_of(Rates(processes=3))
    assert passed(budget, 30, orders=True) == 2
    total = 2 + passed(budget, 30)
    for _ in range(50):
        clock.advance(1.1)
        total += passed(budget, 30)
    assert total == 66


def test_more_processes_than_orders_in_a_second_take_turns() -> None:
    budget, clock, _ = budget_of(Rates(processes=16))
    assert passed(budget, 5, orders=True) == 1
    clock.advance(1.1)
    assert passed(budget, 5, orders=True) == 0
    clock.advance(1.1)
    assert passed(budget, 5, orders=True) == 1


def test_the_day_is_counted_by_the_indian_date() -> None:
    budget, clock, _ = budget_of(Rates(1000, 1000, 1000, calls_per_day=100))
    assert passed(budget, 200, reserved=False) == 80
    assert passed(budget, 200) == 20
    clock.advance(3600)
    assert passed(budget, 5) == 0
    clock.advance(IST_DAY_S)
    assert passed(budget, 5) == 5


def test_a_429_is_waited_out_and_one_burst_of_them_is_one_breach() -> None:
    budget, clock, notifier = budget_of()
    for _ in range(3):
        budget.heed(4)
    assert passed(budget, 3) == 0
    assert passed(budget, 3, orders=True) == 0
    over = budget.take_order(reserved=True)
    assert over is not None
    assert (over.code, over.retry_after_s) == ("broker_rate_limited", 4)
    clock.advance(4)
    assert passed(budget, 3, orders=True, reserved=False) == 3
    assert notifier.pages == []


def test_the_second_breach_of_a_day_stops_all_but_exits_and_pages() -> None:
    budget, clock, notifier = budget_of()
    budget.heed(4)
    clock.advance(5)
    budget.heed(None)
    assert notifier.pages == ["rate_limit_breached"]
    clock.advance(5)
    for _ in range(3):
        assert passed(budget, 1, orders=True, reserved=False) == 0
        assert passed(budget, 1, orders=True) == 1
        clock.advance(3600)
    clock.advance(IST_DAY_S)
    assert passed(budget, 1, orders=True, reserved=False) == 1
    assert notifier.pages == ["rate_limit_breached"]


def test_many_quotes_are_several_calls() -> None:
    desk = GuardDesk(rates=Rates(calls_per_second=10))
    assert len(desk.on(lambda x: x.quotes([f"T{n}" for n in range(120)]))) == 120
    assert desk.broker.calls == ["quotes"] * 3
    assert passed(desk.budget, 20) == 7


def test_an_order_over_the_budget_is_not_sent_and_a_read_fails() -> None:
    desk = GuardDesk(rates=Rates(orders_per_second=2))
    assert isinstance(desk.place(), Accepted)
    assert isinstance(desk.place(), Accepted)
    over = desk.place()
    assert isinstance(over, NotSent)
    assert (over.code, over.retry_after_s) == ("rate_budget", 2)
    assert len(desk.broker.ledger) == 2
    with pytest.raises(BrokerReadFailed) as caught:
        [desk.read() for _ in range(20)]
    assert caught.value.code == "rate_budget"
    assert desk.guard.ready() is None, "a budget is no illness of the broker"


def test_the_budget_is_asked_before_the_last_check() -> None:
    desk = GuardDesk(rates=Rates(orders_per_second=1))
    desk.place()
    checked: list[None] = []
    assert isinstance(desk.on(lambda x: x.place(TICKET, lambda: checked.append(None))), NotSent)
    assert checked == []


@pytest.mark.parametrize("operation", ["cancel", "protect", "close"])
def test_every_order_operation_counts(operation: str) -> None:
    desk = GuardDesk(rates=Rates(orders_per_second=2))
    does: Callable[[], Outcome] = {
        "cancel": lambda: desk.on(lambda x: x.cancel("1")),
        "protect": desk.protect,
        "close": lambda: desk.on(lambda x: x.close_position("p", lambda: None)),
    }[operation]
    assert not isinstance(does(), NotSent)
    assert not isinstance(does(), NotSent)
    assert isinstance(does(), NotSent)


def test_a_repeat_of_a_read_needs_budget_too_and_tells_the_first_failure() -> None:
    desk = GuardDesk(rates=Rates(calls_per_second=1))
    desk.broker.fail = {"positions"}
    with pytest.raises(BrokerReadFailed) as caught:
        desk.on(lambda x: x.positions())
    assert caught.value.code == "broker_unavailable"
    assert desk.broker.calls == ["positions"]


def test_429_answers_to_reads_and_orders_are_heeded_and_trip_nothing() -> None:
    desk = GuardDesk()

    def no() -> None:
        raise BrokerReadFailed("Fyers answered 429", code="broker_rate_limited", retry_after_s=9)

    desk.broker.on["quotes"] = no
    with pytest.raises(BrokerReadFailed) as caught:
        desk.read()
    assert caught.value.retry_after_s == 9
    assert desk.broker.calls == ["quotes"], "not repeated"
    stopped = desk.place()
    assert isinstance(stopped, NotSent)
    assert (stopped.code, stopped.retry_after_s) == ("broker_rate_limited", 9)
    desk.clock.advance(9)
    desk.broker.next_place = [Refused("-429", "too many", retry_after_s=3)]
    assert isinstance(desk.place(reduces=True), Refused)
    assert isinstance(desk.place(reduces=True), NotSent)
    desk.clock.advance(3)
    assert isinstance(desk.place(reduces=True), Accepted)


def exit_of(desk: GuardDesk, seconds: float = 1.5) -> list[str]:
    """The calls of an exit from a position with legs, as the service makes them; what was done."""
    done: list[str] = []
    with desk.guard.exchange(Deadline(desk.clock.monotonic() + seconds)) as exchanger:

        def made(what: str, outcome: object) -> bool:
            desk.clock.advance(0.12)
            done.append(what if not isinstance(outcome, NotSent) else f"no {what}")
            return not isinstance(outcome, NotSent)

        made("status", exchanger.market_open(Exchange.NSE))
        made("book", exchanger.order_book())
        made("positions", exchanger.positions())
        if exchanger.room_for_exit() is not None:
            return [*done, "no room"]
        if made("legs off", exchanger.set_protection("p", Decimal(0), Decimal(0))):
            made("positions", exchanger.positions())
            made("exit", exchanger.place(TICKET, lambda: None, reduces=True))
    return done


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_exit_waits_for_the_next_second_rather_than_leave_a_position_bare(processes: int) -> None:
    """Six calls, and a process has ten, five or three in a second while Redis does not count."""
    desk = GuardDesk(rates=Rates(processes=processes), waits=True)
    began = desk.clock.monotonic()
    assert exit_of(desk) == ["status", "book", "positions", "legs off", "positions", "exit"]
    assert desk.clock.monotonic() - began < 1.5


@pytest.mark.parametrize("processes", [4, 5])
def test_what_a_share_does_not_hold_leaves_the_legs_on(processes: int) -> None:
    desk = GuardDesk(rates=Rates(processes=processes), waits=True)
    assert exit_of(desk)[-1] == "no room"
    assert "set_protection" not in desk.broker.calls


def test_just_after_redis_was_lost_an_exit_waits_for_its_share() -> None:
    desk = GuardDesk(rates=Rates(processes=2), waits=True)
    desk.guard.budget._lost_at = desk.clock.now().timestamp()
    assert desk.guard.room(Deadline(desk.clock.monotonic() + 1)) is not None
    assert desk.guard.room(Deadline(desk.clock.monotonic() + 1.5)) is None


def test_exits_at_once_do_not_count_on_the_same_room() -> None:
    desk = GuardDesk(rates=Rates(processes=2), waits=True)
    until = Deadline(desk.clock.monotonic() + 1.5)
    said = [desk.guard.room(until) for _ in range(4)]
    assert [no is None for no in said] == [True, True, True, False], "a process has ten calls in these 1.5 s"
    desk.clock.advance(1)
    assert desk.guard.room(Deadline(desk.clock.monotonic() + 1.5)) is None, "what was told is over"


def test_an_entry_does_not_wait() -> None:
    desk = GuardDesk(rates=Rates(processes=5), waits=True)
    began = desk.clock.monotonic()
    said = [desk.place() for _ in range(4)]
    assert isinstance(said[-1], NotSent)
    assert desk.clock.monotonic() == began


def test_unknown_answers_keep_their_place_in_the_budget() -> None:
    desk = GuardDesk(rates=Rates(orders_per_second=1))
    desk.broker.next_place = [Unknown("lost")]
    assert isinstance(desk.place(), Unknown)
    assert isinstance(desk.place(), NotSent)
