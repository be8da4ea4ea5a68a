"""What is open, three ways: the two databases, the store in memory, and a count by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.alert import Product
from app.domain.order import Order, Purpose, Scope, Side
from app.domain.risk import Exposure
from app.domain.status import Status
from app.service.ports import Transaction
from app.store.engine import Database
from app.store.migrate import upgrade
from app.store.sql import SqlStore
from tests.fakes import FakeClock, FakeStore
from tests.integration.store_rows import LIVE, NOON, Clock, order, said

S = Status
LOTS = {"NSE:A": 75, "NSE:B": 20, "NSE:OVER": 75}
ENDED = "NSE:OVER"
"""Its session has ended: settled, whatever was held."""
RUNAWAY = timedelta(seconds=60)
NEW = order("NEW", ticker="NSE:A", strategy="s1", client="one")
WHOLE, PART, NONE = "whole", "part", "none"
FILLS = {
    S.DENIED: [NONE],
    S.EXIT_PENDING: [NONE],
    S.NOT_SENT: [NONE],
    S.REJECTED: [NONE],
    S.NOT_PLACED: [NONE],
    S.SENDING: [NONE],
    S.IN_DOUBT: [NONE],
    S.ACCEPTED: [NONE],
    S.NEEDS_REVIEW: [NONE, PART],
    S.PARTIALLY_FILLED: [PART],
    S.CANCELLED: [NONE, PART],
    S.EXPIRED: [NONE, PART],
    S.FILLED: [WHOLE],
}
MAY_STILL_FILL = {S.SENDING, S.IN_DOUBT, S.ACCEPTED, S.NEEDS_REVIEW, S.PARTIALLY_FILLED}


@dataclass(frozen=True)
class World:
    orders: tuple[Order, ...]
    adjusted: tuple[tuple[str, str, Product, int], ...]


@st.composite
def rows(draw: st.DrawFn, number: int) -> Order:
    ticker = draw(st.sampled_from(sorted(LOTS)))
    status = draw(st.sampled_from(sorted(FILLS)))
    how = draw(st.sampled_from(FILLS[status]))
    lot, lots = LOTS[ticker], draw(st.integers(1, 4))
    filled = {WHOLE: lot * lots, NONE: 0, PART: draw(st.integers(1, lot * lots - 1))}[how]
    purpose = Purpose.EXIT if status is S.EXIT_PENDING else draw(st.sampled_from(Purpose))
    price = st.decimals("0.05", 900, places=2)
    at = NOON - timedelta(seconds=draw(st.sampled_from([0, 1, 59, 60, 61, 3600])))
    return order(
        f"R{number}",
        scope=draw(st.sampled_from([NEW.scope, NEW.scope, NEW.scope, LIVE])),
        client=draw(st.sampled_from(["one", "two"])),
        strategy=draw(st.sampled_from(["s1", "s2"])),
        product=draw(st.sampled_from([Product.INTRADAY, Product.MARGIN])),
        ticker=ticker,
        lot=lot,
        session_end=NOON if ticker == ENDED else NOON + timedelta(hours=1),
        side=draw(st.sampled_from(Side)),
        purpose=purpose,
        status=status,
        quantity=lot * lots,
        filled_quantity=filled,
        fill_price=draw(price) if filled else None,
        ltp=draw(st.none() | price),
        created_at=at,
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    orders = tuple(draw(rows(n)) for n in range(draw(st.integers(0, 9))))
    filled = [o for o in orders if o.filled_quantity and o.scope == NEW.scope]
    adjusted = [  # what happened by hand is taken off where something of ours is held
        (o.client, o.ticker, o.product, -o.side.sign * draw(st.integers(1, o.filled_quantity)))
        for o in filled
        if draw(st.booleans())
    ]
    return World(orders, tuple(adjusted))


def by_hand(world: World) -> Exposure:
    """As the docstring of Exposure says it, with nothing of the code."""
    mine = [o for o in world.orders if o.scope == NEW.scope]
    lots = value = Decimal(0)
    for ticker in ("NSE:A", "NSE:B"):
        for product in Product:
            here = [o for o in mine if (o.ticker, o.product) == (ticker, product)]
            net = sum(o.filled_quantity if o.side is Side.BUY else -o.filled_quantity for o in here)
            net += sum(delta for _, t, p, delta in world.adjusted if (t, p) == (ticker, product))
            under_way = [o for o in here if o.status in MAY_STILL_FILL and o.purpose is Purpose.ENTRY]
            waiting = sum(o.quantity - o.filled_quantity for o in under_way)
            lots += Decimal(abs(net) + waiting) / LOTS[ticker]
            opened = [o for o in here if o.filled_quantity and o.side is (Side.BUY if net > 0 else Side.SELL)]
            if net and opened:
                paid = sum((o.filled_quantity * (o.fill_price or Decimal(0)) for o in opened), Decimal(0))
                value += abs(net) * paid / sum(o.filled_quantity for o in opened)
            for o in under_way:
                value += (o.quantity - o.filled_quantity) * (o.fill_price or o.ltp or Decimal(0))
    entries = [o for o in mine if o.client == "one" and o.purpose is Purpose.ENTRY]
    same = [
        o.created_at
        for o in entries
        if o.ticker == "NSE:A" and o.side is NEW.side and o.status not in (S.DENIED, S.NOT_SENT)
    ]
    tried = [
        o for o in entries if o.strategy == "s1" and (NOON - (o.created_at or NOON)).total_seconds() < 60
    ]
    return Exposure(lots, value, max((at for at in same if at), default=None), 1 + len(tried))


def same(found: Exposure, wanted: Exposure) -> bool:
    close = abs(found.open_value - wanted.open_value) <= Decimal("0.02")
    lots = abs(found.open_lots - wanted.open_lots) < Decimal("1e-9")
    return close and lots and (found.last_same, found.tried) == (wanted.last_same, wanted.tried)


def keep(tx: Transaction, world: World) -> None:
    for one in world.orders:
        tx.insert_order(one, said(status=one.status))
    for client, ticker, product, delta in world.adjusted:
        tx.adjust_holding(NEW.scope, client, ticker, product, delta, "by hand")


class UndoError(Exception):
    """Takes an example's rows back."""


def asked(store: SqlStore, world: World) -> Exposure:
    with contextlib.suppress(UndoError), store.write() as tx:
        keep(tx, world)
        found = tx.exposure(NEW, RUNAWAY)
        assert found.tried == tx.tried(NEW, RUNAWAY)
        raise UndoError
    return found


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path_factory.mktemp('exposure') / 'test.db'}"
    upgrade(url)
    clock = Clock()
    store = SqlStore(Database(url, clock), clock)
    yield store
    store.close()


def fake(world: World) -> Exposure:
    store = FakeStore(FakeClock(NOON), NEW.scope)
    with store.write() as tx:
        keep(tx, world)
        return tx.exposure(NEW, RUNAWAY)


@settings(max_examples=250)
@given(worlds())
def test_sqlite_and_the_store_in_memory_count_as_a_person_would(sqlite: SqlStore, world: World) -> None:
    wanted = by_hand(world)
    assert same(fake(world), wanted), (fake(world), wanted)
    found = asked(sqlite, world)
    assert same(found, wanted), (found, wanted)


def test_postgres_counts_as_a_person_would(postgres_url: str) -> None:
    clock = Clock()
    store = SqlStore(Database(postgres_url, clock), clock)

    @settings(max_examples=150)
    @given(worlds())
    def run(world: World) -> None:
        found, wanted = asked(store, world), by_hand(world)
        assert same(found, wanted), (found, wanted)

    try:
        run()
    finally:
        store.close()


def test_the_order_itself_is_not_counted_twice(sqlite: SqlStore) -> None:
    """A second attempt asks while its own row of the first stands."""
    world = World((replace(NEW, status=S.IN_DOUBT),), ())
    for found in (asked(sqlite, world), fake(world)):
        assert found == Exposure(Decimal(0), Decimal("0.00"), None, 1)


def test_another_account_is_another_world(sqlite: SqlStore) -> None:
    elsewhere = replace(
        NEW, id="X", tag="X", scope=Scope(LIVE.mode, "OTHER"), status=S.FILLED, filled_quantity=75
    )
    assert asked(sqlite, World((elsewhere,), ())) == Exposure(Decimal(0), Decimal("0.00"), None, 1)
