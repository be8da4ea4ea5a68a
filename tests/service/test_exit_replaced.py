"""An exit that rests is what still closes the position: it makes room for the next one only where that one goes."""

from __future__ import annotations

import pytest

from app.domain.limits import Limits
from app.domain.order import Order
from app.domain.outcome import NotSent, Unknown
from app.domain.status import Status
from app.errors import BrokerReadFailed, StoreUnavailable
from tests.builders import LOT, a_policy
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk(policy=a_policy(limits=Limits(max_lots=60)))


def resting(desk: TradingDesk, *, lots: int, out: int | None = None) -> Order:
    """An exit of `out` of `lots` (None: of all) that has had its time to fill."""
    desk.held(lots=lots)
    desk.reconcile()
    desk.broker.fills = False
    order = desk.alert("EXIT", lots=out).order
    passes(desk, 3)
    desk.notifier.pages.clear()
    return order


def passes(desk: TradingDesk, times: int) -> None:
    for _ in range(times):
        desk.clock.advance(5)
        desk.reconcile()


def working(desk: TradingDesk) -> int:
    """Contracts that rest at the broker on the closing side."""
    return sum(
        row.quantity - row.filled_quantity
        for row in desk.broker.book
        if row.is_working and row.side.value == "SELL"
    )


def test_it_goes_once_the_new_one_can_go(desk: TradingDesk) -> None:
    old = resting(desk, lots=1)
    desk.broker.fills = True
    new = desk.alert("EXIT").order
    passes(desk, 2)
    assert (desk.row(old).status, desk.row(new).status, desk.net()) == (Status.CANCELLED, Status.FILLED, 0)
    assert new.warnings == (f"cancelled before it: {old.id}",)


def test_it_stays_while_the_new_one_waits_for_an_entry(desk: TradingDesk) -> None:
    old = resting(desk, lots=1)
    desk.broker.next_place, desk.broker.unknown_arrives = [Unknown("lost")], False
    desk.alert("BUY")
    new = desk.alert("EXIT").order
    assert (new.status, working(desk)) == (Status.EXIT_PENDING, LOT)
    passes(desk, 60)
    assert (desk.row(old).status, working(desk)) == (Status.ACCEPTED, LOT)


def test_it_stays_where_the_new_one_asks_for_more_than_is_held(desk: TradingDesk) -> None:
    old = resting(desk, lots=2)
    new = desk.alert("SELL", lots=3).order
    assert (new.status, working(desk)) == (Status.EXIT_PENDING, 2 * LOT)
    assert desk.row(old).status is Status.ACCEPTED
    desk.broker.fills = True
    passes(desk, 3)
    assert (desk.net(), working(desk)) == (0, 0)


def test_a_charts_sell_of_all_that_it_knows_of_waits_for_the_entry_that_is_being_sent(
    desk: TradingDesk,
) -> None:
    """Its first entry was stopped out: the count is more than there can be, and it is an exit all the same."""
    desk.held()
    desk.reconcile()
    desk.broker.trigger_stop(f"{desk.contract.ticker}-INTRADAY")
    passes(desk, 3)
    out: list[Order] = []

    def comes() -> None:
        desk.broker.on.clear()
        out.append(desk.alert("SELL", lots=2).order)

    desk.broker.on["place"] = comes
    desk.alert("BUY")
    assert out[0].status is Status.EXIT_PENDING
    passes(desk, 3)
    assert desk.net() == 0


def test_it_stays_where_the_positions_cannot_be_read(
    desk: TradingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting(desk, lots=1)

    def positions() -> None:
        raise BrokerReadFailed("500")

    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "positions", positions)
        with pytest.raises(BrokerReadFailed):
            desk.alert("EXIT")
    assert working(desk) == LOT


def test_it_stays_where_the_database_goes_before_it_is_decided(desk: TradingDesk) -> None:
    resting(desk, lots=1)
    base = desk.store.writes

    def gone(number: int) -> None:
        if number > base:
            raise StoreUnavailable("gone")

    desk.store.before_write = gone
    with pytest.raises(StoreUnavailable):
        desk.alert("EXIT")
    desk.store.before_write = None
    assert working(desk) == LOT


def test_it_stays_while_the_brokers_list_shows_nothing_to_close(desk: TradingDesk) -> None:
    resting(desk, lots=1)
    desk.positions_hidden()
    assert desk.alert("EXIT").order.status is Status.EXIT_PENDING
    assert working(desk) == LOT


def test_two_part_exits_stand_beside_each_other_where_both_have_room(desk: TradingDesk) -> None:
    first = resting(desk, lots=2, out=1)
    second = desk.alert("EXIT", lots=1).order
    assert (second.status, second.quantity, working(desk)) == (Status.ACCEPTED, LOT, 2 * LOT)
    assert desk.row(first).status is Status.ACCEPTED


def test_only_so_many_go_as_the_new_one_needs(desk: TradingDesk) -> None:
    first = resting(desk, lots=3, out=1)
    second = desk.alert("EXIT", lots=1).order
    passes(desk, 3)
    third = desk.alert("EXIT", lots=2).order
    passes(desk, 1)
    assert [desk.row(o).status for o in (first, second, third)] == [
        Status.CANCELLED,
        Status.ACCEPTED,
        Status.ACCEPTED,
    ]
    assert working(desk) == 3 * LOT


def test_one_whose_replacement_did_not_go_is_told(desk: TradingDesk) -> None:
    old = resting(desk, lots=1)
    desk.broker.next_place = [NotSent("broker_unreachable", "no route")]
    assert desk.alert("EXIT").order.status is Status.NOT_SENT
    assert working(desk) == 0
    passes(desk, 3)
    assert desk.notifier.pages == ["exit_unfilled"]
    assert old.id in desk.notifier.messages[-1]


def test_what_a_smaller_one_leaves_of_it_is_told(desk: TradingDesk) -> None:
    resting(desk, lots=3)
    desk.broker.fills = True
    desk.alert("EXIT", lots=1)
    passes(desk, 3)
    assert (desk.net(), desk.notifier.pages) == (2 * LOT, ["exit_unfilled"])
