"""Where the broker's book and our own rows do not know each other: late arrivals, a restored database, another id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from app.domain.alert import IST, Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.audit import Event
from app.domain.contract import Contract, ist_date
from app.domain.order import Order, Protection, Purpose, Side, is_keyed, order_id
from app.domain.risk import TradingState
from app.domain.status import WORKING, Status
from app.errors import NoMaster
from app.service.caps import caps_of
from app.service.desk import Desk, event_of
from app.service.doubts import unclaimed, verdict_was_wrong
from app.service.holding import MAYBE_LIVE, bare, book_row
from app.service.ports import Transaction
from app.service.records import BookOrder, BookStatus, Moved, Stranger
from app.service.settle import API, has_witness, is_ours

GIVEN_UP = (Status.NOT_PLACED, Status.REJECTED, Status.NOT_SENT, Status.EXPIRED)
ADOPTER = "reconcile"
LATEST = timedelta(seconds=130)
"""After its sender's time an order was seen to show up two minutes late, and not later."""
MISSED_AFTER = timedelta(minutes=1)
"""A book that shows what came that much after an accepted order, and not the order, does not only lag."""
UNKNOWN_CLIENT = "default"
"""Whose an adopted order is until its alert comes again: nearly every deployment has this one client."""


@dataclass(frozen=True, slots=True)
class Adopted:
    changed: list[Order]
    no_index: NoMaster | None
    """Why rows of ours were left for a later pass: an exit finds a holding by its contract, which only the index knows."""


def adopt(
    tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], read_from: datetime, first: bool
) -> Adopted:
    """Adopt what is ours; at a start also look for rows of the API that fit nothing of ours. `read_from`: the book is of
    that moment, or later.

    Each row is looked up now, after the book was read: a peer may just have placed it. By its id first, which takes one
    look for all; by its tag where the id is not recorded yet.
    """
    today = ist_date(read_from)
    _take_ids(tx, desk, book, today)  # rows, and then those whose counters move too
    _tell_missed(tx, desk, book, today)
    changed, no_index = _late_arrivals(tx, desk, book, read_from), None
    strange = []
    ours = [row for row in book if is_ours(row, desk.policy.tag_prefix)]
    known = tx.known_at_broker(desk.scope, [row.broker_order_id for row in ours])
    for row in ours:
        if row.broker_order_id not in known and tx.find_tag(desk.scope, row.tag or "") is None:
            try:
                changed.append(_restored(tx, desk, row, today))
            except NoMaster as error:
                no_index = error
                continue
            if not is_keyed(row.tag or ""):
                strange.append(row)  # its alert, sent again, could not be known by its key
    if first:
        strange += _without_orders(tx, desk, book, today)
    new = [row for row in strange if tx.add_stranger(desk.scope, _stranger(tx, row))]
    restored = [o for o in changed if o.code == "restored"]
    if restored or tx.strangers(desk.scope, acknowledged=False):
        _halt(tx, desk, len(restored), len(new))
    return Adopted(changed, no_index)


def _late_arrivals(
    tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], read_from: datetime
) -> list[Order]:
    changed: list[Order] = []
    for order in tx.orders_on(desk.scope, ist_date(read_from), GIVEN_UP):
        if order.updated_at is not None and order.updated_at > read_from:
            continue  # given up while this book was read: it may show an order that was refused since
        if order.status is Status.EXPIRED and order.broker_order_id is not None:
            continue  # ended by the exchange: the book is followed for it like for any other
        row = book_row(order, book) or _late_untagged(tx, desk, order, book)
        if row is None:
            continue
        if row.status != BookStatus.REJECTED or row.filled_quantity > order.filled_quantity:
            changed += verdict_was_wrong(tx, desk, order, row)
    return changed


def _take_ids(tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], today: date) -> None:
    """BO and CO go by the book's id from here on, where their answer had only a bare one: their legs, their trades and a
    cancel go by it.
    """
    if not any(bare(row.broker_order_id) != row.broker_order_id for row in book):
        return
    answered = [o for o in tx.orders_on(desk.scope, today) if o.broker_order_id and not o.product.takes_tag]
    for order in sorted(answered, key=lambda o: o.id):  # as all who take several rows
        row = book_row(order, book)
        if row is not None and row.broker_order_id != order.broker_order_id:
            ident = row.broker_order_id
            event = event_of(
                Event.ORDER_ACCEPTED, tx.now(), order.status, broker_order_id=ident, by="order book"
            )
            tx.record(order, event, Moved(broker_order_id=ident))


def _tell_missed(tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], today: date) -> None:
    """Once for each order that the broker has accepted, and whose id no row has: nothing of it is followed, and an exit
    would wait for it all day. It stays what it is: whoever cancels goes by its id.
    """
    missed = [
        o
        for o in tx.orders_on(desk.scope, today, WORKING)
        if o.broker_order_id and book_row(o, book) is None and has_witness(o, book, MISSED_AFTER)
    ]
    told = tx.events_of(desk.scope, [o.id for o in missed], [Event.ORDER_NEEDS_REVIEW]) if missed else {}
    for order in sorted(missed, key=lambda o: o.id):
        if any(e.status in WORKING for e in told.get(order.id, ())):
            continue
        reason = f"the broker accepted it as {order.broker_order_id}, and its book shows later orders and not this one"
        tx.record(order, event_of(Event.ORDER_NEEDS_REVIEW, tx.now(), order.status, reason=reason))
        desk.notifier.notify("needs_review", f"order {order.id} {order.ticker}: {reason}", page=True)


def _late_untagged(
    tx: Transaction, desk: Desk, order: Order, book: tuple[BookOrder, ...]
) -> BookOrder | None:
    """The one row that a BO or CO called absent can be. Later rows of the same shape are another program's."""
    if order.product.takes_tag or order.status is not Status.NOT_PLACED or order.answer_by is None:
        return None
    until = order.answer_by + LATEST
    rows = unclaimed(tx, desk, order, tuple(r for r in book if r.placed_at <= until))
    return rows[0] if rows is not None and len(rows) == 1 else None


def _restored(tx: Transaction, desk: Desk, row: BookOrder, today: date) -> Order:
    tag = (row.tag or "").upper()
    contract = desk.contracts.by_ticker(row.ticker, tx.now()) or _unknown(row, today)
    held = sum(h.net_quantity for h in tx.holdings(desk.scope, None) if h.ticker == row.ticker)
    reason = "the broker's book has it under our tag, and this database did not: restored from a backup?"
    key = AlertKey(KeyKind.DERIVED, f"adopted:{tag}", "")
    order = Order(
        id=order_id(desk.scope, key, desk.random_bytes),
        scope=desk.scope,
        client=UNKNOWN_CLIENT,
        strategy="",
        key=key,
        purpose=Purpose.EXIT if held * row.side.sign < 0 else Purpose.ENTRY,
        action=Action(row.side.value),
        exchange=contract.exchange,
        underlying=contract.underlying,
        expiry=contract.expiry,
        session_end=contract.session_end,
        strike=contract.strike,
        option_type=contract.option_type,
        ticker=row.ticker,
        lot=contract.lot,
        side=row.side,
        quantity=row.quantity,
        product=Product(row.product),
        status=Status.ACCEPTED,
        ist_date=today,
        tag=tag,
        code="restored",
        reason=reason,
        broker_order_id=row.broker_order_id,
        protection=Protection.REQUESTED if row.has_stop else Protection.NONE,
        sent_at=row.placed_at,
        created_at=row.placed_at,
        updated_at=tx.now(),
    )
    tx.insert_order(order, event_of(Event.ORDER_ADOPTED, tx.now(), order.status, reason=reason))
    if order.purpose is Purpose.ENTRY:
        lots = Decimal(order.quantity) / order.lot
        caps = caps_of(desk.policy.limits, row.placed_at, lots, order.quantity)
        tx.reserve_again(order.scope, order.id, caps)
    return order


def _unknown(row: BookOrder, today: date) -> Contract:
    """For a ticker that the index does not list any more: its name is all that an exit needs."""
    return Contract(
        exchange=Exchange.BSE if row.ticker.startswith("BSE:") else Exchange.NSE,
        underlying=row.ticker,
        expiry=today,
        session_end=datetime.combine(today, time(23, 59, 59), IST),
        strike=Decimal(1),
        option_type=OptionType.PE if row.ticker.endswith("PE") else OptionType.CE,
        ticker=row.ticker,
        lot=1,
        tick=Decimal("0.05"),
        freeze=None,
        underlying_ticker=None,
        is_stock=False,
        master_date=today,
    )


def _without_orders(tx: Transaction, desk: Desk, book: tuple[BookOrder, ...], today: date) -> list[BookOrder]:
    """Rows of the API that nothing of ours explains: no id, no tag, no leg of an order that asked for one."""
    known = tx.known_at_broker(desk.scope, [r.broker_order_id for r in book])
    ours = tx.orders_on(desk.scope, today)
    legs = {(o.ticker, o.product.value, o.side.opposite) for o in ours if o.protection is not Protection.NONE}
    # Of what was carried over from days before, too: its legs may have been put on again today.
    carried: dict[tuple[str, str, Side], int] = {}
    for held in tx.holdings(desk.scope, None, before=today):
        out = Side.SELL if held.net_quantity > 0 else Side.BUY
        place = (held.ticker, held.product.value, out)
        carried[place] = carried.get(place, 0) + abs(held.net_quantity)
    keyless = {
        (o.ticker, o.product.value, o.side, o.quantity)
        for o in ours
        if not o.product.takes_tag and o.broker_order_id is None and o.status in MAYBE_LIVE
    }
    return [
        row
        for row in book
        if row.source.upper() == API
        and row.parent_id is None
        and row.broker_order_id not in known
        and not is_ours(row, desk.policy.tag_prefix)
        and (row.ticker, row.product, row.side) not in legs
        and row.quantity > carried.get((row.ticker, row.product, row.side), 0)
        and (row.ticker, row.product, row.side, row.quantity) not in keyless
    ]


def _stranger(tx: Transaction, row: BookOrder) -> Stranger:
    return Stranger(
        broker_order_id=row.broker_order_id,
        ticker=row.ticker,
        side=row.side,
        quantity=row.quantity,
        product=row.product,
        tag=row.tag,
        placed_at=row.placed_at,
        seen_at=tx.now(),
    )


def _halt(tx: Transaction, desk: Desk, restored: int, strangers: int) -> None:
    """The broker knows orders that this database does not: nothing is sent until a person has looked."""
    if tx.trading_state(desk.scope) is TradingState.HALTED:
        return
    reason = (
        f"the broker's book has orders that were not ours: {restored} adopted by tag, {strangers} strangers"
    )
    tx.set_trading_state(desk.scope, TradingState.HALTED, ADOPTER, reason)
    desk.notifier.notify("unknown_orders", reason + "; look, then `flask resume`", page=True)
