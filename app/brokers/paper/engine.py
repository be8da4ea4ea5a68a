"""Matching, pure: a book, a market and one order in; the changed book out. No clock, no database.

Facts imitated (fyers-api.md): a market order becomes a limit at the last price with a protection margin (5), so it
may rest; a rejection for want of money comes after the acknowledgement, as status 5 (2.2); stopLoss and takeProfit
are distances from the fill (2.3); order legs of BO and CO are rows with a parent id (2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from app.brokers.paper.book import Book, PaperOrder, PaperPosition, day_of, stamp
from app.brokers.paper.money import SHORT_MARGIN, available, needed_for
from app.brokers.paper.pricing import to_tick
from app.brokers.paper.rules import Listed, protected_price
from app.domain.alert import Product
from app.domain.order import OrderKind, Side, Ticket
from app.domain.outcome import Refused
from app.service.records import BookStatus, Quote

REFILL = timedelta(seconds=1)
"""After a partial fill the touch shows its depth again so much later."""


@dataclass(frozen=True, slots=True)
class Market:
    """What the matching sees: quotes by ticker, the moment, and how many contracts stand at the touch."""

    quotes: Mapping[str, Quote]
    now: datetime
    depth: int


def place(book: Book, ticket: Ticket, spec: Listed, market: Market) -> PaperOrder:
    """Take a validated order: it is rejected for want of money (status 5), filled, or rests."""
    seq = book.next_seq()
    order = PaperOrder(
        id=f"{day_of(market.now)}{seq:08d}",
        seq=seq,
        ticker=ticket.ticker,
        side=ticket.side,
        quantity=ticket.quantity,
        product=ticket.product.value,
        kind=ticket.kind,
        placed_at=stamp(market.now),
        ends=stamp(spec.session_end),
        margin_unit=spec.strike * SHORT_MARGIN,
        tick=spec.tick,
        tag=ticket.tag,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        stop_distance=ticket.stop_distance,
        target_distance=ticket.target_distance,
    )
    _protect_market_order(order, market.quotes.get(order.ticker))
    needed, free = needed_for(book, order), available(book)
    book.add(order)
    if needed > max(free, Decimal(0)):  # what only closes passes, however little money is left
        text = f"INR {needed - free:,.2f} Available:INR {free:,.2f} for C-{book.account} [PAPER_RISK]"
        book.end(order, BookStatus.REJECTED, f"RED:Margin Shortfall:{text}")
    else:
        match(book, order, market)
    return order


def _protect_market_order(order: PaperOrder, quote: Quote | None) -> None:
    if (
        order.kind is OrderKind.MARKET
        and not order.limit_price
        and quote is not None
        and quote.ltp is not None
    ):
        order.limit_price = protected_price(order.side, quote.ltp, order.tick)


def match(book: Book, order: PaperOrder, market: Market) -> None:
    """Fill what the touch allows. Without a quote nothing happens: no price is made up."""
    quote = market.quotes.get(order.ticker)
    if not order.is_working or quote is None or quote.ltp is None:
        return
    if order.kind is OrderKind.STOP_LIMIT and not order.triggered:
        if (quote.ltp - order.stop_price) * order.side.sign < 0:
            return
        order.triggered = True
        book.changed_orders.add(order.id)
        if order.parent_id:  # a stop leg gets out at the market, however far the price has jumped
            order.kind, order.limit_price = OrderKind.MARKET, Decimal(0)
    _protect_market_order(order, quote)
    touch = (quote.ask if order.side is Side.BUY else quote.bid) or quote.ltp
    if (order.limit_price - touch) * order.side.sign < 0:
        return
    if order.filled_at and market.now - datetime.fromisoformat(order.filled_at) < REFILL:
        return
    if (quantity := min(order.remaining, market.depth)) > 0:  # an empty touch trades nothing
        _fill(book, order, quantity, touch, market.now)


def _fill(book: Book, order: PaperOrder, quantity: int, price: Decimal, now: datetime) -> None:
    order.filled += quantity
    order.value += price * quantity
    order.filled_at = stamp(now)
    book.end(order, BookStatus.PENDING if order.remaining else BookStatus.FILLED)
    book.meta.cash -= order.side.sign * quantity * price
    book.add_trade(order, quantity, price, now)
    position = _add_to_position(book, order, quantity, price, now)
    if order.parent_id:
        _shrink_sibling(book, order, quantity)
    elif order.stop_distance is not None or order.target_distance is not None:
        if Product(order.product).takes_tag:
            _attach_overlay(order, position)
        else:
            _attach_children(book, order)
    if not position.net:
        position.drop_legs()


def _add_to_position(
    book: Book, order: PaperOrder, quantity: int, price: Decimal, now: datetime
) -> PaperPosition:
    key = order.position_id
    position = book.positions.get(key)
    if position is None:
        position = PaperPosition(
            key, order.ticker, order.product, order.ends, order.margin_unit, "", tick=order.tick
        )
        book.positions[key] = position
    signed = order.side.sign * quantity
    before, after = position.net, position.net + signed
    if position.day != day_of(now):
        position.realized = Decimal(0)
    if before * signed < 0:
        position.realized += min(abs(before), abs(signed)) * position.sign * (price - position.average)
    if before * signed >= 0:
        position.average = (position.average * abs(before) + price * quantity) / abs(after)
    elif before * after < 0:  # turned over: what is open now was opened at this price
        position.average = price
        position.drop_legs()
    position.net, position.day = after, day_of(now)
    book.changed_positions.add(key)
    return position


def _levels(order: PaperOrder) -> tuple[Decimal | None, Decimal | None]:
    entry, sign = order.value / order.filled, order.side.sign
    stop, target = order.stop_distance, order.target_distance
    return (
        None if stop is None else to_tick(entry - sign * stop, order.tick),
        None if target is None else to_tick(entry + sign * target, order.tick),
    )


def _attach_overlay(order: PaperOrder, position: PaperPosition) -> None:
    if position.sign == order.side.sign:
        position.stop, position.target = _levels(order)
        position.leg_quantity = None


def _attach_children(book: Book, order: PaperOrder) -> None:
    """The stop and target legs of a BO or CO, as large as what is filled of their parent."""
    stop, target = _levels(order)
    for number, level, kind in ((2, stop, OrderKind.STOP_LIMIT), (3, target, OrderKind.LIMIT)):
        if level is None:
            continue
        key = f"{order.id}-{order.product}-{number}"
        leg = book.orders.get(key) or book.add(_counter_order(book, order, key, 0, kind, order.placed_at))
        left_through = sum(o.filled for o in book.orders.values() if o.parent_id == order.id and o.id != key)
        leg.quantity, leg.parent_id = order.filled - left_through, order.id
        leg.status = BookStatus.PENDING if leg.remaining > 0 else leg.status
        leg.stop_price, leg.limit_price = (level, Decimal(0)) if number == 2 else (Decimal(0), level)  # noqa: PLR2004
        book.changed_orders.add(key)


def _shrink_sibling(book: Book, leg: PaperOrder, quantity: int) -> None:
    for other in book.working():
        if other.parent_id == leg.parent_id and other.id != leg.id:
            other.quantity -= quantity
            book.changed_orders.add(other.id)
            if other.remaining <= 0:
                book.end(other, BookStatus.CANCELLED, "its sibling leg was filled")


def _counter_order(
    book: Book, of: PaperOrder | PaperPosition, key: str, quantity: int, kind: OrderKind, placed_at: str
) -> PaperOrder:
    """An order that takes `quantity` off an order's or a position's side."""
    side = of.side.opposite if isinstance(of, PaperOrder) else Side.SELL if of.net > 0 else Side.BUY
    seq = book.next_seq()
    return PaperOrder(
        key, seq, of.ticker, side, quantity, of.product, kind, placed_at, of.ends, of.margin_unit, of.tick
    )


def _get_out(book: Book, position: PaperPosition, quantity: int, market: Market, why: str) -> PaperOrder:
    key = f"{day_of(market.now)}{book.meta.next_seq:08d}"
    order = _counter_order(book, position, key, quantity, OrderKind.MARKET, stamp(market.now))
    order.source, order.message = "LEG" if why else "API", why
    match(book, book.add(order), market)
    return order


def advance(book: Book, market: Market, settle: Callable[[PaperPosition], Decimal]) -> None:
    """Bring the book to `market.now`: expiries, day's end, resting orders, overlay legs."""
    today, moment = day_of(market.now), stamp(market.now)
    for order in book.working():
        if order.id[: len(today)] != today or order.ends <= moment:
            book.end(order, BookStatus.EXPIRED, "end of day")
    for position in book.positions.values():
        if position.net and position.ends <= moment:
            book.meta.cash += position.net * settle(position)
            position.net, position.day = 0, today
            position.drop_legs()
            book.changed_positions.add(position.id)
    for order in book.working():
        match(book, order, market)
    for position in list(book.positions.values()):
        _check_legs(book, position, market)


def _check_legs(book: Book, position: PaperPosition, market: Market) -> None:
    quote = market.quotes.get(position.ticker)
    if not position.net or quote is None or quote.ltp is None:
        return
    sign, stop, target = position.sign, position.stop, position.target
    if stop is not None and (quote.ltp - stop) * sign <= 0:
        why = f"stop leg at {stop}"
    elif target is not None and (quote.ltp - target) * sign >= 0:
        why = f"target leg at {target}"
    else:
        return
    leaving = sum(
        o.remaining for o in book.working() if o.position_id == position.id and o.side.sign == -sign
    )
    quantity = min(position.leg_quantity or abs(position.net), abs(position.net) - leaving)
    if quantity > 0:  # an exit already under way must not be doubled by the leg
        position.drop_legs()
        book.changed_positions.add(position.id)
        _get_out(book, position, quantity, market, why)


def cancel(book: Book, order: PaperOrder | None, market: Market) -> Refused | None:
    """Cancel a working order. A leg of a BO or CO is not cancelled but left through: at the market."""
    if order is None:
        return Refused("-51", "invalid order id")
    if not order.is_working:
        code = {BookStatus.FILLED: "-162", BookStatus.REJECTED: "-164"}.get(order.status, "-161")
        return Refused(code, f"order is not pending: status {order.status}")
    if order.parent_id is None:
        book.end(order, BookStatus.CANCELLED)
        return None
    order.kind, order.limit_price = OrderKind.MARKET, Decimal(0)
    book.changed_orders.add(order.id)
    match(book, order, market)
    return None


def protect(
    book: Book, position_id: str, stop: Decimal, target: Decimal, quantity: int | None
) -> Refused | None:
    """Set the overlay legs by their distances from the average price; zero removes a leg."""
    position = book.positions.get(position_id)
    if position is None:
        return Refused("-53", "invalid position id")
    if not position.net:
        return Refused("-352", "no open position")
    for name, distance in (("StopLoss", stop), ("TakeProfit", target)):
        if distance < 0 or distance % position.tick:
            return Refused("-50", f"{name} not a multiple of tick size {position.tick:.4f}")
    entry, sign = position.average, position.sign
    if entry - sign * stop <= 0 or entry + sign * target <= 0:
        return Refused("-50", "StopLoss or TakeProfit is further away than the price itself")
    position.stop = to_tick(entry - sign * stop, position.tick) if stop else None
    position.target = to_tick(entry + sign * target, position.tick) if target else None
    position.leg_quantity = quantity if stop or target else None
    book.changed_positions.add(position_id)
    return None


def close(book: Book, position_id: str, market: Market) -> PaperOrder | Refused:
    """Leave one whole position at the market; its BO and CO legs go first."""
    position = book.positions.get(position_id)
    if position is None or not position.net:
        return Refused("-352", "no position to exit")
    for order in book.working():
        if order.position_id == position_id and order.parent_id:
            book.end(order, BookStatus.CANCELLED, "position closed")
    return _get_out(book, position, abs(position.net), market, "")
