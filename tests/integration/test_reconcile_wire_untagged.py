"""BO and CO carry no tag: what their rows in the book prove, and what they do not. On the wire."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from app.domain.alert import Product
from app.domain.risk import TradingState
from app.domain.status import Status
from app.service.control import Control, Resolution
from app.service.place_order import PlaceOrder
from app.service.settle import Settle
from tests.simulator.book import PENDING, OrderIntent
from tests.wire_brokers import Crash, DyingBroker
from tests.wire_desk import LOT, OTHER, SCOPE, TICKER, Desks, WireDesk

pytestmark = pytest.mark.usefixtures("contract_caps")

S = Status
QUICK = Settle(min_reads=1, min_seconds=0)


def sends(desk: WireDesk) -> int:
    return len(desk.sim.ledger.orders())


UNTAGGED = [Product.BO, Product.CO]


def api_row(desk: WireDesk, product: Product, ticker: str = TICKER, quantity: int = LOT) -> str:
    """Somebody else's order by the API, without a tag: another program on the account."""
    with desk.sim.exchange.lock:
        instrument = desk.sim.exchange.instrument(ticker)
        intent = OrderIntent(
            instrument, quantity, 2, 1, product.value, stop_loss=Decimal(15), take_profit=Decimal(25)
        )
        return desk.sim.exchange.place(intent).id


@pytest.mark.parametrize("product", UNTAGGED)
def test_one_row_and_one_doubt_belong_together(desk: WireDesk, product: Product) -> None:
    order = desk.in_doubt(product=product)
    (placed,) = desk.sim.ledger.placed()
    desk.pass_on(1)
    row = desk.row(order)
    assert (row.status, row.broker_order_id) == (Status.FILLED, placed["order_id"])
    desk.pass_on(70)
    assert desk.state() is TradingState.ACTIVE
    desk.assert_caps()


@pytest.mark.parametrize("product", UNTAGGED)
@pytest.mark.parametrize("fault", ["reset_created", "reset"])
def test_more_rows_than_doubts_are_a_persons(desk: WireDesk, product: Product, fault: str) -> None:
    order = desk.in_doubt(fault, product=product)
    api_row(desk, product)
    if fault == "reset":
        api_row(desk, product)
    for _ in range(20):
        desk.pass_on(10, witness=True)
        assert (desk.row(order).status, desk.row(order).code) == (Status.NEEDS_REVIEW, "ambiguous")
    assert (sends(desk), desk.notifier.pages.count("needs_review")) == (1, 1)


@pytest.mark.parametrize("product", UNTAGGED)
def test_two_doubts_and_one_row_are_a_persons(desk: WireDesk, product: Product) -> None:
    """The second can be sent only once the first is a person's; neither then takes what may be the other's."""
    first = desk.in_doubt("reset", product=product)
    denied = desk.alert(product=product)
    assert (denied.status, denied.code) == (Status.DENIED, "unsettled_bracket")
    rows = [api_row(desk, product), api_row(desk, product)]
    desk.pass_on(1)
    assert desk.row(first).status is Status.NEEDS_REVIEW
    for row in rows:
        del desk.sim.exchange.orders[row]
    second = desk.in_doubt("reset_created", product=product)
    for _ in range(20):
        desk.pass_on(10, witness=True)
        assert {desk.row(o).status for o in (first, second)} == {Status.NEEDS_REVIEW}
    assert sends(desk) == 2


@pytest.mark.parametrize("product", UNTAGGED)
def test_a_hands_row_and_a_leg_are_never_taken_for_ours(desk: WireDesk, product: Product) -> None:
    desk.sim.place_by_hand(TICKER, 1, LOT, product.value)
    order = desk.in_doubt("reset", product=product)
    desk.sim.place_by_hand(TICKER, 1, LOT, product.value)
    leg = desk.sim.exchange.add(
        OrderIntent(desk.sim.exchange.instrument(TICKER), LOT, 4, 1, product.value),
        "99-BO-2",
        parent="99-BO-1",
    )
    leg.status = PENDING
    for _ in range(20):
        desk.pass_on(10, witness=True)
        assert desk.row(order).broker_order_id is None
    assert desk.row(order).status is Status.NOT_PLACED
    desk.assert_caps()


@pytest.mark.parametrize("product", UNTAGGED)
def test_an_older_row_and_one_of_another_size_do_not_fit(desk: WireDesk, product: Product) -> None:
    api_row(desk, product)
    desk.sim.advance(60)
    order = desk.in_doubt("reset_created", product=product)
    mine = desk.sim.ledger.placed()[-1]["order_id"]
    api_row(desk, product, quantity=2 * LOT)
    api_row(desk, product, ticker=OTHER)
    desk.pass_on(1)
    assert desk.row(order).broker_order_id == mine


# --- closing by the position's id -------------------------------------------------------------------------------


@pytest.mark.parametrize("product", UNTAGGED)
def test_an_exit_by_the_positions_id_is_followed_to_its_fill(desks: Desks, product: Product) -> None:
    """The broker takes it without naming an order: its row is found, no false alarm, and no stranger after a start."""
    desk = desks.start()
    desk.pass_on()
    desk.bought(product=product)
    desk.pass_on(1)
    out = desk.alert("EXIT", product=product)
    assert (out.status, out.broker_order_id, desk.net(product=product.value)) == (Status.ACCEPTED, None, 0)
    desk.pass_on(1)
    assert (desk.row(out).status, desk.row(out).filled_quantity) == (Status.FILLED, LOT)
    desk.pass_on(30)
    again = desks.start()
    again.pass_on(1)
    assert (desk.notifier.pages, again.notifier.pages, again.state()) == ([], [], TradingState.ACTIVE)
    with again.store.read() as tx:
        assert (tx.holdings(SCOPE, None), tx.strangers(SCOPE)) == ((), ())
    none = desk.alert("EXIT", product=product)
    assert none.code == "nothing_to_exit"


# --- verdicts and rivals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", UNTAGGED)
def test_a_late_arrival_without_a_tag_is_adopted_too(desks: Desks, product: Product) -> None:
    desk = desks.start(settle=QUICK)
    desk.pass_on()
    order = desk.in_doubt("late_reset", appear_after=60, product=product)
    desk.pass_on(6, witness=True)
    assert desk.row(order).status is Status.NOT_PLACED
    desk.pass_on(60)
    desk.pass_on(1)
    assert (desk.row(order).status, desk.row(order).filled_quantity) == (Status.FILLED, LOT)
    assert (desk.state(), desk.notifier.pages) == (TradingState.REDUCING, ["wrong_verdict"])
    desk.assert_caps()


@pytest.mark.parametrize("product", UNTAGGED)
def test_another_programs_order_of_later_is_not_the_absent_one(desks: Desks, product: Product) -> None:
    desk = desks.start(settle=QUICK)
    desk.pass_on()
    order = desk.in_doubt("reset", product=product)
    desk.pass_on(6, witness=True)
    desk.sim.advance(140)
    api_row(desk, product)
    desk.pass_on(61)
    assert desk.row(order).status is Status.NOT_PLACED
    start = desks.start()
    start.pass_on(1)
    with start.store.read() as tx:
        assert len(tx.strangers(SCOPE)) == 1, "nothing of ours explains that row"
    assert start.state() is TradingState.HALTED


@pytest.mark.parametrize("product", UNTAGGED)
def test_the_row_of_an_order_that_is_being_sent_is_not_an_older_ones(
    desk: WireDesk, product: Product
) -> None:
    """The second's row is in the book before its sender has recorded the id."""
    first = desk.in_doubt("reset", product=product)
    rows = [api_row(desk, product), api_row(desk, product)]
    desk.pass_on(1)
    for row in rows:
        del desk.sim.exchange.orders[row]
    dying = PlaceOrder(replace(desk.desk, broker=DyingBroker(desk.broker)))
    with pytest.raises(Crash):
        dying(desk.an_alert(product=product), request_id="r", started=desk.clock.monotonic())
    for _ in range(12):
        desk.pass_on(1)
        assert desk.row(first).broker_order_id is None
    assert {o.status for o in desk.rows()} == {Status.NEEDS_REVIEW}


@pytest.mark.parametrize("really", [Status.FILLED, Status.NOT_PLACED])
def test_an_exit_waits_for_an_entry_that_a_person_has_to_settle(desk: WireDesk, really: Status) -> None:
    """It is not lost as "nothing to exit" while nobody knows whether the entry is there."""
    placed = really is Status.FILLED
    entry = desk.in_doubt("reset_created" if placed else "reset", product=Product.BO)
    out = desk.alert("EXIT", product=Product.BO)
    for _ in range(1 if placed else 2):
        api_row(desk, Product.BO)
    desk.pass_on(1)
    assert (desk.row(entry).status, desk.row(out).status) == (Status.NEEDS_REVIEW, Status.EXIT_PENDING)
    desk.pass_on(60)
    later = desk.alert("EXIT", key="later", product=Product.BO)
    assert {desk.row(o).status for o in (out, later)} == {Status.EXIT_PENDING}
    if placed:  # the other program is out again: BO closes whole positions only
        desk.sim.close_by_hand(f"{TICKER}-BO", LOT)
    Control(desk.desk).resolve(entry.id, Resolution(really, "operator", "seen in the app"))
    desk.pass_on(1)
    desk.pass_on(61)
    assert len(desk.sim.ledger.ops("exit_position")) == (1 if placed else 0)
    assert desk.net(product="BO") == (0 if placed else 2 * LOT)
    assert {desk.row(o).status for o in (out, later)} == ({S.FILLED, S.DENIED} if placed else {S.DENIED})
