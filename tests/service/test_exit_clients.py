"""Several clients in one contract: an operator's exit of all of them, whatever becomes of it, and the legs that all share."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import Accepted, NotSent, Unknown
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.control import Control
from app.service.desk import Budget
from app.service.records import BookStatus, Trade
from app.service.send import LOST_FENCE, record, taken_from
from tests.builders import a_policy
from tests.service.desk import TradingDesk

LOT = 65


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=50)))


def test_an_operator_s_waiting_exit_takes_over_only_what_it_closes(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    shown = desk.positions_hidden()
    out = desk.alert("EXIT", client="admin").order
    assert out.status is Status.EXIT_PENDING
    desk.broker.net.update(shown)
    desk.clock.advance(1)
    desk.held(client="anna")
    desk.reconcile()
    desk.reconcile()
    assert (desk.row(out).quantity, desk.net()) == (2 * LOT, LOT)
    assert desk.owned() == {"anna": LOT}
    assert desk.alert("EXIT", client="anna").order.quantity == LOT


def test_no_legs_go_on_what_another_exit_is_closing(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.fills = False
    exits: list[Order] = [desk.alert("EXIT", client=client).order for client in ("ben", "anna")]
    for order in exits:
        desk.broker.fill(order.broker_order_id or "")
    desk.reconcile()
    assert desk.net() == 0
    assert not desk.broker.protected, "a stop without a position opens the other side"


def test_no_legs_go_on_what_the_broker_does_not_show(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    for place in desk.broker.net:
        desk.broker.net[place] = LOT
    assert desk.alert("EXIT", client="anna").order.quantity == LOT
    assert not desk.broker.protected


def given_up(desk: TradingDesk) -> Order:
    """An operator's exit of two clients, proven absent, whose holders have theirs back."""
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    out = desk.alert("EXIT", client="admin").order
    desk.proven_absent(out)
    assert desk.owned() == {"anna": LOT, "ben": LOT}
    desk.broker.next_place = []
    return out


def test_a_wrong_verdict_takes_back_what_was_given_back(desk: TradingDesk) -> None:
    out = given_up(desk)
    desk.broker.take(desk.row(out).ticket())
    for _ in range(2):
        desk.clock.advance(61)
        desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.FILLED, {})
    Control(desk.desk).set_state(TradingState.ACTIVE, "a person", "looked at it")
    desk.clock.advance(1)
    desk.held(client="anna")
    assert desk.alert("EXIT", client="ben").order.code == "nothing_to_exit"
    assert desk.net() == LOT


def test_a_second_try_takes_over_and_gives_back_for_itself(desk: TradingDesk) -> None:
    """NOT_SENT, then a try that is called absent and was not."""
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.next_place = [NotSent("breaker_open", "no")]
    assert desk.alert("EXIT", "k", client="admin").order.status is Status.NOT_SENT
    assert desk.owned() == {"anna": LOT, "ben": LOT}
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    out = desk.alert("EXIT", "k", client="admin").order
    assert (out.status, out.attempt) == (Status.IN_DOUBT, 2)
    desk.proven_absent(out)
    assert desk.owned() == {"anna": LOT, "ben": LOT}
    desk.broker.next_place = []
    desk.broker.take(desk.row(out).ticket())
    for _ in range(2):
        desk.clock.advance(61)
        desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.FILLED, {})


def test_without_an_index_only_the_adoption_waits(desk: TradingDesk) -> None:
    restored = desk.held()
    del desk.store.data.orders[restored.id]
    desk.held("BUY", client="ben")
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    entry = desk.alert("BUY", client="ben").order
    out = desk.alert("EXIT", client="ben").order
    assert (entry.status, out.status) == (Status.IN_DOUBT, Status.EXIT_PENDING)
    desk.broker.next_place = []
    desk.contracts.missing = True
    desk.proven_absent(entry)
    assert (desk.row(out).status, desk.row(out).quantity) == (Status.ACCEPTED, LOT)


def test_an_operator_s_exit_that_filled_across_its_end_takes_over_again(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.fills = False
    out = desk.alert("EXIT", client="admin").order
    at = next(n for n, row in enumerate(desk.broker.book) if row.broker_order_id == out.broker_order_id)
    working = desk.broker.book[at]
    desk.broker.book[at] = replace(working, status=BookStatus.CANCELLED)
    desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.CANCELLED, {"anna": LOT, "ben": LOT})
    desk.broker.book[at] = working
    desk.broker.fill(out.broker_order_id or "")
    desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.FILLED, {})


def test_two_clients_that_exit_together_page_nobody(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.fills = False
    for client in ("ben", "anna"):
        assert desk.alert("EXIT", client=client).order.status is Status.ACCEPTED
    assert desk.notifier.pages == []


def test_a_late_sender_that_sent_nothing_gives_back(desk: TradingDesk) -> None:
    """The reconciliation had called its order in doubt meanwhile."""
    out = settled_for(desk, in_doubt(desk))
    assert (
        record(desk.desk, out, NotSent(LOST_FENCE, "too late"), budget(desk)).order.status
        is Status.NOT_PLACED
    )
    assert desk.owned() == {"anna": LOT, "ben": LOT}


def test_a_late_sender_whose_order_was_taken_takes_over_again(desk: TradingDesk) -> None:
    out = in_doubt(desk)
    desk.proven_absent(out)
    assert desk.owned() == {"anna": LOT, "ben": LOT}
    taken = desk.broker.take(desk.row(out).ticket())
    assert record(desk.desk, out, Accepted(taken), budget(desk)).order.status is Status.ACCEPTED
    desk.clock.advance(1)
    desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.FILLED, {})


@pytest.mark.parametrize("action", ["EXIT", "SELL"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_holder_s_own_exit_waits_for_the_operator_s(
    desk: TradingDesk, action: str, *, arrives: bool
) -> None:
    """In doubt: it may have closed everything, or nothing. A SELL is no entry meanwhile either."""
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], arrives
    out = desk.alert("EXIT", client="admin").order
    desk.broker.next_place = []
    sized: dict[str, Any] = {"qty": LOT, "lots": None} if action == "SELL" else {}
    own = desk.alert(action, client="anna", **sized).order
    assert (out.status, own.status) == (Status.IN_DOUBT, Status.EXIT_PENDING)
    if arrives:
        desk.clock.advance(10)
        desk.reconcile()
    else:
        desk.proven_absent(out)
    desk.reconcile()
    desk.reconcile()
    if arrives:
        assert (desk.row(own).status, desk.net(), desk.owned()) == (Status.DENIED, 0, {})
    else:
        assert (desk.row(own).quantity, desk.net(), desk.owned()) == (LOT, LOT, {"ben": LOT})


def test_an_operator_s_exit_of_a_part_leaves_the_rest_whose_it_is(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    out = desk.alert("EXIT", client="admin", qty=LOT, lots=None).order
    desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.FILLED, {"ben": LOT})
    assert desk.alert("EXIT", client="anna").order.code == "nothing_to_exit"
    assert desk.alert("EXIT", client="ben").order.quantity == LOT
    desk.reconcile()
    assert desk.net() == 0


def test_what_a_holder_is_closing_himself_is_not_taken_over(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.fills = False
    own = desk.alert("EXIT", client="anna").order
    out = desk.alert("EXIT", client="admin").order
    assert (own.quantity, out.quantity) == (LOT, LOT)
    for order in (own, out):
        desk.broker.fill(order.broker_order_id or "")
    desk.reconcile()
    assert (desk.net(), desk.owned()) == (0, {})


def test_what_an_operator_s_exit_did_not_fill_is_its_holders_again(desk: TradingDesk) -> None:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.fills = False
    out = desk.alert("EXIT", client="admin").order
    row = desk.broker.book[-1]
    partly = replace(row, filled_quantity=LOT, status=BookStatus.CANCELLED)
    desk.broker.book[-1] = partly
    desk.broker.net[row.ticker, row.product] = LOT
    desk.broker.fills_of_today.append(
        Trade(
            "t9",
            row.broker_order_id,
            row.ticker,
            row.product,
            row.side,
            LOT,
            Decimal(101),
            desk.clock.now(),
            row.tag,
        )
    )
    for _ in range(2):
        desk.reconcile()
    assert (desk.row(out).status, desk.owned()) == (Status.CANCELLED, {"ben": LOT})
    desk.broker.fills = True
    assert desk.alert("EXIT", client="ben").order.quantity == LOT


def test_an_operator_s_exit_that_was_stopped_after_the_verdict_is_proof(desk: TradingDesk) -> None:
    """Any NotSent is one: no byte went out. Without it the row stayed in doubt, and every exit with it."""
    out = settled_for(desk, replace(in_doubt(desk), status=Status.SENDING))  # as its sender knows it
    said = record(desk.desk, out, NotSent("out_of_time", "no byte was written"), budget(desk))
    assert said.order.status is Status.NOT_PLACED
    assert desk.owned() == {"anna": LOT, "ben": LOT}


def in_doubt(desk: TradingDesk) -> Order:
    for client in ("anna", "ben"):
        desk.held(client=client)
    desk.reconcile()
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    return desk.alert("EXIT", client="admin").order


def settled_for(desk: TradingDesk, order: Order) -> Order:
    """What a pass leaves of a row whose sender is late; the order as that sender has it."""
    desk.store.data.orders[order.id] = replace(desk.row(order), fence=taken_from(order))
    return order


def budget(desk: TradingDesk) -> Budget:
    return Budget.of(desk.clock.monotonic(), 2.0)
