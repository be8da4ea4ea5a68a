"""Protection that does not show, and exits that do not fill: on the wire, judged by the ledger."""

from __future__ import annotations

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Order, Protection
from app.domain.status import Status
from app.service.records import BookStatus
from tests.wire_desk import LOT, TICKER, WireDesk

LEGS = "PATCH /positions"
CANCEL = "DELETE /orders/sync"
SOLD_ONCE = [(TICKER, LOT)]


def pages(desk: WireDesk, word: str) -> int:
    return desk.notifier.pages.count(word)


def test_protection_is_seen(desk: WireDesk) -> None:
    entry = desk.bought()
    desk.pass_on(1)
    assert desk.row(entry).protection is Protection.SEEN
    assert Event.PROTECTION_SEEN in desk.events(entry)
    assert desk.notifier.pages == []


def test_missing_protection_pages_once_ten_seconds_after_the_fill(desk: WireDesk) -> None:
    desk.sim.overlay_mode = "ignored"
    entry = desk.bought()
    desk.pass_on(1)
    desk.pass_on(9.5)
    assert (desk.row(entry).protection, pages(desk, "protection_missing")) == (Protection.REQUESTED, 0)
    for _ in range(3):
        desk.pass_on(0.5)
        assert (desk.row(entry).protection, pages(desk, "protection_missing")) == (Protection.MISSING, 1)
    assert desk.events(entry).count(Event.PROTECTION_MISSING) == 1
    desk.sim.overlay_mode = "shown"
    desk.sim.exchange.positions[f"{TICKER}-INTRADAY"].stop_loss += 15
    desk.pass_on(1)
    assert desk.row(entry).protection is Protection.SEEN


def test_what_is_flat_again_needs_no_protection(desk: WireDesk) -> None:
    desk.sim.overlay_mode = "ignored"
    entry = desk.bought()
    desk.pass_on(1)
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY")
    desk.pass_on(30)
    assert (desk.row(entry).protection, desk.notifier.pages) == (Protection.REQUESTED, [])


@pytest.mark.parametrize("product", [Product.BO, Product.CO])
@pytest.mark.parametrize("end", [BookStatus.REJECTED, BookStatus.CANCELLED])
@pytest.mark.parametrize("was_seen", [True, False])
def test_a_leg_that_has_ended_or_a_target_alone_protects_nothing(
    desk: WireDesk, product: Product, end: int, *, was_seen: bool
) -> None:
    entry = desk.bought(product=product)
    if was_seen:
        desk.pass_on(1)
        assert desk.row(entry).protection is Protection.SEEN
    stop = next(
        o for o in desk.sim.exchange.orders.values() if o.parent_id is not None and o.intent.stop_price
    )
    stop.status = end
    desk.pass_on(1)
    desk.pass_on(10)
    assert desk.net(product=product) == LOT
    assert (desk.row(entry).protection, pages(desk, "protection_missing")) == (Protection.MISSING, 1)


@pytest.mark.parametrize("kind", ["stop", "target"])
def test_an_entry_that_its_own_leg_has_closed_needs_no_stop_though_another_is_held(
    desk: WireDesk, kind: str
) -> None:
    first, second = desk.bought(product=Product.BO), desk.bought(product=Product.BO)
    desk.pass_on(1)
    legs = [o for o in desk.sim.exchange.orders.values() if o.parent_id == desk.row(first).broker_order_id]
    desk.sim.fill(next(o.id for o in legs if bool(o.intent.stop_price) is (kind == "stop")))
    for _ in range(3):
        desk.pass_on(10)
    assert desk.net(product=Product.BO) == LOT
    marks = [desk.row(each).protection for each in (first, second)]
    assert (marks, pages(desk, "protection_missing")) == ([Protection.SEEN] * 2, 0)


def stuck_exit(desk: WireDesk) -> Order:
    desk.bought()
    desk.pass_on(1)
    desk.sim.fill_mode = "rest"
    out = desk.alert("EXIT")
    assert out.status is Status.ACCEPTED
    desk.pass_on(9)
    assert pages(desk, "exit_unfilled") == 0
    for _ in range(3):
        desk.pass_on(1)
        assert pages(desk, "exit_unfilled") == 1
    return out


def test_an_exit_that_does_not_fill_pages_once_and_a_new_one_replaces_it(desk: WireDesk) -> None:
    out = stuck_exit(desk)
    desk.sim.fill_mode = "instant"
    new = desk.alert("EXIT")
    assert (new.status, new.quantity, desk.net()) == (Status.ACCEPTED, LOT, 0)
    desk.pass_on(1)
    assert (desk.row(out).status, desk.row(new).status) == (Status.CANCELLED, Status.FILLED)
    assert Event.EXIT_REPLACED in desk.events(out)
    desk.sim.match()
    desk.pass_on(30)
    assert desk.net() == 0


def test_an_exit_whose_cancel_is_in_doubt_is_not_joined_by_a_second(desk: WireDesk) -> None:
    out = stuck_exit(desk)
    desk.sim.faults.next(CANCEL, "reset")
    new = desk.alert("EXIT")
    assert (new.status, len(desk.sold())) == (Status.EXIT_PENDING, 1)
    desk.sim.fill(out.broker_order_id or "")
    desk.sim.fill_mode = "instant"
    desk.pass_on(1)
    desk.pass_on(1)
    assert (desk.row(out).status, desk.row(new).status) == (Status.FILLED, Status.DENIED)
    assert (desk.sold(), desk.net()) == (SOLD_ONCE, 0)


def test_a_cancel_that_worked_though_its_answer_was_lost_makes_room(desk: WireDesk) -> None:
    out = stuck_exit(desk)
    desk.sim.fill_mode = "instant"
    desk.sim.faults.next(CANCEL, "reset_created")
    new = desk.alert("EXIT")
    assert (desk.row(out).status, new.status, desk.net()) == (Status.CANCELLED, Status.ACCEPTED, 0)
