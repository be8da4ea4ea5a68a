"""64 exits of one position at once, over three instances on one Postgres: exactly the position is closed.

Also while the entry, an exit or the cancel of the legs is in doubt, while a stop leg fills, and while the book knows of
a fill that our rows do not. The broker is in memory, so that 200 such crowds take minutes; it never looks the other way:
each fill is checked for having turned the position round.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

from app.domain.alert import Alert
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Mode, Order, Purpose, Scope, Side
from app.domain.outcome import Unknown
from app.domain.status import WORKING, Status
from app.errors import ServiceError, Unavailable
from app.service.desk import Desk
from app.service.place_order import PlaceOrder
from app.service.ports import Store
from app.service.reconcile import Reconcile
from app.service.records import OrderFilter
from app.service.settle import Settle
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.builders import LOT, SCOPE, a_policy, an_alert
from tests.chaos.judge import Verdict
from tests.chaos.market import CONTRACT, Market, Walking
from tests.chaos.street import QuickStore
from tests.fakes import FakeContracts, FakeNotifier

S = Status
EXITS, INSTANCES = 64, 3
LOTS = 4
DEADLINE_S = 4.0
POLL_S = 0.001
RESENDS = 3
"""Whoever finds the lease taken for all of its time gets a 503, and TradingView sends the alert again."""
WAYS = (
    "plain",
    "an exit in doubt, taken",
    "an exit in doubt, lost",
    "the entry in doubt, taken",
    "the entry in doubt, lost",
    "the legs in doubt, off",
    "the legs in doubt, on",
    "a stop fills",
    "filled in the book only",
    "half filled",
    "exits that do not fill",
    "a lot each",
)
PASSES = 24
STEP_S = 15.0
UNSETTLED = frozenset({S.SENDING, S.IN_DOUBT, S.NOT_SENT})
OTHER = "NSE:SBIN-EQ"


class Crowd:
    """One position and all who want to get out of it."""

    def __init__(self, stores: Sequence[Store], clock: Walking, number: int) -> None:
        self.way, self.random = WAYS[number % len(WAYS)], random.Random(number)
        self.side = Side.BUY if self.random.random() < 0.7 else Side.SELL
        self.clock, self.broker = clock, Market(clock, self.side)
        self.scope = Scope(Mode.LIVE, f"EXITS{number}")
        self.notifier = FakeNotifier()
        policy = a_policy(limits=Limits(max_lots=LOTS), request_deadline_s=DEADLINE_S)
        stores[0].ensure_scope(self.scope)
        self.desks = [
            Desk(store, self.broker, FakeContracts([CONTRACT]), clock, self.scope, policy, self.notifier)
            for store in stores
        ]
        self.errors: Counter[str] = Counter()
        self.failures: list[str] = []
        self.numbers = itertools.count(1)

    def alert(self, action: str, **changes: Any) -> Alert:
        return an_alert(
            action, body=f"{self.scope.account} {next(self.numbers)}", received_at=self.clock.now(), **changes
        )

    def deliver(self, alert: Alert, desk: Desk) -> Order | None:
        try:
            return PlaceOrder(desk)(alert, request_id="r", started=self.clock.monotonic()).order
        except ServiceError as error:
            self.errors[f"{503 if isinstance(error, Unavailable) else 409} {error.code}"] += 1
        except Exception:  # noqa: BLE001 - anything else is what this looks for
            self.failures.append(traceback.format_exc())
        return None

    def enter(self) -> None:
        broker = self.broker
        if "entry in doubt" in self.way:
            broker.next_place.append(Unknown("timed out"))
            broker.unknown_arrives = self.way.endswith("taken")
        broker.fills = self.way not in ("filled in the book only", "half filled")
        order = self.deliver(self.alert(self.side.value, lots=LOTS), self.desks[0])
        assert order is not None, self.errors
        assert order.status is (S.IN_DOUBT if "entry in doubt" in self.way else S.ACCEPTED), order
        working = broker.work_on()
        if working and self.way == "half filled":
            broker.fill_half(working[0])
        elif working:
            with broker.lock:
                broker.fill(working[0])
        broker.fills = True

    def trouble(self) -> None:
        """What goes wrong while the exits come."""
        broker, way = self.broker, self.way
        if "exit in doubt" in way:
            broker.next_place.append(Unknown("timed out"))
            broker.unknown_arrives = way.endswith("taken")
        elif "legs in doubt" in way:
            broker.next_protection.append(Unknown("timed out"))
            broker.legs_go = way.endswith("off")
        elif way == "a stop fills":
            left = [self.random.choice(range(1, 6))]
            what = self.random.choice(("order_book", "positions", "set_protection"))

            def fill() -> None:
                left[0] -= 1
                if left[0] == 0:
                    broker.stop_fills(f"{CONTRACT.ticker}-INTRADAY")

            broker.on[what] = fill
        broker.fills = way != "exits that do not fill"

    def storm(self) -> None:
        more = {"qty": LOT} if self.way == "a lot each" else {}
        alerts = [self.alert("EXIT", **more) for _ in range(EXITS)]
        for attempt in range(1 + RESENDS):
            barrier = threading.Barrier(len(alerts))

            def one(
                number: int, alerts: list[Alert], attempt: int, barrier: threading.Barrier
            ) -> Order | None:
                barrier.wait()
                return self.deliver(alerts[number], self.desks[(number + attempt) % INSTANCES])

            work = partial(one, alerts=alerts, attempt=attempt, barrier=barrier)
            with ThreadPoolExecutor(len(alerts)) as pool:
                found = list(pool.map(work, range(len(alerts))))
            alerts = [
                a for a, row in zip(alerts, found, strict=True) if row is None or row.status is S.NOT_SENT
            ]
            if not alerts:
                return

    def settle(self) -> None:
        reconcile = Reconcile(self.desks[2], Settle(2, 1))
        self.broker.on.clear()
        for number in range(PASSES):
            self.clock.walked += STEP_S
            with self.broker.lock:
                self.broker.by_hand(OTHER, LOT)
            if number == 3:
                self.broker.fills = True
                if self.random.random() < 0.5:
                    for ident in self.broker.work_on():
                        with self.broker.lock:
                            self.broker.fill(ident)
            try:
                reconcile(60.0)
            except ServiceError as error:
                self.errors[f"pass {error.code}"] += 1
            rows = self.rows()
            if number > 3 and not any(o.status in UNSETTLED | WORKING | {S.EXIT_PENDING} for o in rows):
                break

    def rows(self) -> tuple[Order, ...]:
        return self.desks[0].store.list_orders(self.scope, OrderFilter(limit=200)).items

    @property
    def net(self) -> int:
        return self.broker.net.get((CONTRACT.ticker, "INTRADAY"), 0) * self.side.sign

    def judge(self) -> Verdict:
        verdict, rows = Verdict(), self.rows()
        said = Counter(f"{o.purpose} {o.status}" for o in rows)
        text = f"{self.way} {self.scope.account} {self.side}: {dict(said)}, {dict(self.errors)}"
        if self.broker.turned:
            verdict.note("doubled", f"{-self.broker.turned} contracts past zero, {text}")
        waits = [o for o in rows if o.status in (S.EXIT_PENDING, S.NEEDS_REVIEW) and o.reason]
        if self.net > 0 and not waits:
            verdict.note("lost", f"{self.net} are left and no row says why, {text}")
        if self.net > 0 and not any("NEEDS_REVIEW" in name or "EXIT_PENDING" in name for name in said):
            verdict.note("unaccounted", f"{self.net} are left, {text}")
        known = {o.tag for o in rows}
        strange = [t for t in self.broker.ledger if t.tag not in known]
        if strange or self.failures or any(o.status in UNSETTLED for o in rows):
            verdict.note("unaccounted", f"strangers {strange}, {self.failures[:1]}, {text}")
        posts = Counter(t.tag for t in self.broker.ledger)
        if any(number > 1 for number in posts.values()):
            verdict.note("doubled", f"one tag sent twice, {text}")
        if not all(name.startswith(("503", "pass")) for name in self.errors):
            verdict.note("unaccounted", text)
        exits = [o for o in rows if o.purpose is Purpose.EXIT]
        if not exits:
            verdict.note("lost", f"no exit left a row, {text}")
        verdict.review += any(o.status is S.NEEDS_REVIEW for o in rows)
        return verdict


class SharedStore(QuickStore):
    """In memory, for three desks at once: transactions one after the other, leases waited for."""

    def take_lock(self, name: str, owner: str, ttl: timedelta, deadline: Deadline) -> bool:
        while not (taken := super().take_lock(name, owner, ttl, deadline)):
            if deadline.passed(self.clock.monotonic()):
                break
            time.sleep(POLL_S)
        return taken


def run(url: str | None, numbers: Sequence[int]) -> list[Verdict]:
    """One verdict per crowd. Opens and closes its own stores, so that it may run in a fork. Without a `url`: in memory."""
    clock = Walking()
    kept = [] if url is None else [SqlStore(Database(url, clock), clock) for _ in range(INSTANCES)]
    found = []
    try:
        for number in numbers:
            clock.walked = 0.0
            crowd = Crowd(kept or [SharedStore(clock, SCOPE)] * INSTANCES, clock, number)
            crowd.enter()
            crowd.trouble()
            crowd.storm()
            crowd.settle()
            found.append(crowd.judge())
    finally:
        for store in kept:
            store.close()
    return found
