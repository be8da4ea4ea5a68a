"""Protective legs: the overlay on a position, and the child orders of BO and CO.

(D) distances are rupees from entry; ids like `25070400129405-BO-1` with `parentId` on the legs; an overlay
leg is removed by 0 or null. (A) all the rest, as no public source shows it: the overlay sits on the
position's row; leg 2 is the stop (type 4), leg 3 the target (type 1), both made at the fill; the parent's own
id ends in -1; one leg filled or exited cancels the other; cancelling a leg exits at the market; a triggered
overlay leaves a broker-made row.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.simulator.book import CANCELLED, PENDING, Order, OrderIntent, Position
from tests.simulator.money import ZERO, to_tick

if TYPE_CHECKING:
    from tests.simulator.exchange import Exchange


def after_fill(exchange: Exchange, order: Order, position: Position) -> None:
    """What a fill sets off: an overlay, child legs, or the end of the other leg."""
    intent = order.intent
    if order.parent_id is not None:
        if order.remaining == 0:
            _cancel_siblings(exchange, order)
    elif intent.product in ("BO", "CO"):
        if intent.stop_loss > 0:
            _make_children(exchange, order)
    elif (
        exchange.overlay_mode == "shown"
        and max(intent.stop_loss, intent.take_profit) > 0
        and position.net * intent.side > 0
    ):
        position.stop_loss, position.take_profit = intent.stop_loss, intent.take_profit
        position.leg_type = intent.leg_type


def _make_children(exchange: Exchange, order: Order) -> None:
    entry = order.value / order.filled
    for child in children(exchange, order.id):
        child.qty = order.filled
    if children(exchange, order.id):
        return
    intent = order.intent
    base = order.id.removesuffix("-1")
    common = replace(intent, side=-intent.side, qty=order.filled, stop_loss=ZERO, take_profit=ZERO, tag="")
    stop = _level(intent, entry, -intent.stop_loss)
    wanted = [(2, replace(common, kind=4, stop_price=stop, limit_price=stop))]
    if intent.product == "BO":
        target = _level(intent, entry, intent.take_profit)
        wanted.append((3, replace(common, kind=1, limit_price=target, stop_price=ZERO)))
    for number, leg in wanted:
        exchange.add(leg, f"{base}-{number}", parent=order.id).status = PENDING


def _level(intent: OrderIntent, entry: Decimal, distance: Decimal) -> Decimal:
    rupees = distance if intent.leg_type == 1 else entry * distance / 100
    return max(intent.instrument.tick, to_tick(entry + intent.side * rupees, intent.instrument.tick))


def children(exchange: Exchange, parent_id: str) -> list[Order]:
    """The legs of a BO or CO."""
    return [order for order in exchange.orders.values() if order.parent_id == parent_id]


def working_legs(exchange: Exchange, position_id: str) -> list[Order]:
    """The unfilled BO and CO legs that guard a position."""
    legs = [o for o in exchange.orders.values() if o.parent_id is not None and o.position_id == position_id]
    return [order for order in legs if order.remaining]


def _cancel_siblings(exchange: Exchange, leg: Order) -> None:
    assert leg.parent_id is not None
    for sibling in children(exchange, leg.parent_id):
        if sibling.remaining:
            sibling.status = CANCELLED


def exit_leg(exchange: Exchange, leg: Order) -> None:
    """Exit through a leg: it trades at the market and the other one goes."""
    quote = exchange.quotes.find(leg.intent.instrument.ticker)
    exchange.fill(leg.id, None, quote.touch(leg.intent.side) if quote else leg.limit_price or leg.stop_price)


def trigger(exchange: Exchange, position_id: str, price: Decimal | None, *, stop: bool) -> Order:
    """The stop (or target) leg of a position fills at its level, or at `price`. ValueError without such a leg."""
    exchange.advance()
    position = exchange.positions[position_id]
    for leg in working_legs(exchange, position_id):
        if (leg.kind == 4) == stop:
            exchange.fill(
                leg.id, None, price if price is not None else leg.stop_price if stop else leg.limit_price
            )
            return leg
    distance = -position.stop_loss if stop else position.take_profit
    if position.net == 0 or distance == 0:
        raise ValueError(f"expected a {'stop' if stop else 'target'} leg on {position_id}, was none")
    side = 1 if position.net > 0 else -1
    entry = OrderIntent(
        position.instrument, abs(position.net), 4, side, position.product, leg_type=position.leg_type
    )
    level = _level(entry, position.net_average, distance)
    leg_intent = replace(
        entry, side=-side, kind=4 if stop else 1, limit_price=level, stop_price=level if stop else ZERO
    )
    return exchange.trade_now(leg_intent, level if price is None else price, "API")
