"""Fyers blocks an account for the day at the fourth breach of its minute limit: it is not ours, whoever else calls."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.brokers.guard import CallBudget, Guard, Rates
from app.domain.deadline import Deadline
from app.domain.outcome import Accepted, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed
from app.service.ready import POLLS_STOPPED, code_of
from tests.fake_store import FakeClock
from tests.fakes import FakeBroker, FakeNotifier
from tests.guard_desk import LOST, TICKET, GuardDesk
from tests.simulator.limits import RateLimits
from tests.simulator.wire import Refusal

MORNING = datetime(2026, 9, 9, 4, 30, tzinfo=UTC)
APP = "X-200"


class Shared:
    """One Fyers app that another program uses too. That one keeps the minute full and hits no limit itself."""

    def __init__(self) -> None:
        self.clock = clock = FakeClock(MORNING)
        self.limits, self.broker, self.notifier = RateLimits(clock.now), FakeBroker(clock), FakeNotifier()
        for what in ("order_book", "positions", "quotes"):
            self.broker.on[what] = self._answer
        budget = CallBudget(Rates(), clock, self.notifier)
        self.guard = Guard(self.broker, clock, self.notifier, budget, sleep=lambda _: None)

    def _answer(self) -> None:
        try:
            self.limits.check(APP, is_order=False)
        except Refusal:
            raise BrokerReadFailed("Fyers answered 429", code="broker_rate_limited") from None

    @property
    def breaches(self) -> int:
        return self.limits._usage[APP].breaches

    def read(self, what: str) -> bool:
        with self.guard.exchange(Deadline(self.clock.monotonic() + 5)) as exchanger:
            try:
                _ = exchanger.order_book() if what == "book" else exchanger.positions()
            except BrokerReadFailed:
                return False
        return True

    def poll(self) -> bool:
        """As the reconciler does it."""
        if (reason := self.guard.ready()) is not None and code_of(reason) == POLLS_STOPPED:
            return False
        return self.read("book") and self.read("positions")

    def run(self, seconds: int, *, others_a_second: int) -> int:
        """So many polls succeeded, one each 5 s."""
        done = 0
        for second in range(seconds):
            self.clock.advance(1)
            for _ in range(others_a_second):
                usage = self.limits._usage.get(APP)
                if usage is None or len(usage.calls) < 200:
                    self.limits.check(APP, is_order=False)
            done += second % 5 == 0 and self.poll()
        return done


def test_polling_beside_a_program_that_eats_the_minute_never_breaches_a_fourth_time() -> None:
    shared = Shared()
    shared.run(3600, others_a_second=5)
    assert shared.breaches == 3
    assert shared.notifier.pages == ["rate_limit_breached"] * 2
    assert "third time" in (shared.guard.ready() or "")


def test_after_the_third_an_exits_own_reads_and_order_still_pass() -> None:
    shared = Shared()
    shared.run(600, others_a_second=5)
    assert not shared.poll()
    shared.clock.advance(61)  # the other program is stopped
    assert not shared.poll()
    assert shared.read("book")
    assert shared.read("positions")
    with shared.guard.exchange(Deadline(shared.clock.monotonic() + 5)) as exchanger:
        exchanger.place(TICKET, lambda: None, reduces=True)
    assert len(shared.broker.ledger) == 1
    shared.clock.advance(24 * 3600)
    assert shared.poll(), "the next day is a new one"


def test_a_breach_without_a_time_to_wait_is_waited_out_by_what_can_wait() -> None:
    shared = Shared()
    shared.run(60, others_a_second=5)
    assert shared.breaches == 1
    assert shared.run(30, others_a_second=0) == 0
    shared.clock.advance(40)
    assert shared.guard.ready() is None
    assert shared.run(60, others_a_second=0) == 12


def test_from_the_second_breach_on_it_says_that_entries_cannot_be_placed() -> None:
    shared = Shared()
    for _ in range(2):
        shared.guard.budget.heed(4)
        shared.clock.advance(5)
    reason = shared.guard.ready()
    assert reason is not None
    assert code_of(reason) == "broker_rate_limited"
    assert shared.poll(), "fills are still followed"
    with (
        shared.guard.exchange(Deadline(shared.clock.monotonic() + 5)) as exchanger,
        pytest.raises(BrokerReadFailed),
    ):
        exchanger.quotes([TICKET.ticker])


TOLD = "Fyers answered 429 in an unknown form"


def order_after(desk: GuardDesk, outcome: Outcome, *, opened: bool = False) -> None:
    """One order that comes to `outcome`; `opened`: an exit beside an open breaker, its own read just made."""
    if opened:
        desk.on(lambda x: x.positions())
        desk.broker.next_place = [LOST] * 5
        assert [desk.place() for _ in range(5)] == [LOST] * 5
        assert not desk.guard.orders.is_closed
    desk.broker.next_place = [outcome]
    assert desk.place(reduces=True) == outcome


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize(
    "outcome",
    [Refused("-429", "request limit reached", 7), Unknown(TOLD, rate_limited=True, retry_after_s=7)],
    ids=["refused", "in doubt"],
)
def test_an_orders_429_is_waited_out_and_counted_whatever_it_proves(
    outcome: Outcome, *, opened: bool
) -> None:
    desk = GuardDesk(FakeClock(MORNING))
    order_after(desk, outcome, opened=opened)
    over = desk.budget.take_order(reserved=True)
    assert over is not None
    assert (over.code, over.retry_after_s) == ("broker_rate_limited", 7)
    desk.clock.advance(7)
    assert desk.budget.take_order(reserved=True) is None
    desk.budget.heed(3)
    assert desk.notifier.pages == ["rate_limit_breached"], "that was the day's second"


def test_an_orders_429_without_a_time_to_wait_stops_what_can_wait() -> None:
    desk = GuardDesk(FakeClock(MORNING))
    order_after(desk, Unknown(TOLD, rate_limited=True))
    assert code_of(desk.guard.ready() or "") == POLLS_STOPPED


def test_a_429_in_doubt_says_nothing_about_the_brokers_health() -> None:
    """Neither a failure, of which the last would stop all orders, nor a success, which would forget the others."""
    desk = GuardDesk(FakeClock(MORNING))
    doubt = Unknown(TOLD, rate_limited=True, retry_after_s=0)
    for _ in range(4):
        order_after(desk, LOST)
    for _ in range(2):
        order_after(desk, doubt)
        assert desk.guard.orders.is_closed
    order_after(desk, LOST)
    assert not desk.guard.orders.is_closed


def test_another_doubt_waits_for_nothing() -> None:
    desk = GuardDesk(FakeClock(MORNING))
    order_after(desk, LOST)
    assert desk.guard.ready() is None
    assert isinstance(desk.place(), Accepted)
