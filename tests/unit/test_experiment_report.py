"""The report against a calculation by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from math import isclose
from typing import Any

from app.domain.alert import Product
from app.domain.experiment import Experiment, Variant
from app.domain.order import Order, Purpose, Side
from app.domain.status import Status
from app.service.experiments import Adjusted, Estimate, Trials, mean, rate, report
from tests.builders import NOW, an_order

TRIAL = Experiment("stops", (Variant("usual"), Variant("wide", 2)))


def filled(number: int, minute: int, price: int | str, quantity: int = 10, **changes: Any) -> Order:
    order = an_order(number, quantity=quantity, status=Status.FILLED, ltp=Decimal(100), **changes)
    return replace(
        order,
        filled_quantity=quantity,
        fill_price=Decimal(price),
        filled_at=NOW + timedelta(minutes=minute),
    )


def entry(number: int, minute: int, price: int | str, variant: str = "usual", **changes: Any) -> Order:
    return filled(number, minute, price, variant=f"stops/{variant}", **changes)


def an_exit(number: int, minute: int, price: int | str, quantity: int = 10, **changes: Any) -> Order:
    changes = {"side": Side.SELL, **changes}
    return filled(number, minute, price, quantity, purpose=Purpose.EXIT, **changes)


def trials(*orders: Order, adjusted: tuple[Adjusted, ...] = ()) -> Trials:
    return Trials(
        tuple(o for o in orders if o.variant), tuple(o for o in orders if o.filled_quantity), adjusted
    )


def near(found: Estimate, count: int, value: float, low: float, high: float) -> bool:
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    pairs = ((found.value, value), (found.low, low), (found.high, high))
    return found.count == count and all(isclose(a, b, abs_tol=0.005) for a, b in pairs)


def test_slippage_hit_rate_and_profit_by_hand() -> None:
    orders = [
        # usual: bought at 101, 102 and 103 (slippage 1, 2, 3); sold at 111, 97 and 108
        entry(1, 0, 101),
        an_exit(2, 1, 111),
        entry(3, 2, 102),
        an_exit(4, 3, 97),
        entry(5, 4, 103),
        an_exit(6, 5, 108),
        # wide: sold short at 99 (slippage 1), bought back at 89; one that was denied
        entry(7, 10, 99, "wide", side=Side.SELL),
        an_exit(8, 11, 89, side=Side.BUY),
        an_order(9, variant="stops/wide", status=Status.DENIED),
    ]
    usual, wide = report(TRIAL, trials(*orders))
    assert (usual.name, usual.weight, usual.orders, usual.filled) == ("usual", 1, 3, 3)
    # mean 2, s = 1, 1.959964 / sqrt(3) = 1.131586
    assert near(usual.slippage, 3, 2.0, 0.868414, 3.131586)
    # +100, -50, +50: mean 33.3333, s = sqrt(17500 / 3) = 76.376262, half = 76.376262 x 1.131586 = 86.426293
    assert near(usual.profit, 3, 33.333333, -53.092960, 119.759626)
    assert usual.profit_total == 100
    # Wilson of 2 in 3: (0.666667 + 0.640243) / 2.280486 -+ 0.365178...
    assert near(usual.hit_rate, 3, 2 / 3, 0.2077, 0.9385)
    assert (usual.still_open, usual.unpriced) == (0, 0)
    assert (wide.name, wide.weight, wide.orders, wide.filled) == ("wide", 2, 2, 1)
    assert wide.slippage == Estimate(1, 1.0, None, None)
    assert wide.profit == Estimate(1, 100.0, None, None)
    assert wide.profit_total == 100


def test_first_in_first_out_over_part_fills_and_several_entries() -> None:
    orders = [
        entry(1, 0, 100),
        entry(2, 1, 110, "wide"),
        an_exit(3, 2, 120, 15),  # all of the first, half of the second
        an_exit(4, 3, 130, 5),
        entry(5, 4, 100),
        an_exit(6, 5, 150, 4),  # the rest is still held
    ]
    usual, wide = report(TRIAL, trials(*orders))
    assert usual.profit_total == 200
    assert (usual.profit.count, usual.still_open) == (1, 1)
    assert wide.profit_total == 5 * 10 + 5 * 20


def test_another_client_s_or_product_s_exit_closes_nothing() -> None:
    for changes in ({"client": "other"}, {"product": Product.MARGIN}, {"ticker": "NSE:OTHER"}):
        usual, _ = report(TRIAL, trials(entry(1, 0, 100), an_exit(2, 1, 120, **changes)))
        assert (usual.still_open, usual.profit.count) == (1, 0)


def test_what_a_protective_leg_closed_counts_at_its_price() -> None:
    """By hand: 10 bought at 100; the stop sold 6 at 85 and the target 4 at 125: 6 x -15 + 4 x 25 = +10. Then 10 sold
    short at 100, and the stop bought them back at 115: -150. In all -140, one of two made money.
    """
    long, short = entry(1, 0, 100), entry(2, 5, 100, side=Side.SELL)
    legs = tuple(
        Adjusted(long.client, long.ticker, long.product, delta, NOW + timedelta(minutes=m), Decimal(price))
        for delta, m, price in ((-6, 1, 85), (-4, 2, 125), (10, 6, 115))
    )
    usual, _ = report(TRIAL, trials(long, short, adjusted=legs))
    assert (usual.unpriced, usual.still_open, usual.profit.count) == (0, 0, 2)
    assert usual.profit_total == -140
    assert usual.profit.value == -70.0
    assert usual.hit_rate.value == 0.5


def test_what_was_closed_at_a_price_nobody_told_is_counted_and_not_priced() -> None:
    first = entry(1, 0, 100)
    at = NOW + timedelta(minutes=1)
    by_leg = Adjusted(first.client, first.ticker, first.product, -10, at)
    later = (entry(2, 2, 100), an_exit(3, 3, 101))
    usual, _ = report(TRIAL, trials(first, *later, adjusted=(by_leg,)))
    assert (usual.unpriced, usual.still_open) == (1, 0)
    assert usual.hit_rate.count == 1
    assert usual.profit_total == 10


def test_what_an_operator_s_exit_took_over_is_closed_when_and_as_far_as_it_filled() -> None:
    """By hand: 10 of each of two bought at 100; 15 of the 20 sold at 120 after one had entered again: 10 x 20, and of
    the other 5 x 20, whose rest he sold himself at 90: 5 x -10. What another exit took over, it gave back.
    """
    anna, ben, again = (
        entry(1, 0, 100, client="anna"),
        entry(2, 1, 100, "wide", client="ben"),
        entry(3, 4, 100, client="anna"),
    )
    out = replace(an_exit(4, 5, 120, 20, client="admin"), status=Status.CANCELLED, filled_quantity=15)
    own = an_exit(5, 6, 90, 5, client="ben")
    handed = tuple(
        Adjusted(c, out.ticker, out.product, delta, NOW + timedelta(minutes=m), None, ident)
        for client, delta, m, ident in (
            ("anna", -10, 2, "of nothing"),
            ("anna", 10, 3, "of nothing"),
            ("anna", -10, 3, out.id),
            ("ben", -10, 3, out.id),
            ("ben", 5, 6, out.id),
        )
        for c, delta in ((client, delta), ("admin", -delta))
    )
    usual, wide = report(TRIAL, trials(anna, ben, again, out, own, adjusted=handed))
    assert [each.profit_total for each in (usual, wide)] == [200, 50]
    assert [(each.still_open, each.unpriced) for each in (usual, wide)] == [(1, 0), (0, 0)]


def test_too_few_values_have_no_interval() -> None:
    assert mean([]) == Estimate(0, None, None, None)
    assert mean([5.0]) == Estimate(1, 5.0, None, None)
    assert rate(0, 0) == Estimate(0, None, None, None)


def test_a_rate_s_interval_is_wilson_s() -> None:
    """By hand for 7 of 10: (0.7 + 0.192073) / 1.384146 -+ 1.96 x sqrt(0.021 + 0.009604) / 1.384146."""
    assert near(rate(7, 10), 10, 0.7, 0.3968, 0.8922)
    assert near(rate(0, 10), 10, 0.0, 0.0, 0.2775)
    assert near(rate(10, 10), 10, 1.0, 0.7225, 1.0)
