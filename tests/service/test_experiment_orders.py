"""Entries by an experiment's variant: levels, kind, row and audit event. Exits are never touched."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from app.domain.alert import key_of
from app.domain.experiment import Experiment, Flag, Rollout, Variant
from app.domain.order import Order, OrderKind, Purpose
from app.domain.outcome import NotSent
from app.domain.status import Status
from app.service.check import CheckAlert
from app.service.experiments import Trials, report
from tests.builders import SCOPE, a_policy, an_alert
from tests.fake_data import Data
from tests.service.desk import TradingDesk

WIDE = Variant("wide", 2, sl_percent=Decimal(30), tp_percent=Decimal(40))
LIMIT = Variant("limit", kind=OrderKind.LIMIT)
TRIAL = Experiment("stops", (WIDE, LIMIT))


def desk_with(rollout: Rollout) -> TradingDesk:
    return TradingDesk(policy=a_policy(rollout=rollout))


def key_for(variant: Variant, strategy: str = "orb") -> str:
    """An explicit key whose signal comes to this variant."""
    for number in range(100):
        alert = an_alert(key=f"k{number}", strategy=strategy)
        if TRIAL.variant(strategy, alert.key.digest) is variant:
            return f"k{number}"
    raise AssertionError("none of a hundred")


def test_a_variant_s_percents_set_the_levels() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    order = desk.alert(key=key_for(WIDE), strategy="orb").order
    assert order.status is Status.ACCEPTED
    assert (order.variant, order.stop_loss, order.take_profit) == ("stops/wide", Decimal(70), Decimal(140))
    (ticket,) = desk.broker.ledger
    assert (ticket.stop_distance, ticket.target_distance) == (Decimal(30), Decimal(40))
    assert (ticket.kind, ticket.limit_price) == (OrderKind.MARKET, Decimal(0))


def test_a_limit_variant_goes_out_at_the_touch_and_its_percents_are_the_settings() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    order = desk.alert(key=key_for(LIMIT), strategy="orb").order
    (ticket,) = desk.broker.ledger
    assert (ticket.kind, ticket.limit_price) == (OrderKind.LIMIT, Decimal(101)), "a BUY at the ask"
    assert (order.stop_loss, order.take_profit) == (Decimal(85), Decimal(125))
    sending = desk.store.events(order.scope, order.id)[0]
    assert sending.detail["variant"] == "stops/limit"
    assert (sending.detail["kind"], sending.detail["limit_price"]) == ("LIMIT", "101")


def test_an_order_outside_every_experiment_says_nothing_of_one() -> None:
    only = Experiment("stops", TRIAL.variants, frozenset({"orb"}))
    desk = desk_with(Rollout(experiments=(only,)))
    order = desk.alert(strategy="vwap").order
    assert (order.variant, order.kind, order.stop_loss) == ("", OrderKind.MARKET, Decimal(85))
    assert "variant" not in desk.store.events(order.scope, order.id)[0].detail


def test_the_next_attempt_of_a_signal_has_the_same_variant() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    desk.broker.next_place.append(NotSent("refused", "no connection"))
    key = key_for(LIMIT)
    first = desk.alert(key=key, strategy="orb").order
    assert (first.status, first.variant) == (Status.NOT_SENT, "stops/limit")
    again = desk.alert(key=key, strategy="orb").order
    assert (again.status, again.attempt, again.variant) == (Status.ACCEPTED, 2, "stops/limit")
    assert [t.kind for t in desk.broker.ledger] == [OrderKind.LIMIT]


def test_signals_without_a_key_are_split_though_they_have_the_same_words() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    key = key_of("default", None, "0" * 64, desk.clock.now())

    def deliver() -> Order:
        alert = replace(an_alert(strategy="orb", received_at=desk.clock.now()), key=key)
        return desk.service(alert, request_id="r", started=desk.clock.monotonic()).order

    variants = []
    for _ in range(20):
        order, again = deliver(), deliver()
        assert (again.id, again.variant) == (order.id, order.variant)
        variants.append(order.variant)
        desk.clock.advance(61)
    assert set(variants) == {"stops/wide", "stops/limit"}


def test_exits_are_as_without_an_experiment() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    desk.held(key=key_for(LIMIT), strategy="orb")
    by_word = desk.alert("EXIT", strategy="orb").order
    assert (by_word.purpose, by_word.variant, by_word.kind) == (Purpose.EXIT, "", OrderKind.MARKET)
    desk.held(key=key_for(WIDE), strategy="orb")
    against = desk.alert("SELL", strategy="orb").order
    assert (against.purpose, against.variant, against.kind) == (Purpose.EXIT, "", OrderKind.MARKET)
    assert desk.net() == 0


def test_a_flag_keeps_entries_out_and_lets_exits_pass() -> None:
    desk = TradingDesk()
    desk.held(strategy="orb")
    rollout = Rollout(Flag(0, {"vwap": True}))
    desk.service.desk = replace(desk.desk, policy=a_policy(rollout=rollout))
    denied = desk.alert(strategy="orb").order
    assert (denied.status, denied.code) == (Status.DENIED, "entries_off")
    assert desk.alert(strategy="vwap").order.status is Status.ACCEPTED
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.net() == 0


def test_check_tells_what_the_experiment_and_the_flag_would_do() -> None:
    desk = desk_with(Rollout(Flag(100, {"vwap": False}), (TRIAL,)))
    check = CheckAlert(desk.desk)
    orb = check(an_alert(key=key_for(WIDE), strategy="orb"), "r", desk.clock.monotonic())
    assert orb.levels is not None
    assert orb.levels.stop_loss == 70
    vwap = check(an_alert(strategy="vwap"), "r", desk.clock.monotonic())
    assert vwap.denial is not None
    assert vwap.denial.code == "entries_off"


@pytest.mark.slow
def test_ten_thousand_orders_split_by_the_weights() -> None:
    desk = desk_with(Rollout(experiments=(TRIAL,)))
    counts: Counter[str] = Counter()
    orders = []
    for number in range(10_000):
        order = desk.alert(key=f"signal {number}", strategy="orb").order
        counts[order.variant] += 1
        orders.append(replace(order, filled_quantity=65, fill_price=Decimal(101)))
        if number % 5 == 0:  # the store in memory copies all it has at each write
            desk.store.data = Data()
            desk.store.ensure_scope(SCOPE)
            desk.broker.book.clear()
            desk.broker.net.clear()
            desk.broker.fills_of_today.clear()
    assert sum(counts.values()) == 10_000
    assert abs(counts["stops/wide"] / 10_000 - 2 / 3) < 0.01
    assert abs(counts["stops/limit"] / 10_000 - 1 / 3) < 0.01
    wide, limit = report(TRIAL, Trials(tuple(orders), tuple(orders), ()))
    assert (wide.orders, limit.orders) == (counts["stops/wide"], counts["stops/limit"])
    assert (wide.slippage.value, limit.slippage.value) == (1.0, 1.0)
