"""What lost an exit, doubled one, or made an entry of one, each told by a reader who tried to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Purpose
from app.domain.outcome import Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import NoMaster
from app.service.control import Control, Resolution
from app.service.notices import from_event
from tests.builders import a_policy
from tests.service.desk import TradingDesk

LOT = 65


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def lost(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("lost")]
    desk.broker.unknown_arrives = False


def test_an_empty_list_of_positions_makes_an_exit_wait_and_no_entry_of_a_sell(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    shown = dict(desk.broker.net)
    desk.broker.net.clear()
    out = desk.alert("EXIT").order
    assert (out.status, out.code) == (Status.EXIT_PENDING, "exit_pending")
    assert "the broker shows 0" in (out.reason or "")
    sell = desk.alert("SELL").order
    assert (sell.status, sell.purpose) == (Status.EXIT_PENDING, Purpose.EXIT)
    assert len(desk.sent()) == 1
    desk.broker.net.update(shown)
    desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)
    assert desk.row(sell).status is Status.DENIED, "the first has closed all there was"


def test_what_stays_missing_is_gone_and_the_exit_that_waits_for_it_ends(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.net.clear()
    out = desk.alert("EXIT").order
    for _ in range(7):
        desk.clock.advance(60)
        desk.reconcile()
    assert (desk.row(out).status, desk.row(out).code) == (Status.DENIED, "nothing_to_exit")
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert len(desk.sent()) == 1


def test_what_the_broker_shows_of_it_is_closed_at_once(desk: TradingDesk) -> None:
    desk.held(lots=2)
    desk.reconcile()
    for place in desk.broker.net:
        desk.broker.net[place] = LOT
    assert desk.alert("EXIT").order.quantity == LOT


def test_an_exit_that_never_reached_the_broker_pages_and_its_legs_go_back_on(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    lost(desk)
    out = desk.alert("EXIT").order
    assert out.status is Status.IN_DOUBT
    assert not desk.broker.protected
    desk.proven_absent(out)
    assert desk.broker.protected, "nobody else would put them back"
    event = next(e for e in desk.store.events(out.scope, out.id) if e.event is Event.ORDER_NOT_PLACED)
    notice = from_event(desk.row(out), event)
    assert notice is not None
    assert (notice.code, notice.page) == ("order_not_placed", True)
    assert "still open: send an EXIT again" in notice.message
    desk.broker.next_place = []
    assert desk.alert("EXIT").order.quantity == LOT


def test_an_entry_that_never_reached_the_broker_is_told_without_a_page(desk: TradingDesk) -> None:
    lost(desk)
    entry = desk.alert("BUY").order
    desk.proven_absent(entry)
    event = next(e for e in desk.store.events(entry.scope, entry.id) if e.event is Event.ORDER_NOT_PLACED)
    notice = from_event(desk.row(entry), event)
    assert notice is not None
    assert (notice.code, notice.page) == ("order_not_placed", False)


def test_a_refused_exit_pages(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [Refused("-99", "no")]
    out = desk.alert("EXIT").order
    assert out.status is Status.REJECTED
    event = next(e for e in desk.store.events(out.scope, out.id) if e.event is Event.ORDER_REJECTED)
    notice = from_event(desk.row(out), event)
    assert notice is not None
    assert notice.page


def test_all_clients_exit_that_never_was_gives_each_his_own_back(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    lost(desk)
    out = desk.alert("EXIT", client="admin").order
    desk.proven_absent(out)
    desk.broker.next_place = []
    for client in ("anna", "ben"):
        assert desk.alert("EXIT", client=client).order.quantity == LOT
    assert desk.net() == 0


@pytest.mark.parametrize("verdict", [Status.NOT_PLACED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED])
def test_all_clients_exit_resolved_by_hand_gives_each_his_own_back(
    desk: TradingDesk, verdict: Status
) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    lost(desk)
    out = desk.alert("EXIT", client="admin").order
    desk.store.data.orders[out.id] = replace(desk.row(out), status=Status.NEEDS_REVIEW)
    Control(desk.desk).resolve(out.id, Resolution(status=verdict, by="a person", reason="not in the book"))
    desk.broker.next_place = []
    for client in ("anna", "ben"):
        assert desk.alert("EXIT", client=client).order.quantity == LOT


def test_a_sell_that_meets_a_buy_while_its_price_comes_is_an_exit(desk: TradingDesk) -> None:
    """Both came at once: when the SELL was first looked at, nothing was held."""

    def bought_meanwhile() -> None:
        del desk.broker.on["quotes"]
        desk.held()

    desk.broker.on["quotes"] = bought_meanwhile
    out = desk.alert("SELL").order
    assert (out.purpose, out.status, out.stop_distance) == (Purpose.EXIT, Status.ACCEPTED, None)
    assert desk.net() == 0


def test_a_waiting_exit_leaves_alone_what_was_opened_after_it(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.fills = False
    first = desk.alert("EXIT").order
    assert first.status is Status.ACCEPTED
    second = desk.alert("EXIT").order
    assert second.status is Status.EXIT_PENDING
    desk.broker.fill(first.broker_order_id or "")
    desk.broker.fills = True
    desk.clock.advance(1)
    later = desk.held()
    desk.reconcile()
    assert desk.row(second).status is Status.DENIED
    assert (desk.row(later).status, desk.net()) == (Status.FILLED, LOT)


def test_a_waiting_exit_does_not_cancel_a_later_entry(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    lost(desk)
    entry = desk.alert("BUY").order
    out = desk.alert("EXIT").order
    assert out.status is Status.EXIT_PENDING
    desk.clock.advance(1)
    desk.broker.next_place, desk.broker.fills = [], False
    later = desk.alert("BUY").order
    assert later.status is Status.ACCEPTED
    desk.broker.fills = True
    desk.store.data.orders[entry.id] = replace(desk.row(entry), status=Status.NOT_PLACED)
    desk.reconcile()
    assert desk.row(out).quantity == LOT
    assert Event.ENTRY_CANCEL not in desk.events(later)


def test_a_restored_holding_waits_for_the_index_and_is_found_by_its_exit(desk: TradingDesk) -> None:
    desk.held()
    desk.store.data.orders.clear()
    desk.store.data.keys.clear()
    desk.contracts.missing = True
    with pytest.raises(NoMaster):
        desk.reconcile()
    assert not desk.store.data.orders
    desk.contracts.missing = False
    desk.reconcile()
    assert desk.store.data.states[desk.desk.scope] is TradingState.HALTED
    desk.clock.advance(1)
    assert desk.alert("EXIT", client="admin").order.quantity == LOT


def test_the_other_client_s_part_keeps_its_stop(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    assert desk.alert("EXIT", client="anna").order.status is Status.ACCEPTED
    assert desk.broker.protected
    assert "unprotected" not in desk.notifier.pages


def test_without_an_index_no_waiting_exit_is_told_that_nothing_is_there(desk: TradingDesk) -> None:
    """What it is to close may be among the orders that can only be adopted once the index is back."""
    restored = desk.held()
    del desk.store.data.orders[restored.id]
    desk.clock.advance(1)
    lost(desk)
    entry = desk.alert("BUY").order
    out = desk.alert("EXIT").order
    assert (entry.status, out.status) == (Status.IN_DOUBT, Status.EXIT_PENDING)
    desk.broker.next_place = []
    desk.contracts.missing = True
    desk.proven_absent(entry)
    for _ in range(30):
        desk.clock.advance(10)
        desk.one_pass()
    assert (desk.row(entry).status, desk.row(out).status) == (Status.NOT_PLACED, Status.EXIT_PENDING)
    desk.contracts.missing = False
    desk.reconcile()
    Control(desk.desk).set_state(TradingState.ACTIVE, "cli:me", "what was restored is ours")
    desk.reconcile()
    assert (desk.row(out).status, desk.row(out).quantity) == (Status.ACCEPTED, LOT)
