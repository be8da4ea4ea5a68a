"""Builders for the paper exchange's tests, and a desk: a broker on a SQLite file with a price that a test sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.brokers.paper import engine
from app.brokers.paper.book import Book, Meta, PaperOrder, PaperPosition
from app.brokers.paper.broker import PaperBroker
from app.brokers.paper.engine import Market
from app.brokers.paper.master import Spec, find_spec
from app.brokers.paper.pricing import around
from app.brokers.paper.sql import metadata
from app.domain.alert import Product
from app.domain.deadline import Deadline
from app.domain.order import OrderKind, Side, Ticket
from app.domain.outcome import Outcome

NOON = datetime(2026, 11, 25, 6, 30, tzinfo=UTC)
TODAY = date(2026, 11, 25)
CALL = "NSE:NIFTY26DEC26000CE"
STOCK = "NSE:SBIN26DEC950CE"
LATE = Deadline(1e12)
HUNDRED = Decimal(100)


def ticket(side: Side = Side.BUY, quantity: int = 65, **changes: object) -> Ticket:
    base = Ticket(CALL, side, quantity, Product.INTRADAY, "ABCD1234")
    return replace(base, **changes)  # type: ignore[arg-type]


def limit(side: Side, price: str, quantity: int = 65) -> Ticket:
    return ticket(side, quantity, kind=OrderKind.LIMIT, limit_price=Decimal(price))


def bracket(**changes: object) -> Ticket:
    legs = {"stop_distance": Decimal(15), "target_distance": Decimal(25)}
    return ticket(**{"product": Product.BO, "tag": None, **legs, **changes})  # type: ignore[arg-type]


def spec() -> Spec:
    found = find_spec(CALL, TODAY)
    assert found is not None
    return found


def market(last: str | Decimal = HUNDRED, *, second: int = 0, depth: int = 5000) -> Market:
    """Bid and ask stand 0.15 beside a last price of 100."""
    return Market({CALL: around(CALL, Decimal(last))}, NOON + timedelta(seconds=second), depth)


def new_book() -> Book:
    return Book("paper", Meta())


def nothing(_: PaperPosition) -> Decimal:
    return Decimal(0)


def bought(order: Ticket | None = None, depth: int = 5000) -> tuple[Book, PaperOrder]:
    book = new_book()
    return book, engine.place(book, order or ticket(), spec(), market(depth=depth))


def position(book: Book, product: str = "INTRADAY") -> PaperPosition:
    return book.positions[f"{CALL}-{product}"]


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at


class SqliteFile:
    """BEGIN IMMEDIATE for writers, as the service's own database does it."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        event.listen(self.engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        metadata.create_all(self.engine)
        self.commit_fails = self.is_down = False

    @contextmanager
    def _begin(self, how: str) -> Iterator[Connection]:
        if self.is_down:
            raise OperationalError("BEGIN", {}, Exception("down"))
        with self.engine.connect() as connection:
            connection.exec_driver_sql(how)
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
            if self.commit_fails and how != "BEGIN":
                raise OperationalError("COMMIT", {}, Exception("lost the answer"))

    def write(self, deadline: Deadline | None) -> AbstractContextManager[Connection]:
        return self._begin("BEGIN IMMEDIATE")

    def read(self, deadline: Deadline | None) -> AbstractContextManager[Connection]:
        return self._begin("BEGIN")


class Desk:
    """A broker with a price that the test sets."""

    def __init__(self, path: Path, depth: int = 5000) -> None:
        self.database, self.clock = SqliteFile(path), Clock()
        self.price: Decimal | None = HUNDRED
        self.broker = PaperBroker(
            self.database, self.clock, "paper", price_override=lambda *_: self.price, depth=depth
        )

    def wait(self, seconds: int = 2) -> None:
        self.clock.at += timedelta(seconds=seconds)

    def place(self, order: Ticket) -> Outcome:
        with self.broker.exchange(LATE) as exchange:
            return exchange.place(order, lambda: None)
