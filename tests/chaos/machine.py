"""Any order of alerts, repeats, exits, deaths, pauses, clock jumps, lagging books, fills, and a person's hands.

A Hypothesis state machine over the real verbs. The processes it kills are desks on one store (tests/chaos/street.py); the
truth it compares with is the exchange's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
)

from app.domain.alert import KeyKind, Product
from app.domain.order import Order, Purpose
from app.domain.risk import TradingState
from app.domain.status import MOVES, UNSETTLED, Status
from app.service.control import Control, Resolution
from app.service.records import BookStatus, OrderFilter
from app.service.under_way import OVERTAKEN
from tests.builders import LOT, SCOPE, an_alert
from tests.chaos.processes import ANSWERS, LONG, SHORT, SIDES, PlanOf, Processes, Sent

S = Status
DEDUPE = timedelta(seconds=40)
NO = frozenset({S.REJECTED, S.NOT_PLACED})
SETTLING_PASSES, SETTLING_STEP_S = 9, 25.0
OTHER = "NSE:SBIN-EQ"
answers = st.sampled_from(["taken"] * 3 + list(ANSWERS))
places = st.sampled_from(list(SIDES))
some = st.integers(0, 10**6)
plans = st.none() | st.tuples(
    st.integers(1, 26), st.sampled_from(["die", "pause"]), st.sampled_from([1, 4, 12, 90])
)


class StreetMachine(Processes):
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
        there = self.broker.net.get((ticker, product)) and ident in self.broker.protected
        if there and not self.broker.is_a_race(ident):
            self.broker.trigger_stop(ident)

    @rule(ticker=places, keyed=st.booleans(), part=st.booleans(), reopened=st.booleans())
    def a_stop_beside_a_resting_exit(self, ticker: str, keyed: bool, part: bool, reopened: bool) -> None:
        """An exit rests, perhaps an entry fills beside it, and the stop fires: by chance that is too rare."""
        product = "INTRADAY" if ticker == LONG.ticker else "MARGIN"
        ident = f"{ticker}-{product}"
        if not self.broker.net.get((ticker, product)) or ident not in self.broker.protected:
            return
        self.broker.fills = False
        self.exit(ticker, keyed, part, None, "taken")
        if reopened:
            self.broker.fills = True
            self.entry_without_trouble(ticker, keyed)
            for _ in range(2):  # longer than any lease of a dead process
                self.clock.advance(15)
                self.one_pass(None, "taken")
            if self._all_is_seen(ident):
                self.broker.beside.pop(ident, None)
        self.stop_fills(ticker)
        for row in self.broker.working():
            if row.ticker == ticker and row.side.sign == -SIDES[ticker]:
                self.broker.fill(row.broker_order_id)

    def _all_is_seen(self, ident: str) -> bool:
        """Whether those passes could see what rests, and what has brought the stop."""
        is_true = self.broker.frozen is None and not self.broker.late_s
        return is_true and not any(o.status in UNSETTLED for o in self.rows())

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
        tried = [o for o in entries if o.status is not S.DENIED or o.attempt > 1 or o.code == OVERTAKEN]
        lots = sum(_counted(o) for o in tried) // LOT
        found = self.counters()
        assert (found["orders_day"], found["lots_day"]) == (len(tried), lots), [
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
