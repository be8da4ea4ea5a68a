"""What a broker's protective leg closed is worth what the leg was filled at: from the wire to an experiment's report."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import select

from app.domain.alert import Product
from app.store.tables import holding_adjustments
from tests.wire_desk import LOT, TICKER, WireDesk


def closings(desk: WireDesk) -> list[tuple[int, Decimal | None]]:
    a = holding_adjustments.c
    with desk.store.database.read() as connection:
        return [tuple(row) for row in connection.execute(select(a.delta, a.price).order_by(a.id))]


@pytest.mark.parametrize("product", [Product.INTRADAY, Product.BO])
def test_a_stop_that_filled_is_priced_by_its_own_fill(desk: WireDesk, product: Product) -> None:
    desk.bought(product=product)
    desk.pass_on(1)
    desk.sim.trigger_stop(f"{TICKER}-{product.value}", 83.25)
    desk.pass_on(1)
    assert closings(desk) == [(-LOT, Decimal("83.25"))]


def test_a_second_stop_of_the_day_has_its_own_price(desk: WireDesk) -> None:
    for price in (83.25, 81.1):
        desk.bought()
        desk.pass_on(1)
        desk.sim.trigger_stop(f"{TICKER}-INTRADAY", price)
        desk.pass_on(1)
    assert closings(desk) == [(-LOT, Decimal("83.25")), (-LOT, Decimal("81.1"))]


def test_parts_at_several_prices_make_one_average(desk: WireDesk) -> None:
    desk.bought(lots=1)
    desk.pass_on(1)
    part = LOT // 5
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY", part, 90)
    desk.sim.close_by_hand(f"{TICKER}-INTRADAY", LOT - part, 80)
    desk.pass_on(1)
    ((delta, price),) = closings(desk)
    assert delta == -LOT
    assert price == Decimal(part * 90 + (LOT - part) * 80) / LOT
