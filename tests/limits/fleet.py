"""Three processes of the real service on one Postgres, and a broker of which every tenth order comes to something else."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from app.domain.contract import ist_date
from app.store.engine import Database
from tests.chaos.crowd import UNLIMITED, contracts
from tests.chaos.fork import Child, Report
from tests.chaos.simulator import SimProcess
from tests.chaos.world import ADMIN, OPENING, STEP_S, WEBHOOK, SetClock, World
from tests.fyers_sim import FyersSim, sample_masters
from tests.simulator.api import endpoint_of
from tests.simulator.book import CANCELLED
from tests.simulator.exchange import Exchange
from tests.simulator.faults import ORDER_POST, Fault, make_fault
from tests.simulator.wire import Reply, Request

INSTANCES = 3
DEADLINE_S = 20.0
"""These are about who wins, not about how long many threads wait for two cores."""
SETTLED_AFTER = 12
LOT = 65
READY_TRIES = 50
LOADED_BEFORE = (
    "app.brokers.fyers.broker",
    "app.brokers.fyers.symbols",
    "app.brokers.guard",
    "app.store.seals_gcs",
    "app.store.sql",
    "app.store.sql_audit",
    "app.store.sql_clients",
    "app.store.sql_config",
    "app.web.openapi",
)
HAND = "NSE:SBIN-EQ"


class Rough(FyersSim):
    """Of forty orders one is rejected, one cancelled by the exchange, one's answer is lost and one is lost whole.

    `short`: a ledger line for every fill after which the account is short.
    """

    FAULTS: ClassVar[dict[int, str]] = {7: "rms_reject", 17: "reset_created", 27: "reset"}
    CANCELS: ClassVar[frozenset[int]] = frozenset({37})
    EVERY: ClassVar[int] = 40

    def __init__(self, **given: Any) -> None:
        self._asked, self._answered, self._due = itertools.count(1), itertools.count(1), 0
        super().__init__(**given)
        self.exchange.fill = self._filled  # type: ignore[method-assign]

    def fault_for(self, method: str, path: str) -> Fault | None:
        found = super().fault_for(method, path)
        if found is not None or endpoint_of(method, path) != ORDER_POST:
            return found
        name = self.FAULTS.get(next(self._asked) % self.EVERY)
        return make_fault(name) if name else None

    def respond(self, request: Request, fault: Fault | None) -> Reply:
        if endpoint_of(request.method, request.path) != ORDER_POST or fault is not None:
            return super().respond(request, fault)
        number = next(self._answered)
        with self.exchange.lock:
            self._due += number % self.EVERY in self.CANCELS
            cancels = self._due > 0 and request.json().get("side") == 1  # else the next entry is the one
            self._due -= cancels
        if not cancels:
            return super().respond(request, fault)
        with self.exchange.lock:
            before, had = self.fill_mode, len(self.exchange.orders)
            rests = (
                number // self.EVERY % 2 or request.json()["qty"] <= LOT
            )  # of one lot nothing would be left
            self.fill_mode = "rest" if rests else f"partial:{LOT}"
            reply = super().respond(request, fault)
            self.fill_mode = before
            if len(self.exchange.orders) > had:
                order = list(self.exchange.orders.values())[-1]
                unfilled = order.remaining
                if unfilled:
                    order.status = CANCELLED
                    self.ledger.record("cancelled", order_id=order.id, unfilled=unfilled)
        return reply

    def _filled(self, order_id: str, qty: int | None = None, price: Decimal | None = None) -> None:
        Exchange.fill(self.exchange, order_id, qty, price)
        intent = self.exchange.orders[order_id].intent
        net = self.exchange.position(intent.instrument, intent.product).net
        if net < 0:
            self.ledger.record("short", order_id=order_id, ticker=intent.instrument.ticker, net=net)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the instances share. `changes`: settings, as their fields are called and typed."""

    directory: Path
    url: str
    clock: SetClock
    sim: SimProcess
    account: str
    changes: dict[str, Any]

    def run(self, work: Callable[[World, int], object]) -> list[dict[str, Any]]:
        """`work(world, number)` in a process each, all at once; what they reported. One that fails fails this."""

        def instance(report: Report, number: int) -> None:
            world = World(
                self.directory,
                Database(self.url, self.clock),
                self.clock,
                self.sim.door,
                self.account,
                report,
                deadline_s=DEADLINE_S,
                changes={**UNLIMITED, "expected_processes": INSTANCES, **self.changes},
            )
            work(world, number)

        for name in LOADED_BEFORE:  # each process would load them for itself
            importlib.import_module(name)
        log = self.directory / "log"
        children = [Child.start(partial(instance, number=n), log) for n in range(INSTANCES)]
        with ThreadPoolExecutor(INSTANCES) as pool:
            ended = list(pool.map(Child.finish, children))
        errors = [line["error"] for lines, status in ended if status for line in lines[-1:]]
        assert not errors, errors[0][-1500:]
        return [line for lines, _ in ended for line in lines]


@contextmanager
def fleet(
    directory: Path, url: str, kind: type[FyersSim] = Rough, *, number: int = 0, **changes: Any
) -> Iterator[Fleet]:
    """Those of another `number` are another account's, with a broker of its own."""
    clock = SetClock()
    masters = sample_masters(ist_date(OPENING))
    if not (directory / "contracts-fyers").exists():
        contracts(directory, masters)
    sim = SimProcess(directory / f"ledger-{number}.jsonl", masters, OPENING, kind)
    try:
        yield Fleet(directory, url, clock, sim, f"XLIMITS{number}-200", changes)
    finally:
        sim.close()


def entry(number: int, **fields: Any) -> dict[str, Any]:
    """An alert of its own: its `strategy` says which."""
    return {
        "token": WEBHOOK,
        "symbol": "NIFTY",
        "strikeprice": 24500,
        "optionType": "CE",
        "expiry": "WEEKLY",
        "action": "BUY",
        "lots": 1,
        "strategy": f"alert {number}",
        **fields,
    }


def post(world: World, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One delivery, from any thread."""
    answer = world.app.test_client(use_cookies=False).post("/webhook", json=body)
    return answer.status_code, answer.get_json(silent=True) or {}


def admin(world: World, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One word of the operator's."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    answer = world.app.test_client(use_cookies=False).post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.get_json()
    return said


def ready(world: World) -> None:
    """Until entries pass: a Redis that is new is not believed at once, and until then a pass may find no budget."""
    for _ in range(READY_TRIES):
        world.one_pass()
        with world.ports.store.read() as tx:
            if world.ports.desk().reconciled(tx):
                return
        threading.Event().wait(0.2)
    raise AssertionError("no pass has succeeded")


def settle(world: World) -> None:
    """Passes with time and trade going by, until each doubt can have been proven either way."""
    for _ in range(SETTLED_AFTER):
        pass_on(world)


def pass_on(world: World) -> None:
    world.advance(STEP_S)
    world.door.call("place_by_hand", ticker=HAND, side=1, qty=1)
    world.one_pass()


@contextmanager
def following(world: World) -> Iterator[None]:
    """The reconciler beside everything else, one pass after the other."""
    over = threading.Event()

    def passes() -> None:
        while not over.wait(0.2):
            world.one_pass()

    thread = threading.Thread(target=passes)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
