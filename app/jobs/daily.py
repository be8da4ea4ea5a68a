"""Jobs that tell a person things: the morning's token and overnight positions, the day's summary, missing heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Order, Protection
from app.errors import ServiceError
from app.service.desk import Desk, event_of
from app.service.figures import entries_held
from app.service.holding import net_of, stop_shown
from app.service.loss import day_result
from app.service.records import Holding, Moved, Position
from app.service.summary import DOUBTFUL, summary
from app.web.ports import Ports

READ_WITHIN_S = 5.0


def send(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Send what the outbox holds."""
    return "there is no outbox" if ports.beside is None else ports.beside.send()


def alert_watch(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Heartbeats that are missing, and strategies that fire so often that TradingView would stop them."""
    if ports.beside is None:
        return "nothing is watched"
    now, beats = ports.clock.now(), ports.beside.heartbeats
    missing = ports.beside.missing(beats, now, ports.notifier)
    bursts = ports.beside.bursts(beats, now, ports.notifier)
    return f"{missing} heartbeats newly missing, {bursts} new bursts"


def token_note(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Remind of the day's login at the broker."""
    return _token(ports, page=False)


def token_page(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Page when the day's login at the broker has not been made."""
    return _token(ports, page=True)


def _token(ports: Ports, *, page: bool) -> str:
    if not ports.settings.has_real_market:
        return "the paper exchange needs no login"
    if ports.tokens.current(ports.clock.now()) is not None:
        return "logged in"
    text = "there is no valid Fyers token: log in, or every entry is refused today"
    ports.notifier.notify("token_missing", text, page=page)
    return "no token"


def day_summary(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """The day in a few lines: orders, fills, result, doubts."""
    desk, today = ports.desk(), ist_date(ports.clock.now())
    try:
        positions = _positions(desk)
    except ServiceError:
        positions = None
    with ports.store.read() as tx:
        orders = tx.orders_on(ports.scope, today)
        result = None if positions is None else day_result(tx, desk, positions, today)
        doubts = sum(o.status in DOUBTFUL for o in tx.open_orders(ports.scope))
        strangers = len(tx.strangers(ports.scope, acknowledged=False))
    text = summary(today, orders, result, doubts, strangers)
    ports.notifier.notify("daily_summary", text)
    return text.replace("\n", "; ")


def overnight(ports: Ports, _lease: tuple[str, str] | None) -> str:
    """Positions carried overnight: is a stop at the broker?"""
    desk, now = ports.desk(), ports.clock.now()
    today = ist_date(now)
    with ports.store.read() as tx:
        holdings = tx.holdings(ports.scope, None, before=today)
        carried = sorted({(h.ticker, h.product) for h in holdings})
        orders = {place: tx.orders_in(ports.scope, *place) for place in carried}
        held = tx.holdings(ports.scope, None)
    if not carried:
        return "nothing was carried overnight"
    try:
        with desk.broker.exchange(Deadline(ports.clock.monotonic() + READ_WITHIN_S)) as exchange:
            book, positions = exchange.order_book(), exchange.positions()
    except ServiceError as error:
        names = ", ".join(ticker for ticker, _ in carried)
        text = f"{names}: carried overnight, and the broker does not say whether they are protected: {error.detail}"
        ports.notifier.notify("overnight_unknown", text, page=True)
        raise
    naked: list[str] = []
    shown: dict[tuple[str, Product], bool] = {}
    for place in carried:
        position = net_of(positions, *place)
        if position is None or position.net_quantity == 0:
            continue  # the reconciler lowers what the broker no longer has
        shown[place] = stop_shown(position, orders[place], book)
        if not shown[place]:
            naked.append(f"{place[0]} {place[1]} {position.net_quantity}")
    if naked:
        text = f"carried overnight without a stop at the broker: {', '.join(naked)}"
        ports.notifier.notify("overnight_unprotected", text, page=True)
    if changed := _disproved(held, orders, shown, today):
        with ports.store.write() as tx:
            for order, mark in changed:
                event = Event.PROTECTION_SEEN if mark is Protection.SEEN else Event.PROTECTION_MISSING
                tx.record(order, event_of(event, tx.now(), order.status), Moved(protection=mark))
    return text if naked else f"{len(carried)} carried overnight, each with a stop or closed"


def _disproved(
    held: Iterable[Holding],
    orders: Mapping[tuple[str, Product], Sequence[Order]],
    shown: Mapping[tuple[str, Product], bool],
    today: date,
) -> list[tuple[Order, Protection]]:
    """Carried entries that are marked otherwise than the broker shows, each with its new mark, by id as all who take
    several rows. The watch of the passes looks at the day's own entries alone: without this a mark of yesterday would
    stand until the position is gone, whatever became of its stop.
    """
    found = []
    for holding in held:
        place = holding.ticker, holding.product
        if place not in shown:
            continue
        mark = Protection.SEEN if shown[place] else Protection.MISSING
        entries = [o for o in entries_held(holding, orders[place]) if o.ist_date < today]
        found += [(o, mark) for o in entries if o.protection not in (Protection.NONE, mark)]
    return sorted(found, key=lambda pair: pair[0].id)


def _positions(desk: Desk) -> tuple[Position, ...]:
    with desk.broker.exchange(Deadline(desk.clock.monotonic() + READ_WITHIN_S)) as exchange:
        return tuple(exchange.positions())
