"""A guard around the fake broker, on a clock that stands still, for the tests of the guard."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from app.brokers.guard import BreakerPolicy, CallBudget, Guard, GuardedExchanger, Rates, SharedRedis
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import Outcome, Unknown
from tests.fake_store import FakeClock
from tests.fakes import FakeBroker, FakeNotifier

TICKET = Ticket("NSE:NIFTY26NOV24500CE", Side.BUY, 65, Product.INTRADAY, "ABCD" + "A" * 16)
LOST = Unknown("no answer: reset")
RESET_S = 5
WIDE = Rates(10**6, 10**6, 10**6, 10**6)
"""A budget that is in nobody's way."""
_T = TypeVar("_T")


class GuardDesk:
    """One instance of the service, as far as the broker knows it."""

    def __init__(
        self,
        clock: FakeClock | None = None,
        broker: FakeBroker | None = None,
        shared: SharedRedis | None = None,
        rates: Rates = WIDE,
        policy: BreakerPolicy | None = None,
        *,
        waits: bool = False,
    ) -> None:
        """`waits`: the clock goes on while the guard sleeps."""
        self.clock = clock or FakeClock()
        self.broker = broker or FakeBroker(self.clock)
        self.notifier = FakeNotifier()
        self.slept: list[float] = []
        self.budget = CallBudget(rates, self.clock, self.notifier, shared)
        self.guard = Guard(
            self.broker,
            self.clock,
            self.notifier,
            self.budget,
            policy=policy,
            shared=shared,
            sleep=self.clock.advance if waits else self.slept.append,
        )

    def on(self, work: Callable[[GuardedExchanger], _T], seconds: float = 2) -> _T:
        with self.guard.exchange(Deadline(self.clock.monotonic() + seconds)) as exchanger:
            return work(exchanger)

    def place(self, *, reduces: bool = False) -> Outcome:
        return self.on(lambda x: x.place(TICKET, lambda: None, reduces=reduces))

    def read(self) -> object:
        return self.on(lambda x: x.quotes([TICKET.ticker]))

    def protect(self) -> Outcome:
        return self.on(lambda x: x.set_protection("p", Decimal(0), Decimal(0)))

    @property
    def told(self) -> list[str]:
        return self.notifier.notes
