"""The cluster's figures, read from rows that stand in a database."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from app.domain.deadline import Deadline
from app.domain.limits import Limits
from app.domain.order import Protection, Purpose, Side
from app.domain.status import Status
from app.service.caps import caps_of
from app.service.figures import CapUse, Figures, Leg, OrderCount
from app.store.sql import SqlStore
from app.store.sql_figures import figures
from tests.integration.store_rows import LIVE, NOON, SCOPE, Clock, insert, key, order

LIMITS = Limits(max_lots=1, max_orders_per_day=300)


def read(store: SqlStore, clock: Clock) -> Figures:
    return figures(store.database, SCOPE, LIMITS, Deadline(clock.monotonic() + 1))


def test_without_orders_everything_is_nothing(store: SqlStore, clock: Clock) -> None:
    store.ensure_scope(SCOPE)
    found = read(store, clock)
    assert (found.orders, found.in_doubt, found.oldest_doubt_s, found.unaccounted) == ((), 0, None, 0)
    assert (found.unprotected, found.trading_state, found.last_pass_s) == (0, "ACTIVE", None)
    assert found.caps == (CapUse("orders_day", 0, 300),)


def test_doubts_and_senders_that_are_gone(store: SqlStore, clock: Clock) -> None:
    insert(
        store,
        order("A", key=key("a"), status=Status.IN_DOUBT, sent_at=NOON - timedelta(seconds=50)),
        order("B", key=key("b"), status=Status.IN_DOUBT, sent_at=NOON - timedelta(seconds=20)),
        order("C", key=key("c"), answer_by=NOON - timedelta(seconds=1)),
        order("D", key=key("d"), answer_by=NOON + timedelta(seconds=1)),
        order("E", key=key("e"), status=Status.NEEDS_REVIEW),
        order("F", key=key("f"), status=Status.EXIT_PENDING, purpose=Purpose.EXIT),
        order("G", key=key("g"), status=Status.IN_DOUBT, scope=LIVE, sent_at=NOON - timedelta(hours=1)),
    )
    found = read(store, clock)
    assert (found.in_doubt, found.oldest_doubt_s) == (2, 50)
    assert (found.unaccounted, found.needs_review, found.exit_pending) == (1, 1, 1)


def test_orders_of_the_day_by_state_product_and_strategy(store: SqlStore, clock: Clock) -> None:
    yesterday = order("O", key=key("o")).ist_date - timedelta(days=1)
    insert(
        store,
        order("A", key=key("a"), status=Status.FILLED),
        order("B", key=key("b"), status=Status.FILLED),
        order("C", key=key("c"), status=Status.DENIED, strategy=""),
        order("D", key=key("d"), status=Status.FILLED, ist_date=yesterday),
        order("E", key=key("e"), status=Status.FILLED, scope=LIVE),
    )
    assert read(store, clock).orders == (
        OrderCount("FILLED", "INTRADAY", "orb", 2),
        OrderCount("DENIED", "INTRADAY", "", 1),
    )


def test_a_missing_stop_counts_while_its_position_is_held(store: SqlStore, clock: Clock) -> None:
    missing = {"status": Status.FILLED, "protection": Protection.MISSING, "filled_quantity": 75}
    insert(store, order("A", key=key("a"), **missing), order("B", key=key("b"), ticker="NSE:X", **missing))
    assert read(store, clock).unprotected == 2
    insert(
        store,
        order(
            "C", key=key("c"), ticker="NSE:X", status=Status.FILLED, filled_quantity=75, side=Side.SELL,
            purpose=Purpose.EXIT, protection=Protection.NONE,
        ),
    )  # fmt: skip
    assert read(store, clock).unprotected == 1


def test_what_a_fill_cost_against_the_price_that_its_order_went_by(store: SqlStore, clock: Clock) -> None:
    filled = {"status": Status.FILLED, "filled_quantity": 75, "ltp": Decimal(100)}
    insert(
        store,
        order("A", key=key("a"), fill_price=Decimal("101.5"), **filled),
        order("B", key=key("b"), fill_price=Decimal("101.5"), side=Side.SELL, **filled),
        order("C", key=key("c"), fill_price=None, **filled),
    )
    slips = read(store, clock).slips
    assert {slip.percent for slip in slips} == {Decimal("1.5"), Decimal("-1.5")}
    assert {slip.leg for slip in slips} == {Leg.ORDER_TO_FILL}  # no signal said a price


def test_what_was_lost_between_the_signal_its_order_and_the_fill(store: SqlStore, clock: Clock) -> None:
    filled = {"status": Status.FILLED, "filled_quantity": 75, "signal_price": Decimal(100)}
    insert(
        store,
        order("A", key=key("a"), ltp=Decimal(102), fill_price=Decimal("102.51"), **filled),
        # An exit has no last price of its own; it sold two below its signal.
        order(
            "B", key=key("b"), ltp=None, fill_price=Decimal(98), side=Side.SELL, purpose=Purpose.EXIT, **filled
        ),
        # The underlying's chart: 24,500 is no price that the option ever had.
        order("C", key=key("c"), fill_price=Decimal(100), **filled | {"signal_price": Decimal(24500)}),
        # Not filled: nothing was paid.
        order("D", key=key("d"), fill_price=None, **filled | {"filled_quantity": 0}),
    )  # fmt: skip
    found = read(store, clock)
    legs = {(s.purpose, s.leg, s.percent) for s in found.slips if s.leg is not Leg.ORDER_TO_FILL}
    assert legs == {
        ("entry", Leg.SIGNAL_TO_ORDER, Decimal(2)),
        ("entry", Leg.SIGNAL_TO_FILL, Decimal("2.51")),
        ("exit", Leg.SIGNAL_TO_FILL, Decimal(2)),
    }
    assert found.signals_elsewhere == 1


def test_caps_as_they_are_used_now(store: SqlStore, clock: Clock) -> None:
    with store.write() as tx:
        assert tx.reserve(SCOPE, "A", caps_of(LIMITS, NOON, Decimal(1), 75)) is None
    assert read(store, clock).caps == (CapUse("orders_day", 1, 300),)
    clock.pass_(24 * 3600)
    assert read(store, clock).caps == (CapUse("orders_day", 0, 300),)


def test_how_long_ago_a_pass_began(store: SqlStore, clock: Clock) -> None:
    with store.write() as tx:
        tx.record_pass(SCOPE, NOON)
    clock.pass_(7)
    assert read(store, clock).last_pass_s == 7
