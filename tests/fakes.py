"""Working stand-ins for the ports: tests look at the state they end in, not at the calls they got."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

from app.domain.alert import IST, Exchange, ExpiryRule, OptionType, Product
from app.domain.contract import Contract, Expiry, choose_expiry
from app.domain.deadline import Deadline
from app.domain.order import Side, Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.domain.risk import Denial
from app.errors import BrokerReadFailed, NoMaster
from app.service.records import (
    BookOrder,
    BookStatus,
    MasterAge,
    Position,
    Quote,
    Resolved,
    Trade,
)
from tests.builders import NOW
from tests.fake_store import FakeClock, FakeStore

__all__ = ["FakeBroker", "FakeClock", "FakeContracts", "FakeNotifier", "FakeStore"]

Step = Outcome | Exception
Overlay = tuple[Decimal, Decimal, int | None]
"""Stop and target distance, and how many contracts they cover; None: the whole position."""


class FakeBroker:
    """An exchange that fills at once. `next_*` queues what the next calls come to instead.

    `ledger` holds every order that reached it, a queued Unknown's too when `unknown_arrives`.
    """

    name = "fake"

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.ledger: list[Ticket] = []
        self.book: list[BookOrder] = []
        self.rows_made = 0
        self.fills_of_today: list[Trade] = []
        self.net: dict[tuple[str, str], int] = {}
        self.prices: dict[str, Quote] = {}
        self.protected: dict[str, Overlay] = {}
        self.legs_of: dict[str, Overlay] = {}
        """By order: what its first fill puts on the position."""
        self.next_place: list[Step] = []
        self.next_protection: list[Step] = []
        self.no_room: NotSent | None = None
        self.unknown_arrives = True
        self.fills = True
        self.unready: str | None = None
        self.profit: Decimal | None = None
        self.market: bool | None = None
        self.fail: set[str] = set()
        self.on: dict[str, Callable[[], object]] = {}
        self.calls: list[str] = []

    @contextmanager
    def exchange(
        self, deadline: Deadline, connect_by: Deadline | None = None, *, once: bool = False
    ) -> Iterator[FakeBroker]:
        yield self

    def ready(self) -> str | None:
        return self.unready

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        self._read("quotes")
        price = Decimal(100)
        usual = {t: Quote(t, price, price - 1, price + 1) for t in tickers}
        return {t: self.prices.get(t, q) for t, q in usual.items()}

    def order_book(self) -> tuple[BookOrder, ...]:
        self._read("order_book")
        return tuple(self.book)

    def trades(self) -> tuple[Trade, ...]:
        self._read("trades")
        return tuple(self.fills_of_today)

    def positions(self) -> tuple[Position, ...]:
        self._read("positions")
        return tuple(self._position(*key, net) for key, net in self.net.items())

    def market_open(self, exchange: Exchange) -> bool | None:
        self._read("market_open")
        return self.market

    def place(
        self, ticket: Ticket, before_send: Callable[[], NotSent | None], *, reduces: bool = False
    ) -> Outcome:
        step = self._step("place", self.next_place)
        if isinstance(step, NotSent):
            return step
        if (stopped := before_send()) is not None:
            return stopped
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Refused) or (isinstance(step, Unknown) and not self.unknown_arrives):
            return step
        ident = self.take(ticket)
        return step or Accepted(ident)

    def cancel(self, broker_order_id: str) -> Outcome:
        self.calls.append("cancel")
        for at, row in enumerate(self.book):
            if row.broker_order_id == broker_order_id and row.is_working:
                self.book[at] = replace(row, status=BookStatus.CANCELLED)
                return Accepted(broker_order_id)
        return Refused("-52", "not a pending order")

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        step = self._step("set_protection", self.next_protection)
        if isinstance(step, Exception):
            raise step
        if step is not None:
            return step
        self.protected.pop(position_id, None)
        if stop_distance or target_distance:
            self.protected[position_id] = (stop_distance, target_distance, quantity)
        return Accepted(position_id)

    def room_for_exit(self) -> NotSent | None:
        return self.no_room

    def close_position(self, position_id: str, before_send: Callable[[], NotSent | None]) -> Outcome:
        self.calls.append("close_position")
        if (stopped := before_send()) is not None:
            return stopped
        for (ticker, product), net in self.net.items():
            if f"{ticker}-{product}" == position_id and net:
                side = Side.SELL if net > 0 else Side.BUY
                return Accepted(self.take(Ticket(ticker, side, abs(net), Product(product), None)))
        return Refused("-352", "nothing to exit")

    def take(self, ticket: Ticket) -> str:
        """An order that is at the broker now."""
        self.ledger.append(ticket)
        ident = self._row(ticket.ticker, ticket.side, ticket.quantity, ticket.product.value, ticket.tag)
        if ticket.stop_distance:
            self.legs_of[ident] = (ticket.stop_distance, ticket.target_distance or Decimal(0), None)
        if self.fills:
            self.fill(ident)
        return ident

    def fill(self, ident: str, price: Decimal = Decimal(101)) -> None:
        """What remains of an order trades now."""
        self.fill_part(ident, sum(r.quantity for r in self.book if r.broker_order_id == ident), price)

    def fill_part(self, ident: str, quantity: int, price: Decimal = Decimal(101)) -> None:
        """So many contracts of an order trade now, or what remains of it where that is less; the rest goes on working."""
        for at, row in enumerate(self.book):
            traded = min(quantity, row.quantity - row.filled_quantity)
            if row.broker_order_id != ident or not traded:
                continue
            filled = row.filled_quantity + traded
            status = BookStatus.FILLED if filled == row.quantity else row.status
            self.book[at] = replace(row, filled_quantity=filled, status=status, traded_price=price)
            key, position_id = (row.ticker, row.product), f"{row.ticker}-{row.product}"
            self.net[key] = self.net.get(key, 0) + row.side.sign * traded
            if ident in self.legs_of and self.net[key] * row.side.sign > 0:
                self.protected[position_id] = self.legs_of[ident]
            elif not self.net[key]:
                self.protected.pop(position_id, None)
            now = self.clock.now().replace(microsecond=0)
            number = f"{ident}-{filled}"
            self.fills_of_today.append(Trade(number, ident, *key, row.side, traded, price, now, row.tag))

    def by_hand(self, ticker: str, quantity: int, product: str = "INTRADAY") -> str:
        """A trade in the broker's own app, no order of ours: a filled row without a tag. The order id."""
        side = Side.BUY if quantity > 0 else Side.SELL
        ident = self._row(ticker, side, abs(quantity), product, None, "W")
        self.fill(ident)
        return ident

    def trigger_stop(self, position_id: str, price: Decimal = Decimal(85)) -> str:
        """The overlay stop fills: for what it covers, by a row that the broker made, without tag or parent."""
        for (ticker, product), net in self.net.items():
            if f"{ticker}-{product}" == position_id and net:
                stop, _, covered = self.protected.pop(position_id)
                if not stop:
                    break
                side = Side.SELL if net > 0 else Side.BUY
                quantity = min(abs(net), covered or abs(net))
                ident = self._row(ticker, side, quantity, product, None)
                self.fill(ident, price)
                return ident
        raise ValueError(f"no stop on {position_id}")

    def _row(
        self, ticker: str, side: Side, quantity: int, product: str, tag: str | None, source: str = "API"
    ) -> str:
        self.rows_made += 1  # an id is never given twice, also when a test empties the book for a new day
        ident = f"{self.rows_made:014d}"
        now = self.clock.now()
        row = BookOrder(
            ident, ticker, side, quantity, 0, BookStatus.PENDING, product, tag, now, source=source
        )
        self.book.append(row)
        return ident

    def _position(self, ticker: str, product: str, net: int) -> Position:
        ident = f"{ticker}-{product}"
        legs = self.protected.get(ident) if net else None
        has_stop, has_target = bool(legs and legs[0]), bool(legs and legs[1])
        return Position(ident, ticker, product, net, None, has_stop, has_target, self.profit)

    def _read(self, what: str) -> None:
        self.calls.append(what)
        if what in self.on:
            self.on[what]()
        if what in self.fail:
            raise BrokerReadFailed(f"{what} timed out")

    def _step(self, what: str, queue: list[Step]) -> Step | None:
        self.calls.append(what)
        if what in self.on:
            self.on[what]()
        return queue.pop(0) if queue else None


class FakeContracts:
    """An index over a list of contracts. `missing` is what a start without a master looks like."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.contracts = list(contracts)
        self.missing = False

    def resolve(
        self,
        symbol: str,
        strike: Decimal,
        option_type: OptionType,
        expiry: ExpiryRule | date,
        exchange: Exchange | None,
        now: datetime,
    ) -> Resolved | Denial:
        if self.missing:
            raise NoMaster("no contract index yet")
        rows = [c for c in self.contracts if c.underlying == symbol and exchange in (None, c.exchange)]
        if not rows:
            return Denial("unknown_symbol", f"no options on {symbol}")
        choice = choose_expiry(expiry, list({Expiry(c.expiry, c.session_end) for c in rows}), now)
        if isinstance(choice, str):
            return Denial("unknown_expiry", choice)
        for row in rows:
            if (row.expiry, row.strike, row.option_type) == (choice.expiry.on, strike, option_type):
                return Resolved(row, choice.reason)
        return Denial("unknown_strike", f"no strike {strike}")

    def by_ticker(self, ticker: str, now: datetime) -> Contract | None:
        if self.missing:
            raise NoMaster("no contract index yet")
        return next((c for c in self.contracts if c.ticker == ticker and c.session_end > now), None)

    def age(self) -> MasterAge:
        today = NOW.astimezone(IST).date()
        return MasterAge(NOW, {"NSE_FO.csv": today, "BSE_FO.csv": today}, len(self.contracts), 0)


class FakeNotifier:
    def __init__(self) -> None:
        self.pages: list[str] = []
        self.notes: list[str] = []
        self.messages: list[str] = []

    def notify(self, code: str, message: str, *, page: bool = False) -> None:
        self.messages.append(message)
        (self.pages if page else self.notes).append(code)
