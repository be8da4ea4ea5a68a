"""What a hand, a stop leg or the broker's desk does in a contract of ours is never taken for ours, nor loses ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.alert import Product
from app.domain.order import Side
from app.domain.status import Status
from app.service.records import Trade
from app.service.replay import NOBODY, lowering, nearer, replayed
from tests.builders import LOT, NOW, a_contract
from tests.service.desk import TradingDesk

TICKER = a_contract().ticker


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def position_id(product: Product = Product.INTRADAY) -> str:
    return f"{TICKER}-{product.value}"


def test_a_position_opened_by_hand_after_our_stop_filled_is_never_sold(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.trigger_stop(position_id())
    desk.broker.by_hand(TICKER, LOT)  # nobody has looked at the positions in between
    answer = desk.alert("EXIT")
    assert (answer.order.status, answer.order.code) == (Status.DENIED, "nothing_to_exit")
    assert desk.net() == LOT


def test_a_hand_that_closes_ours_and_opens_its_own_keeps_its_own(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.by_hand(TICKER, -LOT)
    desk.broker.by_hand(TICKER, LOT)
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert desk.net() == LOT


def test_a_hand_that_buys_and_sells_its_own_beside_ours_costs_us_no_exit(desk: TradingDesk) -> None:
    desk.broker.by_hand(TICKER, 2 * LOT)
    desk.held()
    desk.broker.by_hand(TICKER, -2 * LOT)
    answer = desk.alert("EXIT")
    assert (answer.order.status, answer.order.quantity) == (Status.ACCEPTED, LOT)
    assert desk.net() == 0


def test_a_stop_of_yesterday_is_remembered_when_the_trade_book_is_gone(desk: TradingDesk) -> None:
    desk.held(product=Product.MARGIN)
    desk.broker.trigger_stop(position_id(Product.MARGIN))
    desk.reconcile()
    desk.clock.advance(86_400)
    desk.broker.book.clear()
    desk.broker.fills_of_today.clear()
    desk.broker.by_hand(TICKER, LOT, "MARGIN")
    assert desk.alert("EXIT", product=Product.MARGIN).order.code == "nothing_to_exit"
    assert desk.net(Product.MARGIN) == LOT


def test_a_new_entry_after_the_stop_is_ours_again(desk: TradingDesk) -> None:
    desk.held()
    desk.broker.trigger_stop(position_id())
    desk.broker.by_hand(TICKER, LOT)
    desk.held()
    assert desk.alert("EXIT").order.quantity == LOT
    assert desk.net() == LOT
    assert desk.alert("EXIT").order.code == "nothing_to_exit"


def test_of_two_clients_the_first_exit_gets_what_a_stop_has_left(desk: TradingDesk) -> None:
    desk.held(client="a")
    desk.held(client="b")
    desk.broker.by_hand(TICKER, -LOT)
    assert desk.alert("EXIT", client="b").order.quantity == LOT
    desk.broker.by_hand(TICKER, LOT)
    assert desk.alert("EXIT", client="a").order.code == "nothing_to_exit"
    assert desk.net() == LOT


def trade(number: int, quantity: int, *, ours: bool) -> Trade:
    side = Side.BUY if quantity > 0 else Side.SELL
    ident = f"ours{number}" if ours else f"hand{number}"
    return Trade(str(number), ident, TICKER, "INTRADAY", side, abs(quantity), None, NOW)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3).filter(bool)), max_size=12),
    st.integers(-3, 3),
)
def test_what_is_left_of_ours_is_never_more_than_the_net_and_never_more_than_we_bought(
    steps: list[tuple[bool, int]], at_start: int
) -> None:
    trades = [trade(n, lots * LOT, ours=ours) for n, (ours, lots) in enumerate(steps)]
    net = at_start * LOT + sum(t.side.sign * t.quantity for t in trades)
    owners = {t.broker_order_id: "a" for t in trades if t.broker_order_id.startswith("ours")}
    left = replayed({}, owners, trades, net)
    total, bought = sum(left.values()), sum(lots * LOT for ours, lots in steps if ours and lots > 0)
    assert total == nearer(total, net) or total == 0
    assert total <= bought


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(-4, 4)), st.integers(-9, 9))
def test_a_lowering_comes_to_the_total_and_turns_nobody_round(rows: dict[str, int], wanted: int) -> None:
    held = sum(rows.values())
    total = nearer(held, wanted)
    deltas = lowering(rows, total, None)
    assert sum(rows.values()) + sum(deltas.values()) == total
    for who, delta in deltas.items():
        if who != NOBODY:
            assert (rows[who] + delta) * rows[who] >= 0
