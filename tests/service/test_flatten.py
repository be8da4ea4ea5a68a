"""The kill switch: halted first, flat at the end, never short, and what a hand opened only when it is typed out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.brokers.guard import CallBudget, Guard, Rates
from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Order, Side, Ticket, tag_of
from app.domain.outcome import NotSent, Outcome, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import ServiceError
from app.service.control import Control
from app.service.flatten import KillSwitch
from app.service.place_order import PlaceOrder
from app.service.position import Place
from app.service.reconcile import Reconcile
from app.service.records import AuditEvent
from tests.builders import LOT, NOW, SCOPE, a_policy, an_order
from tests.fakes import FakeBroker, FakeClock
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def state(desk: TradingDesk) -> TradingState:
    with desk.store.read() as tx:
        return tx.trading_state(SCOPE)


def test_flatten_closes_all_clients_and_leaves_a_hands_position(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b", lots=2)
    desk.held(client="b", product=Product.MARGIN)
    desk.broker.by_hand(desk.contract.ticker, LOT)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert (state(desk), done.problems) == (TradingState.HALTED, [])
    assert (desk.net(), desk.net(Product.MARGIN)) == (LOT, 0)
    assert desk.alert("BUY").order.code == "trading_state"


def test_all_positions_closes_the_hands_too(desk: TradingDesk) -> None:
    desk.broker.by_hand(desk.contract.ticker, LOT)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert (desk.net(), len(done.closed_by_hand)) == (0, 1)
    assert "closed_by_hand" in desk.notifier.pages


def test_above_the_freeze_quantity_it_exits_until_nothing_is_left(desk: TradingDesk) -> None:
    desk.held(lots=27)
    desk.held(lots=27)
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert (desk.net(), [o.quantity for o in done.exits]) == (0, [1755, 1755])


def test_a_working_entry_is_cancelled(desk: TradingDesk) -> None:
    desk.broker.fills = False
    order = desk.alert("BUY").order
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    desk.reconcile()
    assert (done.cancelled, desk.row(order).status, desk.net()) == ([order.id], Status.CANCELLED, 0)


def test_cancel_takes_exits_that_do_not_fill_as_well(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.fills = False
    waiting = desk.alert("EXIT").order
    assert KillSwitch(desk.desk).cancel("cli:me", "enough").cancelled == [waiting.id]


def test_cancel_names_what_is_on_its_way(desk: TradingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thrown between an order's last check and its write: it is to work at the broker, and has no id yet."""
    desk.broker.fills = False
    take, said = desk.broker.take, list[str]()

    def thrown(ticket: Ticket) -> str:
        said.extend(KillSwitch(desk.desk).cancel("cli:me", "enough").problems)
        return take(ticket)

    monkeypatch.setattr(desk.broker, "take", thrown)
    order = desk.alert("BUY").order
    assert (order.status, len(said)) == (Status.ACCEPTED, 1)
    assert order.id in said[0]
    assert "is SENDING, not cancelled" in said[0]


def test_with_an_entry_in_doubt_the_exit_waits_and_runs_though_halted(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("timed out")]
    doubt = desk.alert("BUY").order
    done = KillSwitch(desk.desk).flatten("cli:me", "enough")
    assert [o.status for o in done.exits] == [Status.EXIT_PENDING]
    assert desk.net() == LOT
    desk.reconcile()
    desk.reconcile()
    assert (desk.row(doubt).status, desk.net()) == (Status.FILLED, 0)
    desk.reconcile()
    assert desk.net() == 0


def waiting_exit(desk: TradingDesk) -> Order:
    """A client's, behind an entry in doubt."""
    desk.broker.next_place = [Unknown("timed out")]
    desk.alert("BUY")
    order = desk.alert("EXIT").order
    assert order.status is Status.EXIT_PENDING
    return order


@pytest.mark.parametrize("how", ["cancel", "flatten"])
def test_an_exit_that_waited_is_ended_and_never_closes_what_comes_after(desk: TradingDesk, how: str) -> None:
    out = waiting_exit(desk)
    done = getattr(KillSwitch(desk.desk), how)("cli:me", "enough")
    assert out.id in done.cancelled
    assert (desk.row(out).status, desk.row(out).code) == (Status.DENIED, "kill_switch")
    assert desk.events(out)[-1] is Event.ORDER_DENIED
    desk.reconcile()
    left = desk.net()
    assert left == (LOT if how == "cancel" else 0)
    Control(desk.desk).set_state(TradingState.ACTIVE, "cli:me", "on again")
    desk.alert("BUY")
    desk.reconcile()
    assert desk.net() == left + LOT


def test_a_halt_alone_keeps_it_and_sends_nothing_until_exits_may_pass(desk: TradingDesk) -> None:
    out = waiting_exit(desk)
    Control(desk.desk).set_state(TradingState.HALTED, "cli:me", "going away")
    for _ in range(3):
        desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.EXIT_PENDING, LOT)
    Control(desk.desk).set_state(TradingState.REDUCING, "cli:me", "out, and nothing else")
    desk.reconcile()
    assert (desk.row(out).status.value in ("ACCEPTED", "FILLED"), desk.net()) == (True, 0)


def test_an_exit_in_doubt_is_not_sold_again(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT").order.status is Status.IN_DOUBT
    KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    for _ in range(3):
        desk.reconcile()
    assert desk.net() == 0


def test_a_hands_close_never_sells_what_an_order_of_ours_in_doubt_may_have_sold(desk: TradingDesk) -> None:
    """The exit in doubt has not shown yet: by our own rows nothing is left to sell, by the broker's one lot is."""
    desk.held()
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    doubt = desk.alert("EXIT").order
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert "close_position" not in desk.broker.calls
    assert done.problems
    desk.broker.take(desk.row(doubt).ticket())  # now it does, late
    desk.reconcile()
    assert desk.net() == 0


def test_all_positions_goes_on_after_one_that_the_broker_did_not_answer(desk: TradingDesk) -> None:
    desk.broker.by_hand("NSE:X", LOT)
    desk.broker.by_hand("NSE:Y", LOT)
    with desk.store.write() as tx:
        tx.insert_order(
            an_order(7, ticker="NSE:X", status=Status.IN_DOUBT),
            AuditEvent(Event.ORDER_IN_DOUBT, NOW, Status.IN_DOUBT, {}),
        )
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert (desk.broker.net["NSE:X", "INTRADAY"], desk.broker.net["NSE:Y", "INTRADAY"]) == (LOT, 0)
    assert any("NSE:X" in line for line in done.problems)


def test_where_another_instance_is_exiting_nothing_is_closed_beside_it(desk: TradingDesk) -> None:
    desk.held()
    ours = Place(SCOPE, desk.contract.ticker, Product.INTRADAY).lease
    assert desk.store.take_lock(ours, "another", timedelta(minutes=1), Deadline(0))
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert (desk.net(), "close_position" in desk.broker.calls) == (LOT, False)
    assert any("not exited" in line for line in done.problems)


def test_an_order_that_comes_up_before_the_close_stops_it(desk: TradingDesk) -> None:
    """Between the reading of the positions and the close an order of ours has appeared in one of them."""
    desk.broker.by_hand("NSE:X", LOT)

    def appears() -> None:
        if desk.broker.calls.count("positions") < 3:
            return
        with desk.store.write() as tx:
            order = an_order(7, ticker="NSE:X", status=Status.IN_DOUBT)
            tx.insert_order(order, AuditEvent(Event.ORDER_IN_DOUBT, NOW, Status.IN_DOUBT, {}))

    desk.broker.on["positions"] = appears
    done = KillSwitch(desk.desk).flatten("cli:me", "enough", all_positions=True)
    assert desk.broker.net["NSE:X", "INTRADAY"] == LOT
    assert any("is IN_DOUBT" in line for line in done.problems)


class Watched(FakeBroker):
    """Keeps the lowest net of every contract; late orders arrive when they are told to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.lowest = 0
        self.late: list[Ticket] = []

    def fill(self, ident: str, price: Decimal = Decimal(101)) -> None:
        super().fill(ident, price)
        self.lowest = min(self.lowest, *self.net.values())

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        lost = bool(self.next_place) and not self.unknown_arrives and isinstance(self.next_place[0], Unknown)
        outcome = super().place(ticket, before_send, reduces=reduces)
        if lost and isinstance(outcome, Unknown):
            self.late.append(ticket)
        return outcome


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.slow] * (n > 15)) for n in range(100)])
def test_whatever_is_working_held_or_in_doubt_ends_flat_and_is_never_short(seed: int) -> None:
    """Random crowds of orders of several clients; the kill switch is used again until it has nothing to say."""
    dice = random.Random(seed)
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))
    desk.broker = broker = Watched(desk.clock)
    desk.desk = replace(desk.desk, broker=broker)
    desk.service, desk.reconcile = PlaceOrder(desk.desk), Reconcile(desk.desk)
    for _ in range(dice.randint(1, 8)):
        broker.fills = dice.random() < 0.7
        broker.unknown_arrives = dice.random() < 0.5
        broker.next_place = [Unknown("timed out")] if dice.random() < 0.35 else []
        product = dice.choice([Product.INTRADAY, Product.MARGIN])
        action = dice.choice(["BUY", "BUY", "BUY", "EXIT"])
        more: dict[str, Any] = {} if action == "EXIT" else {"lots": dice.randint(1, 30)}
        try:
            desk.alert(action, client=dice.choice("ab"), product=product, **more)
        except ServiceError:
            continue  # e.g. an exit that waits for another's lease: nothing was sent
        if dice.random() < 0.2:
            desk.reconcile()
    broker.next_place, broker.fills, broker.unknown_arrives = [], True, True
    for turn in range(6):
        KillSwitch(desk.desk).flatten("cli:me", "enough")
        for row in [r for r in broker.book if r.is_working and dice.random() < 0.5]:
            broker.fill(row.broker_order_id)
        if broker.late and turn == dice.randint(0, 2):
            broker.take(broker.late.pop())
        for _ in range(6):  # time for the doubts to be settled either way
            desk.clock.advance(20)
            broker.by_hand("NSE:OTHER", LOT)
            desk.reconcile()
    assert broker.lowest >= 0
    assert {n for (ticker, _), n in broker.net.items() if ticker == desk.contract.ticker} <= {0}
    with desk.store.read() as tx:
        left = tx.open_orders(SCOPE)
    assert left == ()


def test_a_breaker_that_entries_have_opened_lets_a_cancel_pass(desk: TradingDesk) -> None:
    """A broker that loses orders is when a person halts."""
    budget = CallBudget(Rates(), desk.clock, desk.notifier)
    guard = Guard(desk.broker, desk.clock, desk.notifier, budget, sleep=desk.clock.advance)
    desk.desk = replace(desk.desk, broker=guard)
    desk.service = PlaceOrder(desk.desk)
    desk.broker.fills = desk.broker.unknown_arrives = False
    order = desk.alert("BUY").order
    for number in range(5):
        desk.broker.next_place = [Unknown("timed out")]
        desk.alert("BUY", client=f"c{number}")
        desk.clock.advance(1)
    assert not guard.is_closed
    assert KillSwitch(desk.desk).cancel("me", "enough").cancelled == [order.id]


@pytest.mark.parametrize("hours", [True, False])
def test_an_order_whose_contract_the_index_does_not_list_is_flattened_too(*, hours: bool) -> None:
    """Adopted after a restore."""
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=50, enforce_hours=hours)))
    desk.reconcile()
    desk.clock.advance(2)
    tag = tag_of(desk.policy.tag_prefix, "Z" * 26)
    desk.broker.take(Ticket("NSE:GONE26DEC1CE", Side.BUY, LOT, Product.INTRADAY, tag))
    for _ in range(3):
        desk.clock.advance(61)
        desk.reconcile()
    done = KillSwitch(desk.desk).flatten("me", "enough")
    assert (desk.broker.net["NSE:GONE26DEC1CE", "INTRADAY"], done.problems) == (0, [])
