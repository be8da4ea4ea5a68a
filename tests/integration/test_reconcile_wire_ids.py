"""BO and CO whose answers have another id than their rows in the book, and orders that no row shows: on the wire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.order import Protection
from app.domain.risk import TradingState
from app.domain.status import Status
from tests.simulator import api, wire
from tests.wire_desk import LOT, SCOPE, TICKER, Desks, WireDesk

UNTAGGED = [Product.BO, Product.CO]


@pytest.fixture
def bare_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's answers say `26090900000001`, and its book `26090900000001-BO-1` (fyers-api.md 2.1, 2.3)."""

    def ok(*words: Any, **more: Any) -> Any:
        if "id" in more:
            more["id"] = more["id"].partition("-")[0]
        return wire.ok(*words, **more)

    monkeypatch.setattr(api, "ok", ok)


@pytest.fixture(params=["bare", "whole"])
def answer(request: pytest.FixtureRequest) -> str:
    """Which id the answer to an order has."""
    if request.param == "bare":
        request.getfixturevalue("bare_ids")
    return str(request.param)


@pytest.mark.parametrize("product", UNTAGGED)
def test_an_order_is_followed_whichever_id_its_answer_has(
    desk: WireDesk, product: Product, answer: str
) -> None:
    entry = desk.bought(product=product)
    in_book = desk.sim.ledger.placed()[-1]["order_id"]
    assert (entry.broker_order_id == in_book) is (answer == "whole")
    desk.pass_on(1)
    row = desk.row(entry)
    assert (row.status, row.filled_quantity, row.broker_order_id) == (Status.FILLED, LOT, in_book)
    assert row.protection is Protection.SEEN
    out = desk.alert("EXIT", product=product)
    desk.pass_on(1)
    assert (desk.row(out).status, desk.net(product=product)) == (Status.FILLED, 0)
    for _ in range(30):
        desk.pass_on(10, witness=True)
    assert (desk.notifier.pages, desk.state(), desk.row(entry)) == ([], TradingState.ACTIVE, row)


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("product", UNTAGGED)
def test_a_leg_that_has_filled_is_known_as_its_entrys_whichever_id_that_had(
    desk: WireDesk, product: Product
) -> None:
    entry = desk.bought(product=product)
    desk.pass_on(1)
    desk.sim.trigger_stop(f"{TICKER}-{product}")
    desk.sim.place_by_hand(TICKER, 1, LOT, product)  # what the hand has bought since is not ours
    for _ in range(3):
        desk.pass_on(10)
    out = desk.alert("EXIT", product=product)
    assert (out.status, out.code, desk.net(product=product)) == (Status.DENIED, "nothing_to_exit", LOT)
    assert (desk.row(entry).protection, desk.notifier.pages) == (Protection.SEEN, [])


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("product", UNTAGGED)
@pytest.mark.parametrize("passes", [0, 1])
def test_an_entry_that_rests_is_cancelled_by_the_id_of_the_book(
    desk: WireDesk, product: Product, passes: int
) -> None:
    desk.sim.fill_mode = "rest"
    entry = desk.alert(product=product)
    for _ in range(passes):
        desk.pass_on(1)
    out = desk.alert("EXIT", product=product)
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit")
    desk.pass_on(1)
    assert desk.row(entry).status is Status.CANCELLED


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("product", UNTAGGED)
def test_a_doubt_of_the_same_shape_does_not_take_its_row(desk: WireDesk, product: Product) -> None:
    """Both come before the first pass: the row of the accepted one is known, and the other one was never placed."""
    accepted = desk.bought(product=product)
    doubt = desk.in_doubt("reset", product=product)
    desk.pass_on(1)
    assert (desk.row(accepted).status, desk.row(doubt).status) == (Status.FILLED, Status.IN_DOUBT)
    for _ in range(20):
        desk.pass_on(10, witness=True)
    assert (desk.row(doubt).status, desk.row(doubt).broker_order_id) == (Status.NOT_PLACED, None)


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("product", UNTAGGED)
def test_a_start_takes_no_row_of_ours_for_a_strangers(desks: Desks, product: Product) -> None:
    desk = desks.start()
    desk.pass_on()
    desk.bought(product=product)
    again = desks.start()
    again.pass_on(1)
    with again.store.read() as tx:
        assert tx.strangers(SCOPE) == ()
    assert again.state() is TradingState.ACTIVE


# --- an id that no row has --------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", [Product.INTRADAY, Product.BO])
@pytest.mark.parametrize("filled", [0, LOT])
def test_an_accepted_order_that_the_book_does_not_show_pages_once(
    desk: WireDesk, product: Product, filled: int
) -> None:
    desk.sim.fill_mode = f"partial:{filled}" if filled else "rest"
    order = desk.alert(lots=2, product=product)
    desk.pass_on(1)
    row = desk.sim.exchange.orders[order.broker_order_id or ""]
    row.visible_at = desk.sim.clock() + timedelta(hours=1)
    for _ in range(3):
        desk.pass_on(19, witness=True)
        assert desk.notifier.pages == []
    for _ in range(6):
        desk.pass_on(19, witness=True)
        assert desk.notifier.pages == ["needs_review"]
    was = Status.PARTIALLY_FILLED if filled else Status.ACCEPTED
    assert (desk.row(order).status, desk.row(order).filled_quantity) == (was, filled)
    row.visible_at = None
    desk.sim.fill(row.id)
    desk.pass_on(1)
    assert (desk.row(order).status, desk.notifier.pages) == (Status.FILLED, ["needs_review"])


def test_a_book_that_shows_nothing_newer_proves_nothing(desk: WireDesk) -> None:
    order = desk.bought()
    desk.sim.exchange.orders[order.broker_order_id or ""].visible_at = desk.sim.clock() + timedelta(hours=1)
    for _ in range(10):
        desk.pass_on(30)
    assert desk.notifier.pages == []
