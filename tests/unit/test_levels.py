"""Levels: the distance first, down to the tick; then the level on the right side."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.alert import Product
from app.domain.levels import Levels, distance, levels_at, levels_for
from app.domain.order import Side
from app.domain.risk import Denial

TICK = Decimal("0.05")


def levels(ltp: str, side: Side = Side.BUY, product: Product = Product.INTRADAY) -> Levels | Denial:
    return levels_for(Decimal(ltp), side, product, TICK, Decimal(15), Decimal(25))


@pytest.mark.parametrize(
    ("ltp", "side", "stop", "target"),
    [
        ("100", Side.BUY, "85", "125"),
        ("100", Side.SELL, "115", "75"),
        ("100.05", Side.BUY, "85.05", "125.05"),  # 15.0075 -> 15.00, 25.0125 -> 25.00
        ("1.00", Side.BUY, "0.85", "1.25"),
        ("0.35", Side.SELL, "0.40", "0.30"),  # 0.0525 -> 0.05, 0.0875 -> 0.05
    ],
)
def test_levels_stand_on_the_right_sides(ltp: str, side: Side, stop: str, target: str) -> None:
    found = levels(ltp, side)
    assert isinstance(found, Levels)
    assert (found.stop_loss, found.take_profit) == (Decimal(stop), Decimal(target))


def test_a_distance_under_one_tick_is_refused() -> None:
    found = levels("0.30")  # 15 % is 0.045
    assert isinstance(found, Denial)
    assert found.code == "distance_under_tick"


def test_a_level_that_is_not_positive_is_refused() -> None:
    found = levels_for(Decimal(100), Side.SELL, Product.BO, TICK, Decimal(15), Decimal(100))
    assert isinstance(found, Denial)
    assert found.code == "level_not_positive"


def test_a_cover_order_has_a_stop_only() -> None:
    found = levels("100", product=Product.CO)
    assert isinstance(found, Levels)
    assert (found.stop_distance, found.target_distance, found.take_profit) == (Decimal(15), None, None)


def test_levels_follow_the_fill_price() -> None:
    moved = levels_at(Decimal("101.3"), Side.SELL, Decimal(15), Decimal(25))
    assert (moved.stop_loss, moved.take_profit) == (Decimal("116.3"), Decimal("76.3"))


@given(
    st.decimals("0.05", "20000", places=2),
    st.decimals("0.1", "99.9", places=1),
    st.sampled_from([Decimal("0.05"), Decimal("0.1"), Decimal(1)]),
)
def test_a_distance_is_the_largest_tick_multiple_within_the_percentage(
    price: Decimal, percent: Decimal, tick: Decimal
) -> None:
    found = distance(price, percent, tick)
    exact = price * percent / 100
    assert found % tick == 0
    assert found <= exact < found + tick
