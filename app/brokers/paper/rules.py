"""What the exchange takes and at which price: the refusals of fyers-api.md section 8.4, and market protection."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from app.brokers.paper.master import TICK
from app.brokers.paper.pricing import to_tick
from app.domain.alert import Product
from app.domain.order import OrderKind, Side, Ticket

CHEAP, MIDDLE = Decimal(10), Decimal(20)
CHEAP_MARGIN, MIDDLE_SHARE, USUAL_SHARE = Decimal("1.5"), Decimal("0.15"), Decimal("0.10")
TAG = re.compile(r"[A-Za-z0-9]{1,20}")


class Listed(Protocol):
    """What the exchange must know of a listed option: a model's Spec and a real Contract both say it."""

    @property
    def strike(self) -> Decimal: ...
    @property
    def session_end(self) -> datetime: ...
    @property
    def lot(self) -> int: ...
    @property
    def freeze(self) -> int | None: ...
    @property
    def tick(self) -> Decimal: ...


def refusal(ticket: Ticket, spec: Listed | None, now: datetime) -> str | None:
    """Why an order is not even taken (Fyers' code -50), or None."""
    if spec is None or spec.session_end <= now:
        return "The input symbol is invalid."
    if ticket.quantity % spec.lot:
        return "Quantity should be multiple of min lot size."
    if spec.freeze is not None and ticket.quantity > spec.freeze:
        return "Quantity exceeds the allowable freeze limit."
    if ticket.tag is not None and not TAG.fullmatch(ticket.tag):
        return "orderTag: alphanumeric characters only, 20 at most"
    return _price_refusal(ticket) or _tick_refusal(ticket, spec.tick) or _leg_refusal(ticket)


def _price_refusal(ticket: Ticket) -> str | None:
    if ticket.kind is OrderKind.MARKET:
        return "limitPrice does not match: 0" if ticket.limit_price else None
    if ticket.limit_price <= 0:
        return "limitPrice: Must be greater than or equal to 0.0025"
    if ticket.kind is OrderKind.STOP_LIMIT:
        if ticket.stop_price <= 0:
            return "stopPrice: Must be greater than or equal to 0.0025"
        if (ticket.limit_price - ticket.stop_price) * ticket.side.sign <= 0:
            return "stopPrice should be below limitPrice for a buy and above it for a sell"
    return None


def _tick_refusal(ticket: Ticket, tick: Decimal) -> str | None:
    prices = {
        "LimitPrice": ticket.limit_price,
        "StopPrice": ticket.stop_price,
        "StopLoss": ticket.stop_distance,
        "TakeProfit": ticket.target_distance,
    }
    wrong = (name for name, price in prices.items() if price is not None and price % tick)
    name = next(wrong, None)
    return None if name is None else f"{name} not a multiple of tick size {tick:.4f}"


def _leg_refusal(ticket: Ticket) -> str | None:
    if ticket.product in (Product.BO, Product.CO) and ticket.stop_distance is None:
        return f"StopLoss is needed for {ticket.product}"
    if ticket.product is Product.BO and ticket.target_distance is None:
        return "TakeProfit is needed for BO"
    if ticket.product is Product.CO and ticket.target_distance is not None:
        return "TakeProfit is not taken for CO"
    return None


def protected_price(side: Side, last: Decimal, tick: Decimal = TICK) -> Decimal:
    """The limit that Fyers puts in the place of a market order: last price +/- its margin, on the tick."""
    share = MIDDLE_SHARE if last <= MIDDLE else USUAL_SHARE
    margin = CHEAP_MARGIN if last <= CHEAP else last * share
    return to_tick(max(tick, last + side.sign * margin), tick)
