"""The paper exchange's memory: JSON documents in four tables of the service's database.

A change locks the account's meta row (Postgres; on SQLite the transaction itself is exclusive), so that two
processes never match the same order. The tables are defined here alone; the service's migrations build them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, Text, insert, select, text

from app.brokers.paper.book import Book, Meta, PaperOrder, PaperPosition, PaperTrade
from app.domain.deadline import Deadline

metadata = MetaData()
orders = Table(
    "paper_orders",
    metadata,
    Column("account", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("body", Text, nullable=False),
)
positions = Table(
    "paper_positions",
    metadata,
    Column("account", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("body", Text, nullable=False),
)
trades = Table(
    "paper_trades",
    metadata,
    Column("account", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("body", Text, nullable=False),
)
meta = Table(
    "paper_meta",
    metadata,
    Column("account", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("body", Text, nullable=False),
)
STATE = "state"

_ADD_META = text(
    "INSERT INTO paper_meta (account, key, body) VALUES (:account, :key, :body) ON CONFLICT DO NOTHING"
)
_PUT_META = text("UPDATE paper_meta SET body = :body WHERE account = :account AND key = :key")
_PUT_ORDER = text(
    "INSERT INTO paper_orders (account, id, seq, body) VALUES (:account, :id, :seq, :body) "
    "ON CONFLICT (account, id) DO UPDATE SET body = excluded.body"
)
_PUT_POSITION = text(
    "INSERT INTO paper_positions (account, id, body) VALUES (:account, :id, :body) "
    "ON CONFLICT (account, id) DO UPDATE SET body = excluded.body"
)


class Database(Protocol):
    """Transactions on the service's database: committed at the block's end, rolled back when it raises."""

    def write(self, deadline: Deadline | None) -> AbstractContextManager[Connection]: ...

    def read(self, deadline: Deadline | None) -> AbstractContextManager[Connection]: ...


def load_book(connection: Connection, account: str, *, lock: bool = False) -> Book:
    """The account's working orders, positions and money; a new account's when there is none yet."""
    found = select(meta.c.body).where(meta.c.account == account, meta.c.key == STATE)
    if lock:
        found = found.with_for_update()
    body = connection.execute(found).scalar_one_or_none()
    if body is None and lock:
        connection.execute(_ADD_META, {"account": account, "key": STATE, "body": Meta().dump()})
        body = connection.execute(found).scalar_one()
    book = Book(account, Meta() if body is None else Meta.load(body))
    if book.meta.working:
        wanted = select(orders.c.body).where(orders.c.account == account, orders.c.id.in_(book.meta.working))
        for row in connection.execute(wanted).scalars():
            order = PaperOrder.load(row)
            book.orders[order.id] = order
    for row in connection.execute(select(positions.c.body).where(positions.c.account == account)).scalars():
        position = PaperPosition.load(row)
        book.positions[position.id] = position
    return book


def save_book(connection: Connection, book: Book) -> None:
    """Write what has changed, in the transaction that `load_book` locked."""
    account = book.account
    book.meta.working = [o.id for o in book.working()]
    connection.execute(_PUT_META, {"account": account, "key": STATE, "body": book.meta.dump()})
    changed = [book.orders[key] for key in sorted(book.changed_orders)]
    if changed:
        rows = [{"account": account, "id": o.id, "seq": o.seq, "body": o.dump()} for o in changed]
        connection.execute(_PUT_ORDER, rows)
    moved = [book.positions[key] for key in sorted(book.changed_positions)]
    if moved:
        connection.execute(_PUT_POSITION, [{"account": account, "id": p.id, "body": p.dump()} for p in moved])
    if book.trades:
        connection.execute(
            insert(trades), [{"account": account, "id": t.id, "body": t.dump()} for t in book.trades]
        )


def find_order(connection: Connection, account: str, order_id: str) -> PaperOrder | None:
    wanted = select(orders.c.body).where(orders.c.account == account, orders.c.id == order_id)
    body = connection.execute(wanted).scalar_one_or_none()
    return None if body is None else PaperOrder.load(body)


def orders_of_day(connection: Connection, account: str, day: str) -> Sequence[PaperOrder]:
    """The orders whose ids begin with `day` (YYMMDD), oldest first."""
    wanted = (
        select(orders.c.body)
        .where(orders.c.account == account, orders.c.id >= day, orders.c.id < _after(day))
        .order_by(orders.c.seq)
    )
    return [PaperOrder.load(body) for body in connection.execute(wanted).scalars()]


def trades_of_day(connection: Connection, account: str, day: str) -> Sequence[PaperTrade]:
    wanted = select(trades.c.body).where(
        trades.c.account == account, trades.c.id >= day, trades.c.id < _after(day)
    )
    return sorted((PaperTrade.load(b) for b in connection.execute(wanted).scalars()), key=lambda t: t.at)


def _after(day: str) -> str:
    """Above every id of `day` whatever the database's collation is: it differs within the six digits."""
    return f"{int(day) + 1:06d}"
