"""The guard in one process: what trips it, what passes it, and that it never makes a sent order look unsent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pybreaker
import pytest

from app.brokers.guard import BreakerPolicy
from app.domain.deadline import Deadline
from app.domain.outcome import Accepted, NotSent, Outcome, Refused
from app.errors import BrokerReadFailed
from tests.guard_desk import LOST, RESET_S, TICKET, GuardDesk


def tripped(desk: GuardDesk) -> GuardDesk:
    """Its orders stopped, by five lost answers."""
    desk.broker.next_place = [LOST] * 5
    assert [desk.place() for _ in range(5)] == [LOST] * 5
    return desk


def test_the_fifth_lost_answer_trips_and_is_still_told_as_lost() -> None:
    desk = tripped(GuardDesk())
    assert len(desk.broker.ledger) == 5
    stopped = desk.place()
    assert isinstance(stopped, NotSent)
    assert (stopped.code, stopped.retry_after_s) == ("breaker_open", RESET_S)
    assert len(desk.broker.ledger) == 5
    assert "orders are stopped" in (desk.guard.ready() or "")
    assert desk.told == ["breaker_open"]


def test_with_pybreakers_default_the_tripping_order_would_lose_its_outcome() -> None:
    desk = GuardDesk(policy=BreakerPolicy(throw_new_error_on_trip=True))
    desk.broker.next_place = [LOST] * 5
    for _ in range(4):
        assert desk.place() == LOST
    with pytest.raises(pybreaker.CircuitBreakerError):
        desk.place()
    assert len(desk.broker.ledger) == 5, "sent, and the error reads as if it had not been"


@pytest.mark.parametrize(
    "harmless",
    [Refused("-99", "RED:Margin Shortfall"), NotSent("token_expired", "no token")],
    ids=["business no", "own check"],
)
def test_a_no_trips_nothing(harmless: Any) -> None:
    desk = GuardDesk()
    desk.broker.next_place = [harmless] * 20
    assert [desk.place() for _ in range(20)] == [harmless] * 20
    assert isinstance(desk.place(), Accepted)


def test_an_order_that_is_checked_again_on_a_new_connection_counts_once() -> None:
    desk = GuardDesk()
    looks: list[None] = []

    def checked_twice(check: Callable[[], NotSent | None]) -> Outcome:
        return check() or check() or Accepted("1")

    before = desk.budget.left()
    ends = Deadline(desk.clock.monotonic() + 2)
    assert desk.guard.order(checked_twice, lambda: looks.append(None), ends, passes_by=()) == Accepted("1")
    assert len(looks) == 2
    assert {before[name] - left for name, left in desk.budget.left().items()} == {1}


def test_the_last_check_stopping_orders_trips_nothing_and_resets_nothing() -> None:
    desk = GuardDesk()
    no = NotSent("out_of_time", "too late")
    desk.broker.next_place = [LOST] * 4
    for _ in range(4):
        desk.place()
    for _ in range(20):
        assert desk.on(lambda x: x.place(TICKET, lambda: no)) == no
    desk.broker.next_place = [LOST]
    assert desk.place() == LOST
    assert isinstance(desk.place(), NotSent), "the fifth in a row, whatever our own checks stopped between"


def test_an_unreachable_broker_trips_though_nothing_was_sent() -> None:
    desk = GuardDesk()
    gone = NotSent("broker_unreachable", "connection refused")
    desk.broker.next_place = [gone] * 5
    assert [desk.place() for _ in range(5)] == [gone] * 5
    assert isinstance(stopped := desk.place(), NotSent)
    assert stopped.code == "breaker_open"


def test_a_success_between_begins_the_count_anew() -> None:
    desk = GuardDesk()
    desk.broker.next_place = [LOST] * 4
    for _ in range(4):
        desk.place()
    assert isinstance(desk.place(), Accepted)
    desk.broker.next_place = [LOST] * 4
    for _ in range(4):
        desk.place()
    assert isinstance(desk.place(), Accepted)


def test_a_read_counts_once_however_often_it_was_tried() -> None:
    desk = GuardDesk()
    desk.broker.fail = {"quotes"}
    for _ in range(4):
        with pytest.raises(BrokerReadFailed):
            desk.read()
    assert desk.broker.calls.count("quotes") == 8
    assert all(0.02 <= wait <= 0.08 for wait in desk.slept)
    assert desk.guard.reads.is_closed
    with pytest.raises(BrokerReadFailed):
        desk.read()
    with pytest.raises(BrokerReadFailed) as caught:
        desk.read()
    assert (caught.value.code, caught.value.retry_after_s) == ("breaker_open", RESET_S)
    assert desk.broker.calls.count("quotes") == 10
    assert isinstance(desk.place(), NotSent), "no order while reads fail"


def test_a_read_is_not_repeated_at_its_deadlines_end() -> None:
    desk = GuardDesk()
    desk.broker.fail = {"quotes"}
    with pytest.raises(BrokerReadFailed):
        desk.on(lambda x: x.quotes(["T"]), seconds=0.2)
    assert desk.broker.calls == ["quotes"]


@pytest.mark.parametrize("operation", ["place", "set_protection"])
def test_what_changes_something_is_never_repeated(operation: str) -> None:
    desk = GuardDesk()
    desk.broker.next_place, desk.broker.next_protection = [LOST], [LOST]
    outcome = desk.place() if operation == "place" else desk.protect()
    assert outcome == LOST
    assert desk.broker.calls == [operation]
    assert desk.slept == []


@pytest.mark.parametrize("code", ["token_expired", "broker_refused"])
def test_an_answered_no_neither_trips_nor_closes_the_reads(code: str) -> None:
    desk = GuardDesk()

    def no() -> None:
        raise BrokerReadFailed("no", code=code)

    desk.broker.on["quotes"] = no
    for _ in range(20):
        with pytest.raises(BrokerReadFailed) as caught:
            desk.read()
        assert caught.value.code == code
    tripped(desk)
    desk.clock.advance(RESET_S)
    with pytest.raises(BrokerReadFailed):
        desk.read()
    assert isinstance(desk.place(), NotSent), "nothing was learnt, so as open as before"
    del desk.broker.on["quotes"]
    desk.read()
    assert isinstance(desk.place(), Accepted)


def test_no_order_is_the_probe_and_a_read_that_succeeds_lets_orders_out() -> None:
    desk = tripped(GuardDesk())
    desk.clock.advance(RESET_S - 0.1)
    desk.read()
    assert isinstance(desk.place(), NotSent), "a read before its time is no probe"
    desk.clock.advance(0.1)
    assert desk.guard.ready() is None, "an alert's own quote may be the probe now"
    for _ in range(3):
        assert isinstance(desk.place(), NotSent)
    assert len(desk.broker.ledger) == 5
    desk.read()
    assert isinstance(desk.place(), Accepted)
    assert desk.told == ["breaker_open", "breaker_closed"]


def test_a_failed_probe_is_one_call_and_starts_the_wait_anew() -> None:
    desk = tripped(GuardDesk())
    desk.clock.advance(RESET_S)
    desk.broker.fail = {"quotes"}
    with pytest.raises(BrokerReadFailed):
        desk.read()
    assert desk.broker.calls.count("quotes") == 1
    desk.broker.fail = set()
    desk.clock.advance(RESET_S - 0.1)
    desk.read()
    assert isinstance(desk.place(), NotSent)
    desk.clock.advance(0.1)
    desk.read()
    assert isinstance(desk.place(), Accepted)


def test_an_exit_passes_by_its_own_position_read_and_by_no_others() -> None:
    desk = tripped(GuardDesk())
    assert isinstance(desk.place(reduces=True), NotSent)
    desk.on(lambda x: x.quotes(["T"]))
    desk.on(lambda x: x.order_book())
    assert isinstance(desk.place(reduces=True), NotSent), "a quote or a book is no position read"
    desk.on(lambda x: x.positions())
    assert isinstance(desk.place(), NotSent), "an entry does not pass by it"
    elsewhere: list[Outcome] = []
    other = threading.Thread(target=lambda: elsewhere.append(desk.place(reduces=True)))
    other.start()
    other.join()
    assert isinstance(elsewhere[0], NotSent), "nor does another request's exit"
    assert isinstance(desk.protect(), Accepted)
    assert isinstance(desk.place(reduces=True), Accepted)
    desk.clock.advance(2)
    assert isinstance(desk.place(reduces=True), NotSent), "and not by a read of some time ago"


def test_an_error_that_nobody_expected_counts_and_comes_through() -> None:
    desk = GuardDesk()
    desk.broker.next_place = [RuntimeError("odd")] * 5
    for _ in range(5):
        with pytest.raises(RuntimeError, match="odd"):
            desk.place()
    assert isinstance(desk.place(), NotSent)


def test_nothing_is_asked_when_no_time_is_left() -> None:
    desk = GuardDesk()
    with pytest.raises(BrokerReadFailed) as caught:
        desk.on(lambda x: x.quotes(["T"]), seconds=0)
    assert caught.value.code == "out_of_time"
    late = desk.on(lambda x: x.set_protection("p", Decimal(1), Decimal(0)), seconds=0)
    assert isinstance(late, NotSent)
    assert desk.broker.calls == []


def test_a_call_that_had_no_time_tells_nothing_of_the_broker() -> None:
    desk = GuardDesk()
    desk.broker.on["quotes"] = lambda: desk.clock.advance(0.2)
    desk.broker.fail = {"quotes"}
    late = NotSent("out_of_time", "connect timed out")
    for _ in range(20):
        with pytest.raises(BrokerReadFailed):
            desk.on(lambda x: x.quotes(["T"]), seconds=0.2)
        desk.broker.next_place = [late]
        assert desk.on(lambda x: x.place(TICKET, lambda: None), seconds=0.2) == late
    assert desk.guard.ready() is None
    desk.broker.on["quotes"] = lambda: desk.clock.advance(2)
    for _ in range(5):
        with pytest.raises(BrokerReadFailed):
            desk.read()
    assert desk.guard.ready() is not None, "with time enough it is the broker's failure"


def test_an_order_passes_unchanged() -> None:
    desk = GuardDesk()
    ticket = replace(TICKET, stop_distance=Decimal("1.05"))
    assert isinstance(desk.on(lambda x: x.place(ticket, lambda: None)), Accepted)
    assert desk.broker.ledger == [ticket]


def test_an_open_breaker_is_due_when_the_clock_has_been_set_back_by_much() -> None:
    desk = GuardDesk()
    desk.broker.next_place = [LOST] * 5
    for _ in range(5):
        desk.place()
    desk.clock.set_back(45 * 60)
    assert desk.guard.ready() is None
    desk.read()
    assert desk.guard.orders.is_closed
