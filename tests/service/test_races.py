"""What happens between two steps: somebody else's row, a changed state, two readings that do not agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Purpose, Side
from app.domain.outcome import NotSent, Refused, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import KeyInUse
from app.service.holding import held_by
from app.service.records import BookOrder, BookStatus, Cap, Holding, Position
from tests.builders import LOT, NOW, SCOPE, TODAY, a_contract, an_order
from tests.service.desk import TradingDesk

DAY_CAP = Cap("value", "2026-11-18", 1000, 400, returnable=True)


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def reserve(desk: TradingDesk) -> None:
    with desk.store.write() as tx:
        tx.reserve(SCOPE, desk.store.orders[-1].id, [DAY_CAP])


def used(desk: TradingDesk) -> int:
    return desk.store.data.caps[SCOPE, "value", "2026-11-18"]


@pytest.mark.parametrize(
    ("outcome", "left"),
    [(Refused("-50", "no"), 0), (NotSent("breaker", "open"), 0), (Unknown("lost"), 400), (None, 400)],
)
def test_only_a_proven_no_gives_its_caps_back(
    desk: TradingDesk, outcome: Refused | NotSent | Unknown | None, left: int
) -> None:
    desk.broker.on["place"] = lambda: reserve(desk)
    desk.broker.next_place = [outcome] if outcome else []
    desk.alert()
    assert used(desk) == left


def test_a_cancelled_entry_gives_its_caps_back(desk: TradingDesk) -> None:
    desk.broker.fills = False
    order = desk.held()
    reserve(desk)
    desk.broker.cancel(order.broker_order_id or "")
    (changed,) = desk.reconcile().changed
    assert (changed.status, used(desk)) == (Status.CANCELLED, 0)


def test_a_copy_that_comes_between_the_look_and_the_claim_is_the_order(desk: TradingDesk) -> None:
    """Without a key, whose ids are random: nothing but the claim is between two copies and two orders."""
    copies = []

    def meanwhile(_: int) -> None:
        desk.store.before_write = None
        copies.append(desk.alert(body="same").order)

    desk.store.before_write = meanwhile
    answer = desk.alert(body="same")
    assert (answer.replayed, answer.order.id) == (True, copies[0].id)
    assert (len(desk.sent()), len(desk.store.orders)) == (1, 1)


def test_a_database_that_goes_before_the_last_look_stops_the_send(desk: TradingDesk) -> None:
    desk.broker.on["place"] = lambda: setattr(desk.store, "down", True)
    answer = desk.alert().order
    assert (answer.status, answer.code, desk.sent()) == (Status.NOT_SENT, "store_unavailable", [])


@pytest.mark.parametrize("changed", [{"fence": "another"}, {"status": Status.IN_DOUBT}])
def test_a_row_settled_by_somebody_else_is_not_sent(desk: TradingDesk, changed: dict[str, Any]) -> None:
    def settle() -> None:
        (row,) = desk.store.orders
        desk.store.data.orders[row.id] = replace(row, **changed)

    desk.broker.on["place"] = settle
    desk.alert()
    (row,) = desk.store.orders
    assert (row, desk.sent()) == (replace(row, **changed), [])


def test_a_state_that_changed_during_the_quote_denies(desk: TradingDesk) -> None:
    desk.broker.on["quotes"] = lambda: desk.store.data.states.update({SCOPE: TradingState.REDUCING})
    order = desk.alert().order
    assert (order.status, order.code) == (Status.DENIED, "trading_state")


def test_two_retakes_of_one_row_do_not_meet(desk: TradingDesk) -> None:
    desk.broker.next_place = [NotSent("a", "no"), NotSent("b", "no")]
    desk.alert(key="k")

    def overtake() -> None:
        del desk.broker.on["quotes"]
        assert desk.alert(key="k").order.attempt == 2

    desk.broker.on["quotes"] = overtake
    with pytest.raises(KeyInUse):
        desk.alert(key="k")
    assert desk.alert(key="k").order.attempt == 3
    assert len(desk.sent()) == 1


def test_another_clients_exit_in_doubt_is_kept_free(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b")
    desk.broker.by_hand(desk.contract.ticker, -LOT)  # a stop leg, whose is not known
    desk.broker.unknown_arrives = False
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert("EXIT", client="b").order.status is Status.IN_DOUBT
    assert desk.alert("EXIT", client="a").order.status is Status.EXIT_PENDING
    assert desk.net() == LOT


def test_a_hand_between_the_two_reads_is_not_ours(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.on["positions"] = lambda: desk.broker.by_hand(desk.contract.ticker, LOT)
    assert desk.alert("EXIT").order.quantity == LOT


def test_an_ended_contract_is_no_holding_to_exit(desk: TradingDesk) -> None:
    order = desk.held()
    ended = replace(order, session_end=NOW, filled_quantity=LOT, status=Status.FILLED)
    desk.store.data.orders[order.id] = ended
    assert desk.alert("EXIT").order.code == "nothing_to_exit"


def test_legs_that_were_asked_for_are_taken_off_though_not_shown(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.protected.clear()
    desk.broker.next_protection = [Refused("-1", "no legs")]
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.broker.calls.count("set_protection") == 1


def test_legs_that_stay_keep_the_exit_back(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.next_protection = [Refused("-1", "not now")]
    order = desk.alert("EXIT").order
    assert (order.status, desk.net()) == (Status.EXIT_PENDING, LOT)


def test_a_halt_after_the_commit_leaves_the_legs_on(desk: TradingDesk) -> None:
    desk.held()

    def halt(number: int) -> None:
        if desk.store.orders[-1].purpose is Purpose.EXIT:
            desk.store.data.states[SCOPE] = TradingState.HALTED

    real = desk.store.read

    def read(*args: object) -> object:
        halt(0)
        return real()

    desk.store.read = read  # type: ignore[method-assign,assignment]
    order = desk.alert("EXIT").order
    assert (order.status, order.code) == (Status.NOT_SENT, "trading_state")
    assert "set_protection" not in desk.broker.calls


def test_a_lapsed_derived_key_of_a_not_sent_row_is_a_new_order(desk: TradingDesk) -> None:
    desk.broker.next_place = [NotSent("a", "no")]
    first = desk.alert(body="same").order
    desk.clock.advance(timedelta(seconds=41).total_seconds())
    second = desk.alert(body="same").order
    assert (second.id != first.id, second.attempt) == (True, 1)


def held(own: int, net: int, exit_row: BookOrder | None) -> int:
    contract = a_contract()
    leaving = an_order(2, purpose=Purpose.EXIT, side=Side.SELL, status=Status.ACCEPTED, broker_order_id="2")
    orders = [leaving] if exit_row else []
    position = Position("p", contract.ticker, "INTRADAY", net)
    holdings = [Holding("default", contract.ticker, Product.INTRADAY, own)]
    book = [exit_row] if exit_row else []
    return dict(held_by("default", holdings, orders, book, position, TODAY).lowered).get("default", 0)


def test_nothing_is_lowered_while_an_exit_of_ours_works() -> None:
    row = BookOrder(
        "2", a_contract().ticker, Side.SELL, LOT, 0, BookStatus.PENDING, "INTRADAY", None, NOW, Decimal(0)
    )
    assert held(2 * LOT, LOT, row) == 0
    assert held(2 * LOT, LOT, None) == -LOT
    assert held(-2 * LOT, -LOT, None) == LOT
    assert held(2 * LOT, -LOT, None) == -2 * LOT
    assert held(LOT, 3 * LOT, None) == 0


def test_the_cancel_of_an_entry_is_noted_with_the_state_that_another_instance_gave_it(
    desk: TradingDesk,
) -> None:
    desk.broker.fills = False
    entry = desk.held()
    cancel = desk.broker.cancel

    def cancel_and_be_slow(broker_order_id: str) -> object:
        outcome = cancel(broker_order_id)
        desk.reconcile()
        return outcome

    desk.broker.cancel = cancel_and_be_slow  # type: ignore[assignment]
    desk.alert("EXIT")
    said = [(e.event, e.status) for e in desk.store.events(SCOPE, entry.id)]
    assert said[-2:] == [
        (Event.ORDER_CANCELLED, Status.CANCELLED),
        (Event.ENTRY_CANCEL, Status.CANCELLED),
    ]
