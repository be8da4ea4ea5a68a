"""The paper exchange as a Broker: orders, books and positions in the database, prices from the model.

With `quotes` and `specs` given, real prices and the real symbol master take the model's place and only the fills
are simulated: no price is made up then. Resting orders and legs move on whenever somebody looks at the book or the positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.brokers.paper import engine, sql
from app.brokers.paper.book import Book, PaperPosition, day_of
from app.brokers.paper.master import find_spec
from app.brokers.paper.pricing import around, aware, ist_day, model_quote, settlement
from app.brokers.paper.rules import Listed, refusal
from app.domain.alert import Exchange
from app.domain.deadline import Deadline
from app.domain.order import Ticket
from app.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from app.errors import BrokerReadFailed, ServiceError
from app.service.records import BookOrder, Position, Quote, Trade

DEPTH = 5000
"""Contracts at the touch: above every index's freeze quantity, so that only large stock orders fill in parts."""

BeforeSend = Callable[[], NotSent | None]
QuoteSource = Callable[[Sequence[str], Deadline], dict[str, Quote]]
SpecSource = Callable[[str, datetime], Listed | None]
"""The option that is listed under a ticker at a moment. May raise a ServiceError."""
PriceOverride = Callable[[str, datetime], Decimal | None]
Found = TypeVar("Found")


class Clock(Protocol):
    def now(self) -> datetime: ...


class _StoppedError(Exception):
    """Rolls the transaction back; carries what the call answers."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


def _model_spec(ticker: str, now: datetime) -> Listed | None:
    return find_spec(ticker, ist_day(now))


class PaperBroker:
    """Implements service.ports.Broker. `account` separates paper accounts within one database.

    `ready` says why the given source of quotes could not be asked right now.
    """

    name = "paper"

    def __init__(
        self,
        database: sql.Database,
        clock: Clock,
        account: str,
        *,
        seed: int = 1,
        quotes: QuoteSource | None = None,
        specs: SpecSource = _model_spec,
        ready: Callable[[], str | None] = lambda: None,
        price_override: PriceOverride | None = None,
        depth: int = DEPTH,
    ) -> None:
        self.database, self.clock, self.account, self.depth = database, clock, account, depth
        self.seed, self.specs = seed, specs
        self._source, self._override, self._ready = quotes, price_override, ready

    @contextmanager
    def exchange(
        self,
        deadline: Deadline,
        connect_by: Deadline | None = None,  # noqa: ARG002 - it has no network
        *,
        once: bool = False,  # noqa: ARG002
    ) -> Iterator[PaperExchanger]:
        yield PaperExchanger(self, deadline)

    def ready(self) -> str | None:
        return self._ready()

    def quotes(self, tickers: Iterable[str], now: datetime, deadline: Deadline) -> dict[str, Quote]:
        """One Quote per ticker that has one; an override goes before model and source."""
        wanted = list(dict.fromkeys(tickers))
        if self._source is not None:
            found = self._source(wanted, deadline) if wanted else {}
        else:
            made = ((t, model_quote(self.seed, t, now)) for t in wanted)
            found = {t: q for t, q in made if q is not None}
        if self._override is None:
            return found
        for ticker in wanted:
            price = self._override(ticker, now)
            if price is not None:
                found[ticker] = around(ticker, price)
        return found

    def settle(self, position: PaperPosition) -> Decimal:
        """The last value of an expired contract by the model. A real quote ends with its contract, and no value
        is made up beside real ones: the position leaves at its average price, without gain or loss.
        """
        if self._source is not None:
            return position.average
        spec = find_spec(position.ticker, ist_day(aware(position.ends)))
        return Decimal(0) if spec is None else settlement(self.seed, spec)


class PaperExchanger:
    """One conversation. Quotes are read before a transaction begins, never within one."""

    def __init__(self, broker: PaperBroker, deadline: Deadline) -> None:
        self._broker, self._deadline = broker, deadline
        self._account, self._database = broker.account, broker.database

    def quotes(self, tickers: Sequence[str]) -> dict[str, Quote]:
        return self._broker.quotes(tickers, self._broker.clock.now(), self._deadline)

    def order_book(self) -> tuple[BookOrder, ...]:
        day = day_of(self._broker.clock.now())
        return tuple(o.row() for o in self._look(lambda c, _: sql.orders_of_day(c, self._account, day)))

    def trades(self) -> tuple[Trade, ...]:
        day = day_of(self._broker.clock.now())

        def show(connection: Connection, _: Book) -> tuple[Trade, ...]:
            orders = {o.id: o for o in sql.orders_of_day(connection, self._account, day)}
            fills = sorted(sql.trades_of_day(connection, self._account, day), key=lambda t: t.seq)
            return tuple(fill.row(orders[fill.order_id]) for fill in fills)

        return self._look(show)

    def market_open(self, exchange: Exchange) -> bool | None:  # noqa: ARG002 - the port's signature
        """It says nothing: the simulated exchange has no hours of its own."""
        return None

    def positions(self) -> tuple[Position, ...]:
        day = day_of(self._broker.clock.now())
        shown = self._look(lambda _, book: [p for p in book.positions.values() if p.net or p.day == day])
        open_now = sorted({p.ticker for p in shown if p.net})
        try:
            marks = self.quotes(open_now) if open_now else {}
        except ServiceError:
            marks = {}  # a price is for the profit only; the positions themselves are known
        return tuple(p.row(day, marks[p.ticker].ltp if p.ticker in marks else None) for p in shown)

    def place(self, ticket: Ticket, before_send: BeforeSend, *, reduces: bool = False) -> Outcome:  # noqa: ARG002 - the guard's
        now = self._broker.clock.now()
        try:
            spec = self._broker.specs(ticket.ticker, now)
        except ServiceError as error:
            return NotSent("paper_unavailable", f"the paper exchange could not look the contract up: {error}")
        why = refusal(ticket, spec, now)

        def take(_: Connection, book: Book, market: engine.Market) -> Outcome:
            if spec is None or why is not None:
                return Refused("-50", why or "The input symbol is invalid.")
            order = engine.place(book, ticket, spec, market)
            return Accepted(order.id, "Successfully placed order")

        return self._change(take, before_send, [ticket.ticker] if why is None else [])

    def cancel(self, broker_order_id: str) -> Outcome:
        def stop(connection: Connection, book: Book, market: engine.Market) -> Outcome:
            known = book.orders.get(broker_order_id) or sql.find_order(
                connection, self._account, broker_order_id
            )
            no = engine.cancel(book, known, market)
            return no or Accepted(broker_order_id, "Successfully cancelled order")

        return self._change(stop)

    def set_protection(
        self, position_id: str, stop_distance: Decimal, target_distance: Decimal, quantity: int | None = None
    ) -> Outcome:
        def protect(_: Connection, book: Book, __: engine.Market) -> Outcome:
            no = engine.protect(book, position_id, stop_distance, target_distance, quantity)
            return no or Accepted(position_id, "Successfully modified legs")

        return self._change(protect)

    def room_for_exit(self) -> NotSent | None:
        return None

    def close_position(self, position_id: str, before_send: BeforeSend) -> Outcome:
        def leave(_: Connection, book: Book, market: engine.Market) -> Outcome:
            order = engine.close(book, position_id, market)
            return order if isinstance(order, Refused) else Accepted(order.id, "The position is closed.")

        return self._change(leave, before_send)

    def _market(self, quotes: dict[str, Quote]) -> engine.Market:
        return engine.Market(quotes, self._broker.clock.now(), self._broker.depth)

    def _watched(self) -> dict[str, Quote]:
        """Quotes of everything whose price may change something, and of all that is open."""
        now = self._broker.clock.now()
        with self._database.read(self._deadline) as connection:
            book = sql.load_book(connection, self._account)
        wanted = book.watched(now) | {p.ticker for p in book.held(now)}
        return self._broker.quotes(sorted(wanted), now, self._deadline)

    def _look(self, show: Callable[[Connection, Book], Found]) -> Found:
        """Move the book on, then show it; it is only written when something has changed."""
        try:
            with self._database.read(self._deadline) as connection:
                book = sql.load_book(connection, self._account)
                shown = show(connection, book)
            now = self._broker.clock.now()
            quotes = self._broker.quotes(sorted(book.watched(now)), now, self._deadline)
            engine.advance(book, self._market(quotes), self._broker.settle)
            if not book.has_changed:
                return shown
            with self._database.write(self._deadline) as connection:
                book = sql.load_book(connection, self._account, lock=True)
                engine.advance(book, self._market(quotes), self._broker.settle)
                sql.save_book(connection, book)
                return show(connection, book)
        except BrokerReadFailed:
            raise
        except (SQLAlchemyError, ServiceError) as error:
            raise BrokerReadFailed(f"the paper exchange's database did not answer: {error}") from error

    def _change(
        self,
        work: Callable[[Connection, Book, engine.Market], Outcome],
        before_send: BeforeSend = lambda: None,
        tickers: Sequence[str] = (),
    ) -> Outcome:
        """One change in one transaction; the commit is the send, and `before_send` is asked right before it."""
        sent = False
        try:
            now = self._broker.clock.now()
            quotes = self._broker.quotes(tickers, now, self._deadline) if tickers else self._watched()
            with self._database.write(self._deadline) as connection:
                book = sql.load_book(connection, self._account, lock=True)
                market = self._market(quotes)
                engine.advance(book, market, self._broker.settle)
                outcome = work(connection, book, market)
                sql.save_book(connection, book)
                stopped = before_send()
                if stopped is not None:
                    raise _StoppedError(stopped)  # noqa: TRY301 - it is what rolls back
                sent = True
        except _StoppedError as stop:
            return stop.outcome
        except (SQLAlchemyError, ServiceError) as error:
            if sent:
                return Unknown(f"the commit was not confirmed: {error}")
            what = "quotes" if isinstance(error, BrokerReadFailed) else "database"
            return NotSent("paper_unavailable", f"the paper exchange's {what} did not answer: {error}")
        return outcome
