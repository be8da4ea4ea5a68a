"""Any order of alerts, repeats, exits, deaths, pauses, clock jumps, lagging books, fills, and a person's hands.

A Hypothesis state machine over the real verbs. The processes it kills are desks on one store (tests/chaos/street.py); the
truth it compares with is the exchange's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from app.domain.alert import Alert, KeyKind, Product, key_of
from app.domain.limits import Limits
from app.domain.order import Order, Purpose
from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import MOVES, UNSETTLED, Status
from app.errors import ServiceError
from app.service.control import Control, Resolution
from app.service.place_order import PlaceOrder
from app.service.reconcile import Reconcile
from app.service.records import BookStatus, OrderFilter
from app.service.send import Desk
from tests.builders import LOT, SCOPE, a_contract, a_policy, an_alert
from tests.chaos.street import Door, Life, Plan, QuickStore, Street, Wire
from tests.fake_store import FakeClock
from tests.fakes import FakeContracts, FakeNotifier
from tests.wire_brokers import Crash

S = Status
LONG, SHORT = (a_contract(strike=strike, master_date=date(2027, 1, 1)) for strike in (24500, 24600))
SIDES = {LONG.ticker: 1, SHORT.ticker: -1}
"""Which way a contract is traded in here: past zero the other way is what must never be."""
OTHER = "NSE:SBIN-EQ"
WIDE = 10**6
LIMITS = Limits(max_lots=2, max_orders_per_day=WIDE, max_lots_per_day=WIDE)
DEDUPE = timedelta(seconds=40)
NO = frozenset({S.REJECTED, S.NOT_PLACED})
RESTING = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED, S.EXIT_PENDING})
"""May stay: what works at the broker, and an exit that says what it waits for."""
SETTLING_PASSES, SETTLING_STEP_S = 9, 25.0
ANSWERS: dict[str, tuple[Refused | NotSent | Unknown, bool] | None] = {
    "taken": None,
    "taken, no answer": (Unknown("timed out"), True),
    "lost, no answer": (Unknown("timed out"), False),
    "refused": (Refused("-99", "no margin"), True),
    "not sent": (NotSent("connect", "no connection"), True),
}
answers = st.sampled_from(["taken"] * 3 + list(ANSWERS))
places = st.sampled_from(list(SIDES))
some = st.integers(0, 10**6)
plans = st.none() | st.tuples(
    st.integers(1, 26), st.sampled_from(["die", "pause"]), st.sampled_from([1, 4, 12, 90])
)
"""(at which step, what, for how long others go on meanwhile)."""
PlanOf = tuple[int, str, int] | None


@dataclass(frozen=True, slots=True)
class Sent:
    alert: Alert
    explicit: str | None


class StreetMachine(RuleBasedStateMachine):
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

    # --- processes ------------------------------------------------------------------------------------------

    def desk(self, life: Life) -> Desk:
        return Desk(
            Door(self.store, life),
            Wire(self.broker, life, self.clock, self.late),
            FakeContracts([LONG, SHORT]),
            self.clock,
            SCOPE,
            a_policy(limits=LIMITS),
            self.notifier,
            random_bytes=lambda size: next(self.numbers).to_bytes(size, "little"),
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

    # --- what comes from outside ----------------------------------------------------------------------------

    @rule(ticker=places, keyed=st.booleans(), lots=st.integers(1, 2), plan=plans, answer=answers)
    def entry(self, ticker: str, keyed: bool, lots: int, plan: PlanOf, answer: str) -> None:
        action = "BUY" if SIDES[ticker] > 0 else "SELL"
        self.new(action, ticker, keyed, plan, answer, lots=lots)

    @rule(ticker=places, keyed=st.booleans())
    def entry_without_trouble(self, ticker: str, keyed: bool) -> None:
        self.entry(ticker, keyed, 2, None, "taken")

    @rule(ticker=places, keyed=st.booleans(), part=st.booleans(), plan=plans, answer=answers)
    def exit(self, ticker: str, keyed: bool, part: bool, plan: PlanOf, answer: str) -> None:
        held = [place[0] for place, net in self.broker.net.items() if net and place[0] in SIDES]
        ticker = held[0] if len(held) == 1 else ticker
        self.new("EXIT", ticker, keyed, plan, answer, **({"qty": LOT} if part else {}))

    def new(self, action: str, ticker: str, keyed: bool, plan: PlanOf, answer: str, **more: Any) -> None:
        number = next(self.numbers)
        explicit = f"key {number}" if keyed else None
        contract, product = (LONG, Product.INTRADAY) if ticker == LONG.ticker else (SHORT, Product.MARGIN)
        more |= {"strike": contract.strike, "product": product, "received_at": self.clock.now()}
        sent = Sent(an_alert(action, explicit, f"body {number}", **more), explicit)
        self.sent.append(sent)
        with self.living(plan, sent, answer):
            self.deliver(sent, self.verbs)

    @precondition(lambda self: self.sent)
    @rule(which=some, plan=plans, answer=answers)
    def repeat(self, which: int, plan: PlanOf, answer: str) -> None:
        sent = self.sent[which % len(self.sent)]
        with self.living(plan, sent, answer):
            self.deliver(sent, self.verbs)

    @rule(plan=plans, answer=answers)
    def one_pass(self, plan: PlanOf, answer: str) -> None:
        with self.living(plan, None, answer):
            self.reconcile()

    @rule(seconds=st.sampled_from([1, 5, 15, 45, 100, 900]))
    def time_goes_by(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(is_over=st.sampled_from([False] * 9 + [True]))
    def night(self, is_over: bool) -> None:
        if not is_over:
            return
        self.clock.advance(86_400)
        self.broker.night()

    @rule(state=st.sampled_from([*TradingState, *[TradingState.ACTIVE] * 7]))
    def person_sets(self, state: TradingState) -> None:
        with self.living():
            Control(self.verbs).set_state(state, "test", "because")

    @rule(which=some)
    def person_resolves(self, which: int) -> None:
        """By what the broker's own app shows."""
        found = [o for o in self.rows() if o.status in (S.IN_DOUBT, S.NEEDS_REVIEW)]
        if found:
            order = found[which % len(found)]
            there = order.tag in self.broker.taken
            with self.living():
                verdict = Resolution(S.ACCEPTED if there else S.NOT_PLACED, "test", "looked it up")
                Control(self.verbs).resolve(order.id, verdict)

    # --- the exchange ---------------------------------------------------------------------------------------

    @rule(fills=st.booleans())
    def orders_fill_at_once(self, fills: bool) -> None:
        self.broker.fills = fills

    @rule(which=some, lots=st.integers(1, 2))
    def fills(self, which: int, lots: int) -> None:
        if working := self.broker.working():
            self.broker.fill_part(working[which % len(working)].broker_order_id, lots * LOT)

    @rule(which=some, status=st.sampled_from([BookStatus.CANCELLED, BookStatus.REJECTED, BookStatus.EXPIRED]))
    def ends(self, which: int, status: int) -> None:
        if working := self.broker.working():
            row = working[which % len(working)]
            self.broker.end(row.broker_order_id, status)
            if status == BookStatus.REJECTED:
                self.refused_later.add(row.tag or "")

    @rule(ticker=places)
    def stop_fills(self, ticker: str) -> None:
        product = "INTRADAY" if ticker == LONG.ticker else "MARGIN"
        ident = f"{ticker}-{product}"
        if self.broker.net.get((ticker, product)) and ident in self.broker.protected:
            self.broker.trigger_stop(ident)

    @rule(how=st.sampled_from(["true"] * 4 + ["frozen", "empty"]), late_s=st.sampled_from([0, 0, 3, 60, 119]))
    def book_shows(self, how: str, late_s: int) -> None:
        self.broker.thaw()
        self.broker.late_s = late_s
        if how != "true":
            self.broker.freeze(empty=how == "empty")

    @rule()
    def somebody_trades(self) -> None:
        self.broker.by_hand(OTHER, 1)

    # --- what has to hold -----------------------------------------------------------------------------------

    def rows(self) -> tuple[Order, ...]:
        found: tuple[Order, ...] = self.store.list_orders(SCOPE, OrderFilter(limit=200)).items
        return found

    @invariant()
    def one_order_per_alert_and_none_without(self) -> None:
        rows = self.rows()
        posts = Counter(ticket.tag for ticket in self.broker.ledger)
        assert all(number == 1 for number in posts.values()), posts
        assert set(posts) <= {o.tag for o in rows}, "an order without a row"
        known = {sent.alert.key.body_hash for sent in self.sent}
        assert {o.key.body_hash for o in rows} <= known, "a row without an alert"
        by_key: dict[str, list[Order]] = {}
        for order in rows:
            by_key.setdefault(order.key.digest, []).append(order)
        for same in by_key.values():
            born = sorted(o.created_at for o in same if o.created_at)
            assert len(born) == 1 or same[0].key.kind is KeyKind.DERIVED, same
            assert all(later - before >= DEDUPE for before, later in itertools.pairwise(born)), same

    @invariant()
    def nothing_is_turned_round(self) -> None:
        assert self.broker.turned == 0

    @invariant()
    def no_order_at_the_broker_is_called_a_no(self) -> None:
        """Late writes of a paused process are found out by the next readings (`teardown`)."""
        no = [o for o in self.rows() if o.status in NO and o.tag in self.broker.taken]
        assert [o for o in no if o.tag not in self.late | self.refused_later] == []

    @invariant()
    def counters_are_a_recount(self) -> None:
        entries = [o for o in self.rows() if o.purpose is Purpose.ENTRY]
        counted = [o for o in entries if o.status is not S.DENIED or o.attempt > 1]
        lots = sum(_counted(o) for o in counted) // LOT
        found = self.counters()
        assert (found["orders_day"], found["lots_day"]) == (len(counted), lots), [
            (o.status, o.quantity, o.filled_quantity, o.attempt, o.code) for o in entries
        ]

    @invariant()
    def moves_are_legal(self) -> None:
        for order in self.rows():
            states = [e.status for e in self.store.events(SCOPE, order.id) if e.status is not None]
            for before, after in itertools.pairwise(states):
                assert before is after or after in MOVES[before], (order.id, states)
            assert states[-1] is order.status, (order.status, states)

    def teardown(self) -> None:
        """Everything comes to an end once the broker answers and its book is true."""
        type(self).examples += 1
        self.broker.thaw()
        self.broker.late_s, self.broker.fills = 0.0, True
        self.restart()
        for _ in range(SETTLING_PASSES):
            self.clock.advance(SETTLING_STEP_S)
            self.broker.by_hand(OTHER, 1)
            self.reconcile()
        for name in ("one_order_per_alert_and_none_without", "nothing_is_turned_round"):
            getattr(self, name)()
        self.counters_are_a_recount()
        self.moves_are_legal()
        rows = self.rows()
        assert [o for o in rows if o.status in UNSETTLED | {S.NOT_SENT}] == []
        assert [o for o in rows if o.status is S.EXIT_PENDING and not o.reason] == []
        shown = {row.tag for row in self.broker.book if row.status != BookStatus.REJECTED}
        assert [o for o in rows if o.status in NO and o.tag in shown] == []


def _counted(order: Order) -> int:
    """Contracts that an entry still counts for."""
    if order.status in (S.CANCELLED, S.EXPIRED, S.REJECTED, S.NOT_SENT, S.DENIED):
        return order.filled_quantity
    return order.quantity
