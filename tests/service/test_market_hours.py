"""The exchange's hours: the broker's own word first, the contract's session where it does not say, and asked rarely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from app.domain.alert import Exchange, Product
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.status import Status
from app.service.market import ASK_S, BAD_FOR_S, CLOSED_FOR_S, GOOD_FOR_S, MarketHours
from app.service.place_order import PlaceOrder
from tests.builders import a_policy
from tests.fakes import FakeBroker, FakeClock
from tests.guard_desk import GuardDesk
from tests.service.desk import TradingDesk

EVENING = datetime(2026, 11, 18, 13, 0, tzinfo=UTC)
"""18:30 IST of a trading day."""
OPENING = datetime(2026, 11, 19, 3, 45, tzinfo=UTC)
"""09:15 IST of the next one."""


def a_desk(cutoff: time | None = time(15, 10)) -> TradingDesk:
    limits = Limits(max_lots=1, enforce_hours=True, intraday_cutoff=cutoff)
    desk = TradingDesk(policy=a_policy(limits=limits))
    desk.desk = replace(desk.desk, market=MarketHours(desk.broker, desk.clock))
    desk.service = PlaceOrder(desk.desk)
    return desk


@pytest.mark.parametrize(
    ("word", "at_night", "wanted"),
    [
        (True, False, None),
        (False, False, "market_closed"),
        (None, False, None),
        (True, True, None),
        (False, True, "market_closed"),
        (None, True, "market_closed"),
    ],
)
def test_the_brokers_word_goes_before_the_clock(
    word: bool | None, at_night: bool, wanted: str | None
) -> None:
    desk = a_desk()
    desk.broker.market = word
    if at_night:
        desk.clock.advance((EVENING - desk.clock.now()).total_seconds())
    assert desk.alert().order.code == wanted


def test_a_status_that_cannot_be_read_leaves_it_to_the_session() -> None:
    desk = a_desk()
    desk.broker.fail.add("market_open")
    assert desk.alert().order.status is Status.ACCEPTED


def test_it_is_asked_once_in_a_quarter_of_a_minute() -> None:
    desk = a_desk()
    desk.broker.market = True
    for _ in range(3):
        desk.alert()
    assert desk.broker.calls.count("market_open") == 1
    desk.clock.advance(15)
    desk.alert()
    assert desk.broker.calls.count("market_open") == 2


def test_the_cutoff_is_of_the_day_session_only() -> None:
    desk = a_desk(cutoff=time(10, 30))
    desk.broker.market = True
    assert desk.alert().order.code == "intraday_cutoff"
    desk.clock.advance((EVENING - desk.clock.now()).total_seconds())
    assert desk.alert().order.status is Status.ACCEPTED


def test_a_closed_market_stops_an_exit_as_well() -> None:
    desk = a_desk()
    desk.broker.market = True
    desk.held()
    desk.broker.market = False
    desk.clock.advance(15)
    assert desk.alert("EXIT").order.code == "market_closed"


def test_a_closed_of_before_the_opening_denies_no_exit_after_it() -> None:
    """Such a no is a 422, and TradingView sends nothing again after it."""
    desk = a_desk()
    desk.broker.market = True
    desk.held(product=Product.MARGIN)
    desk.reconcile()
    desk.clock.advance((OPENING - desk.clock.now()).total_seconds() - 4)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.market = False
    assert desk.alert().order.code == "market_closed"
    desk.broker.market = True
    desk.clock.advance(8)
    assert desk.alert("EXIT", product=Product.MARGIN).order.status is Status.ACCEPTED


@pytest.mark.parametrize(
    ("asked_at", "kept_for_s"),
    [
        (OPENING - timedelta(minutes=5), GOOD_FOR_S),
        (OPENING - timedelta(seconds=4), 4),
        (OPENING - timedelta(seconds=0.3), 0.3),
        (OPENING, CLOSED_FOR_S),
        (OPENING + timedelta(hours=2), CLOSED_FOR_S),
        (EVENING, CLOSED_FOR_S),
        (OPENING + timedelta(days=2), GOOD_FOR_S),
    ],
    ids=["before", "just before", "at once", "opening", "session", "evening", "Saturday"],
)
def test_a_closed_is_kept_up_to_an_opening_and_a_second_after_it(
    asked_at: datetime, kept_for_s: float
) -> None:
    clock = FakeClock(asked_at)
    broker = FakeBroker(clock)
    broker.market = False
    hours = MarketHours(broker, clock)
    for wait_s, asked in ((0, 1), (kept_for_s - 0.1, 1), (0.11, 2)):
        clock.advance(wait_s)
        assert hours.is_open(Exchange.NSE, Deadline(clock.monotonic() + 1.5)) is False
        assert broker.calls.count("market_open") == asked


def test_a_closed_that_was_asked_for_before_the_opening_and_came_after_it_is_not_kept() -> None:
    clock = FakeClock(OPENING - timedelta(seconds=0.1))
    broker = FakeBroker(clock)
    broker.market = False
    broker.on["market_open"] = lambda: clock.advance(0.15)
    hours = MarketHours(broker, clock)
    assert hours.is_open(Exchange.NSE, Deadline(clock.monotonic() + 1.5)) is False
    broker.market = True
    assert hours.is_open(Exchange.NSE, Deadline(clock.monotonic() + 1.5)) is True


class Hanging(FakeBroker):
    """One whose market status takes all the time that it is given."""

    deadline = Deadline(0)

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[FakeBroker]:
        self.deadline = deadline
        with super().exchange(deadline, connect_by, once=once) as exchanger:
            yield exchanger

    def market_open(self, exchange: Exchange) -> bool | None:
        self.clock.advance(self.deadline.left(self.clock.monotonic()))
        self.fail.add("market_open")
        return super().market_open(exchange)


def test_a_status_that_hangs_leaves_an_exit_its_time() -> None:
    desk = a_desk()
    desk.held()
    hanging = Hanging(desk.clock)
    desk.desk = replace(desk.desk, market=MarketHours(hanging, desk.clock))
    desk.service = PlaceOrder(desk.desk)
    began = desk.clock.monotonic()
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.clock.monotonic() - began == pytest.approx(ASK_S)


def test_a_status_that_could_not_be_read_is_left_alone_for_a_while() -> None:
    clock = FakeClock()
    hanging = Hanging(clock)
    hours = MarketHours(hanging, clock)
    for wait_s, asked in ((0, 1), (0, 1), (BAD_FOR_S - 1, 1), (1, 2)):
        clock.advance(wait_s)
        assert hours.is_open(Exchange.NSE, Deadline(clock.monotonic() + 1.5)) is None
        assert len(hanging.calls) == asked


def test_a_status_that_hangs_shuts_no_breaker() -> None:
    """The reads' breaker would shut out the book and the positions, without which no exit goes."""
    clock = FakeClock()
    guarded = GuardDesk(clock, Hanging(clock))
    hours = MarketHours(guarded.guard, clock)
    for _ in range(20):
        assert hours.is_open(Exchange.NSE, Deadline(clock.monotonic() + 1.5)) is None
        clock.advance(BAD_FOR_S)
    assert guarded.guard.reads.is_closed
