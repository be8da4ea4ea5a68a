"""Entries, judged by the rows they leave and by what reached the broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.order import Protection, Ticket
from app.domain.outcome import Accepted, NotSent, Refused, Unknown
from app.domain.risk import Limits, TradingState
from app.domain.status import Status
from app.errors import BrokerReadFailed, KeyClash, KeyInUse, PriceUnavailable, StoreUnavailable
from app.service.check import CheckAlert
from app.service.records import BookStatus, Quote
from tests.builders import LOT, SCOPE, TODAY, a_policy, an_alert
from tests.service.desk import TradingDesk


@pytest.fixture
def desk() -> TradingDesk:
    return TradingDesk()


def test_one_alert_is_one_order_with_distances(desk: TradingDesk) -> None:
    answer = desk.alert("BUY")
    (ticket,) = desk.broker.ledger
    assert (ticket.quantity, ticket.stop_distance, ticket.target_distance) == (LOT, Decimal(15), Decimal(25))
    order = answer.order
    assert (order.status, order.protection) == (Status.ACCEPTED, Protection.REQUESTED)
    assert (order.stop_loss, order.take_profit, order.ltp) == (Decimal(85), Decimal(125), Decimal(100))
    assert (ticket.tag, len(order.tag)) == (order.tag, 20)
    assert desk.row(order).broker_order_id == order.broker_order_id is not None
    assert desk.events(order) == [Event.ORDER_SENDING, Event.ORDER_ACCEPTED]


def test_entries_have_a_queue_of_their_own_that_no_exit_stands_in(desk: TradingDesk) -> None:
    desk.held()
    desk.store.is_queue_stuck = True
    with pytest.raises(StoreUnavailable, match="did not get done"):
        desk.alert("BUY")
    desk.alert("EXIT")
    assert desk.net() == 0
    desk.store.is_queue_stuck = False
    assert desk.held().status is Status.ACCEPTED


def test_a_doubled_alert_is_one_order(desk: TradingDesk) -> None:
    first, second = desk.alert(key="k"), desk.alert(key="k")
    assert (first.replayed, second.replayed) == (False, True)
    assert second.order.id == first.order.id
    assert len(desk.sent()) == 1


def test_the_same_body_without_a_key_is_a_repeat_only_within_the_window(desk: TradingDesk) -> None:
    alert = an_alert()
    for seconds, orders in ((0, 1), (39, 1), (2, 2)):
        desk.clock.advance(seconds)
        desk.service(alert, request_id="r", started=desk.clock.monotonic())
        assert len(desk.sent()) == orders


def test_a_key_with_another_body_is_refused(desk: TradingDesk) -> None:
    desk.alert(key="k")
    with pytest.raises(KeyClash):
        desk.alert(key="k", body="other")
    assert desk.notifier.notes == ["key_clash"]


def test_a_repeat_while_the_first_is_running(desk: TradingDesk) -> None:
    running: list[int | None] = []

    def repeat() -> None:
        with pytest.raises(KeyInUse) as caught:
            desk.alert(key="k")
        running.append(caught.value.retry_after_s)

    desk.broker.on["place"] = repeat
    desk.alert(key="k")
    assert running == [1]
    assert len(desk.sent()) == 1


def test_a_hanging_broker_is_a_doubt_and_its_repeat_sends_nothing(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert(key="k").order.status is Status.IN_DOUBT
    again = desk.alert(key="k")
    assert (again.replayed, again.order.status) == (True, Status.IN_DOUBT)
    assert len(desk.sent()) == 1


def test_an_unexpected_error_around_the_call_is_a_doubt(desk: TradingDesk) -> None:
    desk.broker.next_place = [RuntimeError("bug")]
    order = desk.alert().order
    assert desk.row(order).status is Status.IN_DOUBT


def test_not_sent_is_tried_again_in_the_same_row(desk: TradingDesk) -> None:
    desk.broker.next_place = [NotSent("connect_failed", "no route", retry_after_s=5)]
    first = desk.alert(key="k")
    assert (first.order.status, first.retry_after_s, desk.sent()) == (Status.NOT_SENT, 5, [])
    second = desk.alert(key="k")
    assert (second.order.id, second.order.tag) == (first.order.id, first.order.tag)
    assert (second.order.status, second.order.attempt, second.replayed) == (Status.ACCEPTED, 2, False)
    assert len(desk.store.orders) == len(desk.sent()) == 1


def test_a_retake_runs_its_checks_anew(desk: TradingDesk) -> None:
    desk.broker.next_place = [NotSent("connect_failed", "no route")]
    desk.alert(key="k")
    desk.store.data.states[SCOPE] = TradingState.REDUCING
    again = desk.alert(key="k").order
    assert (again.status, again.code, desk.sent()) == (Status.DENIED, "trading_state", [])


def test_a_proven_no_is_rejected(desk: TradingDesk) -> None:
    desk.broker.next_place = [Refused("-50", "margin")]
    order = desk.alert().order
    assert (order.status, order.code, order.reason) == (Status.REJECTED, "-50", "margin")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"qty": LOT + 1}, "lot_multiple"),
        ({"lots": 2}, "max_lots"),
        ({"symbol": "NOPE"}, "unknown_symbol"),
        ({"expiry": date(2026, 11, 25)}, "unknown_expiry"),
        ({"strike": Decimal(1)}, "unknown_strike"),
    ],
)
def test_a_denial_is_durable_under_its_key(desk: TradingDesk, changes: dict[str, Any], code: str) -> None:
    order = desk.alert(key="k", **changes).order
    assert (order.status, order.code) == (Status.DENIED, code)
    assert desk.alert(key="k", **changes).replayed
    assert desk.sent() == []


def test_a_stale_master_stops_an_entry(desk: TradingDesk) -> None:
    desk.contracts.contracts = [replace(desk.contract, master_date=TODAY - timedelta(days=10))]
    assert desk.alert().order.code == "stale_master"


@pytest.mark.parametrize(
    "prices",
    [
        (None, 99, 101),
        (100, None, 101),
        (100, 99, 0),
        (100, 0, 101),
        (0, 0, 0),
        (100, 50, 60),
        (100, 110, 111),
        (-100, 99, 101),
        ("NaN", 99, 101),
        (100, "NaN", 101),
        (100, 99, "Infinity"),
    ],
)
def test_no_usable_price_burns_no_key(desk: TradingDesk, prices: tuple[int | str | None, ...]) -> None:
    ticker = desk.contract.ticker
    ltp, bid, ask = (None if p is None else Decimal(p) for p in prices)
    desk.broker.prices[ticker] = Quote(ticker, ltp, bid, ask)
    with pytest.raises(PriceUnavailable):
        desk.alert(key="k")
    del desk.broker.prices[ticker]
    assert (desk.store.orders, desk.alert(key="k").order.status) == ([], Status.ACCEPTED)


def test_a_failed_quote_sends_nothing_and_burns_no_key(desk: TradingDesk) -> None:
    desk.broker.fail = {"quotes"}
    with pytest.raises(BrokerReadFailed):
        desk.alert(key="k")
    desk.broker.fail = set()
    assert desk.alert(key="k").order.status is Status.ACCEPTED


def test_a_halt_between_commit_and_send_stops_it(desk: TradingDesk) -> None:
    desk.broker.on["place"] = lambda: desk.store.data.states.update({SCOPE: TradingState.REDUCING})
    order = desk.alert().order
    assert (order.status, order.code, desk.sent()) == (Status.NOT_SENT, "trading_state", [])


def test_a_slow_connection_ends_as_not_sent(desk: TradingDesk) -> None:
    desk.broker.on["place"] = lambda: desk.clock.advance(1.6)
    order = desk.alert().order
    assert (order.status, order.code, desk.sent()) == (Status.NOT_SENT, "out_of_time", [])


def test_an_outcome_that_cannot_be_recorded_is_answered_in_doubt(desk: TradingDesk) -> None:
    def fail_second(number: int) -> None:
        if number == 2:
            raise StoreUnavailable("gone")

    desk.store.before_write = fail_second
    order = desk.alert().order
    assert (order.status, desk.row(order).status) == (Status.IN_DOUBT, Status.SENDING)
    assert len(desk.sent()) == 1


def test_a_doubt_settled_meanwhile_keeps_its_proof(desk: TradingDesk) -> None:
    def settle_first() -> None:
        (row,) = desk.store.orders
        desk.store.data.orders[row.id] = replace(row, status=Status.IN_DOUBT)

    real = desk.broker.take

    def take_then_settle(ticket: Ticket) -> str:
        ident = real(ticket)
        settle_first()
        return ident

    desk.broker.take = take_then_settle  # type: ignore[method-assign]
    assert desk.alert().order.status is Status.ACCEPTED


def test_the_daily_cap_counts_a_row_once(desk: TradingDesk) -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, max_orders_per_day=1)))
    desk.broker.next_place = [NotSent("connect_failed", "no route")]
    desk.alert(key="k")
    assert desk.alert(key="k").order.status is Status.ACCEPTED
    denied = desk.alert(key="other").order
    assert (denied.status, len(desk.sent())) == (Status.DENIED, 1)


def test_one_unsettled_bracket_at_a_time(desk: TradingDesk) -> None:
    desk.broker.next_place = [Unknown("timed out")]
    assert desk.alert(product=Product.BO).order.status is Status.IN_DOUBT
    assert desk.broker.ledger[0].tag is None
    second = desk.alert(product=Product.BO).order
    assert (second.code, len(desk.sent())) == ("unsettled_bracket", 1)


def test_a_write_after_the_deadline_is_alarmed(desk: TradingDesk) -> None:
    desk.broker.next_place = [Accepted("1", sent_late=True)]
    order = desk.alert().order
    assert (order.status, desk.notifier.pages) == (Status.ACCEPTED, ["sent_late"])
    assert desk.events(order)[-2:] == [Event.ORDER_SENT_LATE, Event.ENTRY_CANCEL]


def test_an_entry_written_too_late_is_taken_back_while_it_works(desk: TradingDesk) -> None:
    desk.broker.fills = False
    desk.broker.next_place = [Accepted("00000000000001", sent_late=True)]
    desk.alert()
    assert desk.broker.book[0].status == BookStatus.CANCELLED


def test_the_fill_moves_the_levels(desk: TradingDesk) -> None:
    order = desk.alert().order
    (changed,) = desk.reconcile().changed
    assert (changed.id, changed.status, changed.fill_price) == (order.id, Status.FILLED, Decimal(101))
    assert (changed.stop_loss, changed.take_profit) == (Decimal(86), Decimal(126))
    assert desk.reconcile().changed == ()


def test_a_check_reports_and_sends_nothing(desk: TradingDesk) -> None:
    d = desk.service.desk
    check = CheckAlert(d)
    report = check(an_alert(lots=2), "r", desk.clock.monotonic())
    assert report.levels is not None
    assert report.denial is not None
    assert (report.denial.code, report.quantity, report.lots) == ("max_lots", 130, 2)
    assert report.levels.stop_loss == Decimal(85)
    assert (desk.store.orders, desk.sent()) == ([], [])


def test_a_check_of_an_exit_says_what_would_be_closed(desk: TradingDesk) -> None:
    d = desk.service.desk
    check = CheckAlert(d)
    nothing = check(an_alert("EXIT"), "r", desk.clock.monotonic())
    assert nothing.denial is not None
    assert nothing.denial.code == "nothing_to_exit"
    desk.held()
    found = check(an_alert("EXIT"), "r", desk.clock.monotonic())
    assert (found.denial, found.resolved is not None) == (None, True)
    assert found.resolved is not None
    assert found.resolved.contract.ticker == desk.contract.ticker
    assert len(desk.sent()) == 1


def test_a_check_says_what_a_cap_would_say_and_counts_nothing(desk: TradingDesk) -> None:
    desk = TradingDesk(policy=a_policy(limits=Limits(max_lots=1, max_orders_per_day=1)))
    check = CheckAlert(desk.desk)
    for _ in range(3):
        assert check(an_alert(received_at=desk.clock.now()), "r", desk.clock.monotonic()).denial is None
    desk.held()
    report = check(an_alert(received_at=desk.clock.now()), "r", desk.clock.monotonic())
    assert report.denial is not None
    assert report.denial.code == "cap_orders_day"


def test_a_check_of_a_sell_against_what_is_held_is_one_of_an_exit(desk: TradingDesk) -> None:
    desk.held()
    check = CheckAlert(desk.desk)
    desk.reconcile()
    good = check(an_alert("SELL", received_at=desk.clock.now()), "r", desk.clock.monotonic())
    assert good.denial is None
    assert {v.check.code for v in good.verdicts} <= {"trading_state", "market_closed", "signal_age"}
    more = check(an_alert("SELL", lots=3, received_at=desk.clock.now()), "r", desk.clock.monotonic())
    assert more.denial is not None
    assert more.denial.code == "exceeds_position"


@pytest.mark.parametrize("action", ["BUY", "EXIT"])
def test_the_trail_says_who_sent_it(desk: TradingDesk, action: str) -> None:
    """Under the hash of the first event: the row's own columns can be changed without breaking the chain."""
    order = desk.alert(action, client="ben", strategy="orb").order
    first = desk.store.events(SCOPE, order.id)[0]
    assert (first.detail["client"], first.detail["strategy"]) == ("ben", "orb")
