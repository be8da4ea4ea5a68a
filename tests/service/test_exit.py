"""Exits, judged by what the broker's ledger and our rows show afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from app.domain.alert import ADMIN_CLIENT, Product
from app.domain.audit import Event
from app.domain.order import Purpose
from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.risk import Limits, TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed, OutOfTime
from tests.builders import LOT, NOW, SCOPE, a_contract, a_policy
from tests.service.desk import TradingDesk

LEGS = (Decimal("15.00"), Decimal("25.00"))


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def exits(desk: TradingDesk) -> list[tuple[str, int]]:
    return [(side, quantity) for _, side, quantity in desk.sent() if side == "SELL"]


def test_two_one_lot_entries_are_closed_by_one_exit_under_a_cap_of_one_lot(desk: TradingDesk) -> None:
    desk.held()
    desk.held()
    order = desk.alert("EXIT").order
    assert (order.status, order.purpose, order.quantity) == (Status.ACCEPTED, Purpose.EXIT, 2 * LOT)
    ticket = desk.broker.ledger[-1]
    assert (ticket.stop_distance, ticket.target_distance) == (None, None)
    assert (exits(desk), desk.net()) == ([("SELL", 2 * LOT)], 0)


def test_a_second_exit_gives_none(desk: TradingDesk) -> None:
    desk.held()
    desk.alert("EXIT")
    second = desk.alert("EXIT").order
    assert (second.status, second.code) == (Status.DENIED, "nothing_to_exit")
    assert len(exits(desk)) == 1


def test_a_contract_bought_by_hand_is_never_sold(desk: TradingDesk) -> None:
    desk.broker.by_hand(desk.contract.ticker, LOT)
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    desk.held()
    assert desk.alert("EXIT").order.quantity == LOT
    assert (exits(desk), desk.net()) == ([("SELL", LOT)], LOT)


def test_a_position_opened_by_hand_after_a_stop_out_is_not_ours(desk: TradingDesk) -> None:
    entry = desk.held()
    desk.broker.by_hand(desk.contract.ticker, -LOT)  # the stop leg
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert [(c, d) for c, d, _ in desk.store.data.adjustments] == [(entry.client, -LOT)]
    desk.broker.by_hand(desk.contract.ticker, LOT)
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert exits(desk) == []


def test_last_weeks_contract_is_what_exit_weekly_closes(desk: TradingDesk) -> None:
    late = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    held = replace(desk.contract, session_end=late)
    desk.contracts.contracts = [held]
    desk.held()
    desk.contracts.contracts = [a_contract(date(2026, 12, 1)), replace(held, session_end=NOW)]
    order = desk.alert("EXIT").order
    assert (order.ticker, order.status) == (held.ticker, Status.ACCEPTED)


def test_an_exit_needs_no_master_and_no_quote(desk: TradingDesk) -> None:
    desk.held()
    desk.contracts.missing = True
    desk.broker.fail = {"quotes"}
    assert desk.alert("EXIT").order.status is Status.ACCEPTED


def test_several_held_and_none_by_the_rule_is_ambiguous(desk: TradingDesk) -> None:
    later = a_contract(date(2026, 12, 1))
    desk.contracts.contracts = [desk.contract, later]
    desk.held()
    desk.held(expiry=date(2026, 12, 1))
    desk.contracts.missing = True
    order = desk.alert("EXIT").order
    assert order.code == "ambiguous_exit"
    assert order.reason is not None
    assert desk.contract.ticker in order.reason
    assert later.ticker in order.reason
    desk.contracts.missing = False
    chosen = desk.alert("EXIT").order
    assert (chosen.ticker, chosen.status) == (desk.contract.ticker, Status.ACCEPTED)


@pytest.mark.parametrize("read", ["order_book", "positions"])
def test_a_failed_read_sends_nothing_and_frees_the_lock(desk: TradingDesk, read: str) -> None:
    desk.held()
    desk.broker.fail = {read}
    with pytest.raises(BrokerReadFailed):
        desk.alert("EXIT", key="x")
    assert (exits(desk), desk.store.data.locks) == ([], {})
    desk.broker.fail = set()
    assert desk.alert("EXIT", key="x").order.status is Status.ACCEPTED


def test_an_exit_under_way_holds_the_lock(desk: TradingDesk) -> None:
    desk.held()

    def second() -> None:
        del desk.broker.on["positions"]
        with pytest.raises(OutOfTime):
            desk.alert("EXIT")

    desk.broker.on["positions"] = second
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert len(exits(desk)) == 1


def test_a_lost_lease_sends_nothing(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.on["positions"] = desk.store.data.locks.clear
    with pytest.raises(OutOfTime):
        desk.alert("EXIT")
    assert exits(desk) == []


def test_more_than_held_is_cut_and_said(desk: TradingDesk) -> None:
    desk.held()
    order = desk.alert("EXIT", lots=3).order
    assert order.quantity == LOT
    assert "cut to 65" in order.warnings[0]


def test_a_freeze_quantity_cuts_and_says_so() -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))
    desk.held(lots=20)
    desk.held(lots=20)
    order = desk.alert("EXIT").order
    assert (order.quantity, "freeze" in order.warnings[0]) == (27 * LOT, True)
    assert desk.alert("EXIT").order.quantity == 13 * LOT


def test_a_sell_against_own_holding_is_an_exit(desk: TradingDesk) -> None:
    desk.held()
    too_much = desk.alert("SELL", lots=2).order
    assert (too_much.status, too_much.code) == (Status.DENIED, "exceeds_position")
    order = desk.alert("SELL").order
    assert (order.purpose, order.quantity, order.stop_distance) == (Purpose.EXIT, LOT, None)
    # Our rows have not heard of its fill yet: what was called an exit stays one, and opens nothing.
    again = desk.alert("SELL").order
    assert (again.purpose, again.status, again.code) == (Purpose.EXIT, Status.DENIED, "nothing_to_exit")
    desk.reconcile()
    assert desk.alert("SELL").order.purpose is Purpose.ENTRY


def test_a_sell_after_the_stop_has_filled_opens_no_short(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    desk.broker.trigger_stop(f"{desk.contract.ticker}-INTRADAY")  # and nothing of ours has looked since
    out = desk.alert("SELL").order
    assert (out.status, out.code, desk.net()) == (Status.DENIED, "nothing_to_exit", 0)


def test_the_holders_may_exit_when_the_operators_exit_of_both_was_refused(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b")
    desk.broker.next_place = [Refused("-50", "no")]
    out = desk.alert("EXIT", client=ADMIN_CLIENT).order
    assert out.status is Status.REJECTED
    assert [desk.alert("EXIT", client=c).order.quantity for c in ("a", "b")] == [LOT, LOT]
    assert desk.net() == 0


def test_the_operators_exit_of_both_that_goes_through_leaves_the_holders_nothing(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b")
    out = desk.alert("EXIT", client=ADMIN_CLIENT).order
    assert (out.status, out.quantity) == (Status.ACCEPTED, 2 * LOT)
    assert [desk.alert("EXIT", client=c).order.code for c in ("a", "b")] == ["nothing_to_exit"] * 2
    assert desk.net() == 0


def test_a_short_is_bought_back(desk: TradingDesk) -> None:
    desk.held("SELL")
    order = desk.alert("EXIT").order
    assert (order.side, desk.net()) == ("BUY", 0)


def test_reducing_lets_exits_pass_and_halted_does_not(desk: TradingDesk) -> None:
    desk.held()
    desk.store.data.states[SCOPE] = TradingState.HALTED
    assert desk.alert("EXIT").order.code == "trading_state"
    desk.store.data.states[SCOPE] = TradingState.REDUCING
    assert desk.alert("EXIT").order.status is Status.ACCEPTED


def test_a_working_entry_is_cancelled_first(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.fills = False
    working = desk.held()
    desk.broker.fills = True
    assert desk.alert("EXIT").order.quantity == LOT
    assert desk.row(working).status is Status.CANCELLED
    assert Event.ENTRY_CANCEL in desk.events(working)


def test_an_entry_in_doubt_makes_the_exit_wait(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [Unknown("timed out")]
    desk.alert()
    order = desk.alert("EXIT").order
    assert (order.status, order.code, exits(desk)) == (Status.EXIT_PENDING, "exit_pending", [])


def test_an_accepted_entry_that_the_book_does_not_show_yet_makes_it_wait(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.book.clear()
    assert desk.alert("EXIT").order.status is Status.EXIT_PENDING
    assert exits(desk) == []


def test_an_exit_in_doubt_is_never_doubled(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT").order.status is Status.IN_DOUBT
    assert desk.alert("EXIT").order.status is Status.EXIT_PENDING
    assert exits(desk) == []


def test_an_exit_not_sent_is_tried_again_and_its_legs_are_back_meanwhile(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [NotSent("connect_failed", "no route")]
    first = desk.alert("EXIT", key="x").order
    assert (first.status, desk.events(first)[-1]) == (Status.NOT_SENT, Event.LEG_RESTORED)
    assert desk.broker.protected[f"{desk.contract.ticker}-INTRADAY"][:2] == LEGS
    second = desk.alert("EXIT", key="x").order
    assert (second.id, second.attempt, second.status) == (first.id, 2, Status.ACCEPTED)
    assert (desk.net(), desk.broker.protected) == (0, {})


def test_legs_that_cannot_be_restored_page(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_place = [Refused("-50", "no")]
    desk.broker.on["place"] = lambda: desk.broker.next_protection.append(Unknown("timed out"))
    order = desk.alert("EXIT").order
    assert (order.status, desk.notifier.pages) == (Status.REJECTED, ["unprotected"])
    assert desk.events(order)[-1] is Event.LEG_UNPROTECTED


def test_legs_in_doubt_keep_the_exit_back(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_protection = [Unknown("timed out")]
    order = desk.alert("EXIT").order
    assert (order.status, exits(desk)) == (Status.EXIT_PENDING, [])
    assert desk.notifier.pages == ["exit_waits_for_legs"]
    assert desk.events(order) == [Event.ORDER_SENDING, Event.ORDER_NOT_SENT, Event.EXIT_PENDING]


def test_a_part_exit_keeps_the_rest_protected(desk: TradingDesk) -> None:
    desk.held()
    desk.held()
    desk.alert("EXIT", lots=1)
    assert desk.net() == LOT
    assert desk.broker.protected[f"{desk.contract.ticker}-INTRADAY"] == (*LEGS, LOT)


def test_a_bracket_exits_whole_or_not_at_all(desk: TradingDesk) -> None:
    desk.held(product=Product.BO)
    desk.broker.by_hand(desk.contract.ticker, LOT, "BO")
    order = desk.alert("EXIT", product=Product.BO).order
    assert order.code == "exit_unsupported"
    desk.broker.by_hand(desk.contract.ticker, -LOT, "BO")
    assert desk.alert("EXIT", product=Product.BO).order.status is Status.ACCEPTED
    assert (desk.net(Product.BO), "close_position" in desk.broker.calls) == (0, True)


def test_clients_exit_only_their_own_and_an_admin_all(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b")
    assert desk.alert("EXIT", client="c").order.code == "nothing_to_exit"
    assert desk.alert("EXIT", client="a").order.quantity == LOT
    desk.held(client="a")
    order = desk.alert("EXIT", client="admin").order
    assert (order.quantity, desk.net()) == (2 * LOT, 0)
    desk.broker.by_hand(desk.contract.ticker, 2 * LOT)
    for client in ("a", "b", "admin"):
        assert desk.alert("EXIT", client=client).order.code == "nothing_to_exit"


def test_other_products_are_other_holdings(desk: TradingDesk) -> None:
    desk.held(product=Product.MARGIN)
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert desk.alert("EXIT", product=Product.MARGIN).order.quantity == LOT


def test_a_holding_of_an_earlier_day_is_exited(desk: TradingDesk) -> None:
    desk.held()
    desk.alert("EXIT", qty=None)
    desk.held()
    (first, *_), last = desk.store.orders, desk.store.orders[-1]
    assert first.id != last.id
    desk.store.data.orders[last.id] = replace(last, filled_quantity=LOT, status=Status.FILLED)
    desk.clock.advance(timedelta(days=1).total_seconds())
    desk.broker.book.clear()
    assert desk.alert("EXIT").order.quantity == LOT
