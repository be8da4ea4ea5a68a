"""An exit between a 503 and its re-send: what came before it opens nothing after it, what came after it stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import ADMIN_CLIENT, Alert, ExpiryRule, Product
from app.domain.audit import Event
from app.domain.limits import Limits
from app.domain.order import Order, Purpose
from app.domain.outcome import NotSent, Unknown
from app.domain.status import Status
from app.errors import OutOfTime
from app.service.place_order import Answer
from tests.builders import LOT, SCOPE, a_contract, a_policy, an_alert
from tests.service.desk import TradingDesk
from tests.service.test_by_hand import position_id

OVERTAKEN = (Status.DENIED, "overtaken_by_exit")


@pytest.fixture
def desk() -> TradingDesk:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=10, max_lots_per_day=10)))
    desk.contracts.contracts += [a_contract(strike=24600), a_contract(date(2026, 12, 1))]
    return desk


def deliver(desk: TradingDesk, alert: Alert) -> Answer:
    return desk.service(alert, request_id="r", started=desk.clock.monotonic())


def not_sent(desk: TradingDesk, action: str = "BUY", **changes: Any) -> tuple[Alert, Order]:
    """An alert that was answered 503, and comes again."""
    alert = an_alert(action, f"first {action} {changes}", received_at=desk.clock.now(), **changes)
    desk.broker.next_place = [NotSent("connect_failed", "no route")]
    order = deliver(desk, alert).order
    assert order.status is Status.NOT_SENT
    desk.clock.advance(2)
    return alert, order


def again(desk: TradingDesk, alert: Alert) -> Answer:
    desk.clock.advance(3)
    return deliver(desk, alert)


def stands(desk: TradingDesk, order: Order) -> tuple[Status, str | None]:
    return desk.row(order).status, desk.row(order).code


def test_an_entry_that_was_not_sent_opens_nothing_after_the_exit(desk: TradingDesk) -> None:
    alert, entry = not_sent(desk)
    out = desk.alert("EXIT").order
    assert (out.status, out.code) == (Status.DENIED, "nothing_to_exit")
    assert out.warnings == (f"not sent any more: {entry.id}",)
    assert stands(desk, entry) == OVERTAKEN
    assert desk.events(entry)[-1] is Event.ORDER_DENIED
    assert desk.row(entry).reason == f"the exit {out.id} came before it was sent"
    answer = again(desk, alert)
    assert (answer.replayed, answer.order.code, desk.sent()) == (True, "overtaken_by_exit", [])
    assert [n for (_, name, _), n in desk.store.data.caps.items() if "lots" in name] == [0]
    desk.clock.advance(60)
    desk.reconcile()
    assert stands(desk, entry) == OVERTAKEN
    assert desk.notifier.pages == []


@pytest.mark.parametrize(("action", "lots"), [("EXIT", None), ("SELL", 1), ("SELL", 2)])
def test_an_exit_of_what_is_held_overtakes_it_too(desk: TradingDesk, action: str, lots: int | None) -> None:
    desk.held()
    alert, entry = not_sent(desk)
    out = desk.alert(action, lots=lots).order
    assert (out.status, out.quantity) == (Status.ACCEPTED, LOT)
    assert f"not sent any more: {entry.id}" in out.warnings
    again(desk, alert)
    assert (stands(desk, entry), desk.net()) == (OVERTAKEN, 0)


def test_an_exit_that_has_to_wait_overtakes_it_at_once(desk: TradingDesk) -> None:
    alert, entry = not_sent(desk)
    desk.broker.next_place = [Unknown("timed out")]
    desk.alert("BUY")
    out = desk.alert("EXIT").order
    assert (out.status, stands(desk, entry)) == (Status.EXIT_PENDING, OVERTAKEN)
    again(desk, alert)
    for _ in range(2):
        desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)


def test_one_that_was_being_sent_when_the_exit_came_is_overtaken_by_its_next_run(desk: TradingDesk) -> None:
    outs: list[Order] = []
    desk.broker.on["place"] = lambda: outs.append(desk.alert("EXIT").order)
    alert, entry = not_sent(desk)
    desk.broker.on.clear()
    assert outs[0].status is Status.EXIT_PENDING
    desk.reconcile()
    assert (stands(desk, entry), stands(desk, outs[0])) == (OVERTAKEN, (Status.DENIED, "nothing_to_exit"))
    again(desk, alert)
    assert desk.sent() == []


def test_an_operators_exit_overtakes_every_clients_and_a_clients_own_only_his(desk: TradingDesk) -> None:
    _, mine = not_sent(desk, client="a")
    _, other = not_sent(desk, client="b")
    desk.alert("EXIT", client="a")
    assert (stands(desk, mine), desk.row(other).status) == (OVERTAKEN, Status.NOT_SENT)
    desk.alert("EXIT", client=ADMIN_CLIENT)
    assert stands(desk, other) == OVERTAKEN


@pytest.mark.parametrize("held", [True, False])
def test_other_contracts_products_and_sides_are_none_of_its_business(
    desk: TradingDesk, *, held: bool
) -> None:
    others = [
        not_sent(desk, strike=Decimal(24600)),
        not_sent(desk, product=Product.MARGIN),
        not_sent(desk, expiry=ExpiryRule.NEXT_WEEKLY),
    ]
    _, entry = not_sent(desk)
    if held:
        desk.held()
    desk.alert("EXIT")
    assert stands(desk, entry) == OVERTAKEN
    assert [desk.row(order).status for _, order in others] == [Status.NOT_SENT] * 3
    assert [again(desk, alert).order.status for alert, _ in others] == [Status.ACCEPTED] * 3


def test_a_sell_after_a_buy_that_was_not_sent_opens_nothing(desk: TradingDesk) -> None:
    alert, entry = not_sent(desk)
    out = desk.alert("SELL").order
    assert (out.purpose, out.status, out.code) == (Purpose.EXIT, Status.DENIED, "nothing_to_exit")
    assert stands(desk, entry) == OVERTAKEN
    assert again(desk, alert).order.status is Status.DENIED
    assert desk.net() == 0


def test_a_sell_does_not_overtake_a_sell(desk: TradingDesk) -> None:
    alert, entry = not_sent(desk, "SELL")
    desk.clock.advance(100)
    desk.held()
    assert desk.alert("SELL").order.status is Status.ACCEPTED
    assert desk.row(entry).status is Status.NOT_SENT
    desk.clock.advance(1)
    assert deliver(desk, alert).order.id == entry.id


@pytest.mark.parametrize("missing", [True, False])
def test_an_exit_by_a_rule_overtakes_the_only_contract_that_it_could_mean(
    desk: TradingDesk, *, missing: bool
) -> None:
    """As it would have closed it: what is there goes before what the rule picks today, and needs no master."""
    _, entry = not_sent(desk, expiry=ExpiryRule.NEXT_WEEKLY)
    desk.contracts.missing = missing
    assert desk.alert("EXIT").order.code == "nothing_to_exit"
    assert stands(desk, entry) == OVERTAKEN


def test_an_exit_that_names_another_expiry_overtakes_nothing(desk: TradingDesk) -> None:
    _, entry = not_sent(desk)
    assert desk.alert("EXIT", expiry=date(2026, 12, 1)).order.code == "nothing_to_exit"
    assert desk.row(entry).status is Status.NOT_SENT


def test_an_entry_that_is_sent_again_while_the_exit_reads_is_waited_for(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    alert, entry = not_sent(desk)

    def meanwhile() -> None:
        desk.broker.on.clear()
        deliver(desk, alert)

    desk.broker.on["positions"] = meanwhile
    out = desk.alert("EXIT").order
    assert (out.status, desk.row(entry).status) == (Status.EXIT_PENDING, Status.ACCEPTED)
    for _ in range(2):
        desk.reconcile()
    assert (desk.row(out).status, desk.net()) == (Status.FILLED, 0)


def before_the_next_write(desk: TradingDesk, step: Callable[[], object]) -> None:
    def meanwhile(_: int) -> None:
        desk.store.before_write = None
        step()

    desk.store.before_write = meanwhile


def test_an_exit_that_found_nothing_is_not_denied_beside_an_entry_that_is_sent_again(
    desk: TradingDesk,
) -> None:
    alert, entry = not_sent(desk)
    before_the_next_write(desk, lambda: deliver(desk, alert))
    out = an_alert("EXIT", "out", received_at=desk.clock.now())
    with pytest.raises(OutOfTime):  # 503: it comes again
        deliver(desk, out)
    assert desk.row(entry).status is Status.ACCEPTED
    assert (again(desk, out).order.status, desk.net()) == (Status.ACCEPTED, 0)


def has_come(desk: TradingDesk) -> None:
    desk.alert("BUY")


def has_filled(desk: TradingDesk) -> None:
    desk.alert("BUY")
    desk.reconcile()


def of_another_expiry(desk: TradingDesk) -> None:
    """The only one, and so the one that the exit means."""
    desk.contracts.missing = False
    desk.alert("BUY", expiry=ExpiryRule.NEXT_WEEKLY)


@pytest.mark.parametrize("client", ["default", ADMIN_CLIENT])
@pytest.mark.parametrize("knows_contracts", [True, False])
@pytest.mark.parametrize("comes", [has_come, has_filled, of_another_expiry])
def test_an_exit_that_found_nothing_is_not_denied_beside_an_entry_that_has_just_come(
    desk: TradingDesk, comes: Callable[[TradingDesk], None], client: str, *, knows_contracts: bool
) -> None:
    def step() -> None:
        desk.contracts.missing = False
        comes(desk)

    before_the_next_write(desk, step)
    desk.contracts.missing = not knows_contracts
    out = an_alert("EXIT", "out", client=client, received_at=desk.clock.now())
    with pytest.raises(OutOfTime):  # 503: it comes again
        deliver(desk, out)
    assert (again(desk, out).order.status, desk.net()) == (Status.ACCEPTED, 0)


def test_an_entry_that_has_come_after_the_exit_is_not_closed_by_it(desk: TradingDesk) -> None:
    def step() -> None:
        desk.clock.advance(0.2)
        desk.alert("BUY")

    before_the_next_write(desk, step)
    out = an_alert("EXIT", "out", received_at=desk.clock.now())
    assert deliver(desk, out).order.code == "nothing_to_exit"
    assert (again(desk, out).replayed, desk.net()) == (True, LOT)


def test_an_entry_that_is_not_sent_while_the_exit_looks_opens_nothing_after_it(desk: TradingDesk) -> None:
    alerts: list[Alert] = []
    before_the_next_write(desk, lambda: alerts.append(not_sent(desk)[0]))
    out = an_alert("EXIT", "out", received_at=desk.clock.now())
    assert deliver(desk, out).order.code == "nothing_to_exit"
    assert (again(desk, alerts[0]).order.code, desk.net()) == ("overtaken_by_exit", 0)


@pytest.mark.parametrize("held", [True, False])
def test_a_re_send_that_comes_to_its_row_after_the_exit_finds_its_no(
    desk: TradingDesk, *, held: bool
) -> None:
    if held:
        desk.held()
    alert, entry = not_sent(desk)
    before_the_next_write(desk, lambda: desk.alert("EXIT"))
    answer = deliver(desk, alert)
    assert (answer.replayed, answer.order.code) == (True, "overtaken_by_exit")
    assert (stands(desk, entry), desk.net()) == (OVERTAKEN, 0)


def test_a_repeat_of_the_exit_overtakes_nothing_that_came_after_it(desk: TradingDesk) -> None:
    out = an_alert("EXIT", "out", received_at=desk.clock.now())
    assert deliver(desk, out).order.code == "nothing_to_exit"
    alert, entry = not_sent(desk)
    assert deliver(desk, out).replayed
    assert desk.row(entry).status is Status.NOT_SENT
    assert again(desk, alert).order.status is Status.ACCEPTED


# --- and an exit that was not sent itself -----------------------------------------------------------------------


def test_an_exit_sent_again_leaves_alone_what_was_bought_since(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    out, first = not_sent(desk, "EXIT")
    desk.held()
    order = again(desk, out).order
    assert (order.id, order.status, order.quantity, desk.net()) == (first.id, Status.ACCEPTED, LOT, LOT)
    desk.reconcile()
    assert desk.alert("EXIT").order.quantity == LOT
    assert desk.net() == 0


def test_a_sell_sent_again_after_the_stop_leaves_alone_what_was_bought_since(desk: TradingDesk) -> None:
    desk.held()
    desk.reconcile()
    out, first = not_sent(desk, "SELL")
    desk.broker.trigger_stop(position_id())
    desk.reconcile()
    desk.held()
    assert again(desk, out).order.id == first.id
    assert (stands(desk, first), desk.net()) == ((Status.DENIED, "nothing_to_exit"), LOT)


def test_a_sell_of_two_lots_sent_again_is_cut_to_what_came_before_it(desk: TradingDesk) -> None:
    desk.held(lots=2)
    desk.reconcile()
    out, _ = not_sent(desk, "SELL", lots=2)
    desk.broker.by_hand(desk.contract.ticker, -LOT)
    desk.reconcile()
    desk.held(lots=2)
    assert (again(desk, out).order.quantity, desk.net()) == (LOT, 2 * LOT)


def test_an_exit_sent_again_cancels_no_entry_that_came_since(desk: TradingDesk) -> None:
    desk.held()
    out, _ = not_sent(desk, "EXIT")
    desk.broker.fills = False
    later = desk.alert("BUY").order
    desk.broker.fills = True
    assert again(desk, out).order.status is Status.ACCEPTED
    assert (desk.row(later).status, desk.net()) == (Status.ACCEPTED, 0)
    assert desk.broker.book[-2].is_working


def test_an_exit_sent_again_leaves_alone_what_came_since_and_was_not_sent(desk: TradingDesk) -> None:
    desk.held()
    out, _ = not_sent(desk, "EXIT")
    alert, entry = not_sent(desk)
    assert deliver(desk, out).order.quantity == LOT
    assert desk.row(entry).status is Status.NOT_SENT
    assert again(desk, alert).order.status is Status.ACCEPTED
    assert desk.net() == LOT


def test_an_exit_sent_again_does_not_replace_a_later_one_of_old_and_new(desk: TradingDesk) -> None:
    """In its place it would close the old alone, and nobody sends the other again."""
    desk.held()
    desk.reconcile()
    out, _ = not_sent(desk, "EXIT")
    desk.held()
    desk.broker.fills = False
    all_of_it = desk.alert("EXIT").order
    assert all_of_it.quantity == 2 * LOT
    desk.clock.advance(10)
    order = again(desk, out).order
    assert (order.status, desk.broker.calls.count("cancel")) == (Status.EXIT_PENDING, 0)
    desk.broker.fill(all_of_it.broker_order_id or "")
    desk.reconcile()
    assert (stands(desk, order), desk.net()) == ((Status.DENIED, "nothing_to_exit"), 0)


def test_two_deliveries_of_an_exit_beside_an_entry_are_one(desk: TradingDesk) -> None:
    _, entry = not_sent(desk)
    out = an_alert("EXIT", "out", received_at=desk.clock.now())
    before_the_next_write(desk, lambda: deliver(desk, out))
    answer = deliver(desk, out)
    assert (answer.replayed, answer.order.code) == (True, "nothing_to_exit")
    assert len(desk.store.events(SCOPE, entry.id)) == 3


@pytest.mark.parametrize("client", ["trader", "admin"])
def test_an_entry_whose_price_is_read_when_its_exit_comes_is_not_sent(desk: TradingDesk, client: str) -> None:
    """The exit came after it, and has found nothing: it would never be closed."""
    answers: list[Order] = []

    def comes() -> None:
        desk.broker.on.clear()
        desk.clock.advance(1)
        answers.append(desk.alert("EXIT", client=client).order)

    desk.broker.on["quotes"] = comes
    entry = desk.alert("BUY", client="trader").order
    (out,) = answers
    assert (out.code, entry.code, desk.sent()) == ("nothing_to_exit", "overtaken_by_exit", [])
    assert out.id in (entry.reason or "")
    assert desk.alert("BUY", client="trader").order.status is Status.ACCEPTED
