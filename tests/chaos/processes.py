"""What the state machine kills and stops: desks on one store, and what becomes of an alert among them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar

from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from app.domain.alert import Alert, key_of
from app.domain.limits import Limits
from app.domain.outcome import NotSent, Refused, Unknown
from app.errors import ServiceError
from app.service.desk import Desk
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from tests.builders import SCOPE, a_contract, a_policy
from tests.chaos.street import Door, Life, Plan, QuickStore, Street, Wire
from tests.fake_store import FakeClock
from tests.fakes import FakeContracts, FakeNotifier
from tests.wire_brokers import Crash

LONG, SHORT = (a_contract(strike=strike, master_date=date(2027, 1, 1)) for strike in (24500, 24600))
SIDES = {LONG.ticker: 1, SHORT.ticker: -1}
"""Which way a contract is traded in here: past zero the other way is what must never be."""
WIDE = 10**6
LIMITS = Limits(max_lots=2, max_orders_per_day=WIDE, max_lots_per_day=WIDE)
ANSWERS: dict[str, tuple[Refused | NotSent | Unknown, bool] | None] = {
    "taken": None,
    "taken, no answer": (Unknown("timed out"), True),
    "lost, no answer": (Unknown("timed out"), False),
    "refused": (Refused("-99", "no margin"), True),
    "not sent": (NotSent("connect", "no connection"), True),
}
PlanOf = tuple[int, str, int] | None
"""(at which step, what, for how long others go on meanwhile)."""


@dataclass(frozen=True, slots=True)
class Sent:
    alert: Alert
    explicit: str | None


class Processes(RuleBasedStateMachine):
    """Processes on one store and one broker, of which one may die or be stopped at a step of what it does."""

    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.notifier = FakeClock(), FakeNotifier()
        self.broker = Street(self.clock)
        self.broker.sides = SIDES
        self.store: Any = self.open_store()
        self.numbers, self.life = itertools.count(1), Life()
        self.sent: list[Sent] = []
        self.late: set[str | None] = set()
        self.refused_later: set[str] = set()
        self.restart()

    def open_store(self) -> Any:
        return QuickStore(self.clock, SCOPE)

    def counters(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, name, _window), used in self.store.data.caps.items():
            found[name] += used
        return found

    def desk(self, life: Life) -> Desk:
        return Desk(
            Door(self.store, life),
            Wire(self.broker, life, self.clock, self.late),
            FakeContracts([LONG, SHORT]),
            self.clock,
            SCOPE,
            a_policy(limits=LIMITS),
            self.notifier,
            # Past the first byte: its first bit is the id's own, and a long story would begin again at its 129th.
            random_bytes=lambda size: (next(self.numbers) << 8).to_bytes(size, "little"),
        )

    def restart(self) -> None:
        self.life = Life()
        self.verbs = self.desk(self.life)
        self.reconcile = Reconcile(self.verbs)

    @contextmanager
    def living(self, plan: PlanOf = None, again: Sent | None = None, answer: str = "taken") -> Iterator[None]:
        """What goes wrong meanwhile. After a death there is a new process; a "no" of the service is an answer."""
        if queued := ANSWERS[answer]:
            self.broker.next_place, self.broker.unknown_arrives = [queued[0]], queued[1]
        if plan is not None:
            at, what, seconds = plan
            act = self.life.die if what == "die" else lambda: self.elsewhere(seconds, again)
            self.life.plan = Plan(at, act)
        try:
            yield
        except Crash:
            self.restart()
        except ServiceError:
            pass
        self.life.plan = None
        self.broker.next_place, self.broker.unknown_arrives = [], True

    def elsewhere(self, seconds: float, again: Sent | None) -> None:
        """The process is stopped; time goes by, and another one works on what it finds."""
        self.clock.advance(seconds)
        other = self.desk(Life())
        queued, self.broker.next_place = self.broker.next_place, []
        for _ in range(2):
            try:
                Reconcile(other)()
                if again is not None:
                    self.deliver(again, other)
            except ServiceError:
                pass
        self.broker.next_place = queued

    def deliver(self, sent: Sent, desk: Desk) -> None:
        now = self.clock.now()
        alert = replace(sent.alert, received_at=now)
        if sent.explicit is not None:  # the same key on another day is another alert
            alert = replace(alert, key=key_of("default", sent.explicit, alert.key.body_hash, now))
        PlaceOrder(desk)(alert, request_id="r", started=self.clock.monotonic())
