"""What an order needs of the account's rupees, and how many are free."""

from __future__ import annotations

from decimal import Decimal

from app.brokers.paper.book import Book, PaperOrder
from app.domain.order import Side

SHORT_MARGIN = Decimal("0.15")
"""Share of strike x quantity that a short option blocks: near what SPAN and exposure come to for an index."""


def available(book: Book) -> Decimal:
    """Rupees that a new order may use: cash less short margins and what working orders may still need."""
    blocked = sum((p.margin_unit * -p.net for p in book.positions.values() if p.net < 0), Decimal(0))
    return book.meta.cash - blocked - sum((needed_for(book, o) for o in book.working()), Decimal(0))


def needed_for(book: Book, order: PaperOrder) -> Decimal:
    """What the part of an order that opens something costs; closing needs nothing."""
    position = book.positions.get(order.position_id)
    closing = max(0, -position.net * order.side.sign) if position else 0
    opening = 0 if order.parent_id else max(0, order.remaining - closing)
    return opening * (order.limit_price if order.side is Side.BUY else order.margin_unit)
