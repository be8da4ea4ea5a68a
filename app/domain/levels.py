"""Direction-aware stop-loss and take-profit.

The distance comes first, rounded down to the tick; the level follows from it. Fyers' `stopLoss` and `takeProfit`
are distances from entry (fyers-api.md 2.3): sending a level would set a stop so far away that it never triggers.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from app.domain.alert import Product
from app.domain.order import Side
from app.domain.risk import Denial


@dataclass(frozen=True, slots=True)
class Levels:
    """All in rupees. `reference` is the price the levels stand on: the LTP, later the fill price."""

    reference: Decimal
    stop_distance: Decimal
    stop_loss: Decimal
    target_distance: Decimal | None
    take_profit: Decimal | None


def distance(price: Decimal, percent: Decimal, tick: Decimal) -> Decimal:
    """`price` x `percent`/100, rounded down to a multiple of `tick`. A tick's exponent is the result's."""
    ticks = (price * percent / 100 / tick).to_integral_value(rounding=ROUND_DOWN)
    return (ticks * tick).quantize(tick)


def levels_at(
    reference: Decimal, side: Side, stop_distance: Decimal, target_distance: Decimal | None
) -> Levels:
    """The levels that distances mean at a reference price: BUY stop below and target above, SELL mirrored."""
    return Levels(
        reference=reference,
        stop_distance=stop_distance,
        stop_loss=reference - side.sign * stop_distance,
        target_distance=target_distance,
        take_profit=None if target_distance is None else reference + side.sign * target_distance,
    )


def levels_for(
    ltp: Decimal, side: Side, product: Product, tick: Decimal, sl_percent: Decimal, tp_percent: Decimal
) -> Levels | Denial:
    """Distances and levels from the last price, or the reason why none can be set.

    A CO takes a stop only. Refused when a distance is under one tick or a level would not be positive.
    """
    stop_distance = distance(ltp, sl_percent, tick)
    target_distance = None if product is Product.CO else distance(ltp, tp_percent, tick)
    for name, value, percent in (
        ("stop-loss", stop_distance, sl_percent),
        ("take-profit", target_distance, tp_percent),
    ):
        if value is not None and value < tick:
            return Denial(
                "distance_under_tick",
                f"the {name} distance is under one tick: {percent} % of {ltp} is less than {tick}",
            )
    levels = levels_at(ltp, side, stop_distance, target_distance)
    for name, level in (("stop-loss", levels.stop_loss), ("take-profit", levels.take_profit)):
        if level is not None and level <= 0:
            return Denial(
                "level_not_positive",
                f"the {name} level would be {level}, expected above zero (last price {ltp})",
            )
    return levels
