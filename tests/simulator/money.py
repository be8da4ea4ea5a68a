"""Prices are Decimal inside and JSON numbers on the wire."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

ZERO = Decimal(0)


def dec(value: float | str | Decimal) -> Decimal:
    """The decimal that a JSON number was written as (12.35 stays 12.35)."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def num(value: Decimal | int) -> int | float:
    """A JSON number: whole values without a fraction, the rest to four digits."""
    rounded = round(Decimal(value), 4)
    return int(rounded) if rounded == rounded.to_integral_value() else float(rounded)


def to_tick(value: Decimal, tick: Decimal) -> Decimal:
    """Rounded down to the tick."""
    return (value / tick).to_integral_value(ROUND_DOWN) * tick if tick > 0 else value
