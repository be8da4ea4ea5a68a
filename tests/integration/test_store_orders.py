"""Orders, their events and what is held by them, on SQLite and on Postgres alike."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, select, update

from app.domain.alert import Action, Product
from app.domain.audit import Event
from app.domain.order import Purpose, Side
from app.domain.risk import TradingState
from app.domain.status import IllegalMoveError, Status
from app.errors import InvalidAlert
from app.service.records import (
    SENT_AGAIN_WITHIN,
    Arrival,
    Holding,
    Known,
    Moved,
    OrderFilter,
    Stake,
    Standing,
)
from app.store import tables
from app.store.sql import SqlStore
from app.store.sql_rows import FIRST_HASH, chained, event_from
from tests.fake_store import FakeStore
from tests.integration.audit_damage import drop_triggers
from tests.integration.store_rows import LIVE, NOON, SCOPE, TICKER, Clock, insert, order, said


def test_an_order_comes_back_exactly_as_it_went_in(store: SqlStore) -> None:
    insert(store, order())
    with store.read() as tx:
        found = tx.get_order(SCOPE, "A")
        assert tx.get_order(LIVE, "A") is None
    assert found == order()
    assert found is not None
    assert str(found.ltp) == "142.3500"  # the trailing zeros too: exact, not a float


def test_a_move_happens_once_and_only_if_the_table_has_it(store: SqlStore) -> None:
    insert(store, order())
    change = Moved(broker_order_id="8112", sent_at=NOON)
    with store.write() as tx:
        moved = tx.move(order(), Status.ACCEPTED, said(Event.ORDER_ACCEPTED, Status.ACCEPTED), change)
    assert moved is not None
    assert (moved.status, moved.broker_order_id, moved.reason) == (Status.ACCEPTED, "8112", None)
    with store.write() as tx:
        assert tx.move(order(), Status.REJECTED, said(Event.ORDER_REJECTED)) is None
        assert tx.move(replace(moved, attempt=2), Status.FILLED, said(Event.ORDER_FILLED)) is None
        with pytest.raises(IllegalMoveError):
            tx.move(moved, Status.NOT_SENT, said())
        assert tx.get_order(SCOPE, "A", lock=True) == moved
    assert [(e.event, e.sequence) for e in store.events(SCOPE, "A")] == [
        (Event.ORDER_SENDING, 1),
        (Event.ORDER_ACCEPTED, 2),
    ]
    assert store.events(LIVE, "A") == ()


def test_of_two_threads_moving_an_order_one_does(store: SqlStore) -> None:
    insert(store, order())

    def move(after: Status) -> bool:
        with store.write() as tx:
            return tx.move(order(), after, said(status=after)) is not None

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(move, (Status.ACCEPTED, Status.IN_DOUBT))) == [False, True]
    assert len(store.events(SCOPE, "A")) == 2


def test_a_restart_overwrites_a_not_sent_row_and_nothing_else(store: SqlStore) -> None:
    insert(store, order())
    again = order(attempt=2, fence="f2", ltp=Decimal("150.05"), created_at=NOON + timedelta(hours=1))
    with store.write() as tx:
        assert not tx.restart_order(again, said(), Status.NOT_SENT)
        assert tx.move(order(), Status.NOT_SENT, said(Event.ORDER_NOT_SENT), Moved(code="no_token"))
        assert tx.restart_order(again, said(), Status.NOT_SENT)
        assert not tx.restart_order(again, said(), Status.NOT_SENT)
    with store.read() as tx:
        assert tx.get_order(SCOPE, "A") == replace(again, created_at=NOON)
    assert [e.sequence for e in store.events(SCOPE, "A")] == [1, 2, 3]


def test_record_keeps_the_state_and_a_missing_row_is_an_error(store: SqlStore) -> None:
    insert(store, order())
    with store.write() as tx:
        row = tx.record(order(), said(Event.ORDER_SENT_LATE), Moved(filled_quantity=25))
        assert (row.status, row.filled_quantity) == (Status.SENDING, 25)
    with pytest.raises(LookupError), store.write() as tx:
        tx.record(order("Z"), said())


def test_an_event_tells_the_state_of_the_row_and_not_what_its_caller_had_read(store: SqlStore) -> None:
    insert(store, order())
    with store.write() as tx:
        tx.move(order(), Status.ACCEPTED, said(Event.ORDER_ACCEPTED, status=Status.ACCEPTED))
        tx.record(order(), said(Event.LEG_CANCELLED, status=Status.SENDING))
    assert store.events(SCOPE, "A")[-1].status is Status.ACCEPTED


def verify_chain(connection: Connection, order_id: str) -> bool:
    """Whether the order's events are all there and as they were written."""
    o, order_events = tables.orders.c, tables.order_events
    head = connection.execute(select(o.event_count, o.head_hash).where(o.id == order_id)).one_or_none()
    wanted = select(order_events).where(order_events.c.order_id == order_id).order_by(order_events.c.sequence)
    previous, count = FIRST_HASH, 0
    for count, row in enumerate(connection.execute(wanted), start=1):
        if row.sequence != count or row.prev_hash != previous:
            return False
        if chained(order_id, count, event_from(row), previous)["hash"] != row.hash:
            return False
        previous = row.hash
    return head is not None and (head.event_count, head.head_hash) == (count, previous)


def test_a_changed_or_cut_event_shows_in_the_chain(store: SqlStore) -> None:
    insert(store, order(), order("B"))
    with store.write() as tx:
        tx.record(order(), said(Event.ORDER_SENT_LATE))
        tx.record(order("B"), said(Event.ORDER_SENT_LATE))
    e = tables.order_events
    drop_triggers(store.database.engine)
    with store.database.write() as connection:
        assert verify_chain(connection, "A")
        assert verify_chain(connection, "B")
        connection.execute(
            update(e).where(e.c.order_id == "A", e.c.sequence == 1).values(detail={"why": "x"})
        )
        connection.execute(e.delete().where(e.c.order_id == "B", e.c.sequence == 2))
        assert not verify_chain(connection, "A")
        assert not verify_chain(connection, "B")


NONE: frozenset[Side] = frozenset()


def test_holdings_are_fills_by_side_and_adjustments(store: SqlStore) -> None:
    partly = order("B", status=Status.CANCELLED, filled_quantity=25)
    insert(
        store,
        order("A", status=Status.FILLED, filled_quantity=75),
        partly,
        order("C", status=Status.PARTIALLY_FILLED, side=Side.SELL, purpose=Purpose.EXIT, filled_quantity=50),
        order("D", status=Status.ACCEPTED),
        order("E", client="other", status=Status.FILLED, filled_quantity=75),
        order("F", scope=LIVE, status=Status.FILLED, filled_quantity=75),
        order("G", product=Product.MARGIN, status=Status.FILLED, filled_quantity=75),
    )
    with store.write() as tx:
        tx.adjust_holding(SCOPE, "trader", TICKER, Product.INTRADAY, -20, "the broker's net was lower")
        tx.adjust_holding(SCOPE, "trader", TICKER, Product.MARGIN, -75, "squared off")
    mine = Holding("trader", TICKER, Product.INTRADAY, 30)
    with store.read() as tx:
        assert tx.holdings(SCOPE, "trader") == (mine,)
        assert set(tx.holdings(SCOPE, None)) == {mine, Holding("other", TICKER, Product.INTRADAY, 75)}
        assert tx.holdings(LIVE, "nobody") == ()
        # A working entry's side counts, a working exit's does not, and nothing of another client or product does.
        assert tx.stake(SCOPE, "trader", TICKER, Product.INTRADAY) == Stake(30, frozenset({Side.BUY}), NONE)
        assert tx.stake(SCOPE, "trader", TICKER, Product.MARGIN) == Stake(0, NONE, NONE)
        assert tx.stake(SCOPE, "other", TICKER, Product.INTRADAY) == Stake(75, NONE, NONE)
        assert tx.stake(LIVE, "nobody", TICKER, Product.INTRADAY) == Stake(0, NONE, NONE)


@pytest.mark.parametrize("is_fake", [False, True])
def test_an_exit_since_is_one_that_would_close_the_entry(
    store: SqlStore, clock: Clock, *, is_fake: bool
) -> None:
    kept: SqlStore | FakeStore = FakeStore(clock, SCOPE) if is_fake else store
    entry, began = order("E"), clock.now()
    out = replace(
        entry,
        purpose=Purpose.EXIT,
        action=Action.EXIT,
        side=Side.SELL,
        status=Status.DENIED,
        created_at=began + timedelta(seconds=1),
    )
    no = (
        replace(out, created_at=began),
        replace(out, client="other"),
        replace(out, ticker="NSE:OTHER"),
        replace(out, product=Product.MARGIN),
        replace(out, action=Action.BUY, side=Side.BUY),
        replace(out, action=Action.SELL, status=Status.FILLED),
        replace(out, purpose=Purpose.ENTRY),
        replace(out, scope=LIVE),
    )
    yes = (
        replace(out, action=Action.SELL, created_at=began + timedelta(seconds=9)),
        replace(out, client="admin", created_at=began + timedelta(seconds=8)),
        replace(out, side=Side.BUY, created_at=began + timedelta(seconds=7)),
    )
    for number, one in enumerate((*no, *yes)):
        with kept.write() as tx:
            assert tx.exit_since(entry, began) == (None if number <= len(no) else f"{number - 1}")
            tx.insert_order(replace(one, id=f"{number}", tag=f"{number}"), said(Event.ORDER_DENIED))


def test_an_entry_that_was_not_sent_a_moment_ago_is_at_stake(store: SqlStore, clock: Clock) -> None:
    insert(
        store,
        order("A", status=Status.NOT_SENT),
        order("B", status=Status.NOT_SENT, client="other"),
        order("C", status=Status.NOT_SENT, product=Product.MARGIN, side=Side.SELL),
        order("D", status=Status.NOT_SENT, product=Product.CO, purpose=Purpose.EXIT),
    )

    def unsent(product: Product) -> frozenset[Side]:
        with store.read() as tx:
            return tx.stake(SCOPE, "trader", TICKER, product).unsent

    assert unsent(Product.INTRADAY) == {Side.BUY}
    assert unsent(Product.MARGIN) == {Side.SELL}
    assert unsent(Product.CO) == NONE
    clock.pass_(SENT_AGAIN_WITHIN.total_seconds() + 1)
    assert unsent(Product.INTRADAY) == NONE


def test_an_arrival_is_the_trading_state_and_what_the_key_has(store: SqlStore) -> None:
    mine, day = order("A"), timedelta(days=1)
    insert(store, mine)
    known = Known(mine, mine.key.body_hash)
    with store.write() as tx:
        assert tx.claim_key(SCOPE, mine.client, mine.key, "A", day)
        assert tx.arrival(SCOPE, mine.client, mine.key) == Arrival(TradingState.HALTED, known)
    store.ensure_scope(SCOPE)
    with store.read() as tx:
        assert tx.arrival(SCOPE, mine.client, mine.key) == Arrival(TradingState.ACTIVE, known)
        assert tx.arrival(SCOPE, "another", mine.key) == Arrival(TradingState.ACTIVE, None)
        assert tx.arrival(LIVE, mine.client, mine.key) == Arrival(TradingState.HALTED, None)


def test_how_an_order_stands_is_its_state_its_fence_and_the_trading_state(store: SqlStore) -> None:
    insert(store, order(fence="f1"))
    with store.read() as tx:
        assert tx.standing(SCOPE, "A") == Standing(
            Status.SENDING, "f1", TradingState.HALTED
        )  # no row: halted
        assert (tx.standing(LIVE, "A"), tx.standing(SCOPE, "B")) == (None, None)
    store.ensure_scope(SCOPE)
    with store.read() as tx:
        assert tx.standing(SCOPE, "A") == Standing(Status.SENDING, "f1", TradingState.ACTIVE)


def test_open_orders_and_orders_of_a_contract(store: SqlStore) -> None:
    states = list(Status)
    insert(
        store,
        *(order(s.value, status=s, created_at=NOON + timedelta(seconds=n)) for n, s in enumerate(states)),
    )
    insert(store, order("LATE", status=Status.EXPIRED, broker_order_id="9", client="other"))
    with store.read() as tx:
        opened = [o.id for o in tx.open_orders(SCOPE)]
        assert opened == [
            "EXIT_PENDING",
            "SENDING",
            "IN_DOUBT",
            "ACCEPTED",
            "NEEDS_REVIEW",
            "PARTIALLY_FILLED",
        ]
        assert tx.open_orders(SCOPE, "other") == ()
        reached = {o.id for o in tx.orders_in(SCOPE, TICKER, Product.INTRADAY)}
        assert {s.value for s in states} - reached == {"DENIED", "EXIT_PENDING", "NOT_SENT", "EXPIRED"}
        assert "LATE" in reached
        assert tx.orders_in(SCOPE, TICKER, Product.BO) == ()


def test_pages_follow_each_other_newest_first_without_gap_or_repeat(store: SqlStore) -> None:
    insert(store, *(order(f"O{n}", created_at=NOON + timedelta(seconds=n // 2)) for n in range(7)))
    insert(store, order("OTHER", client="other", ist_date=date(2026, 11, 20), status=Status.FILLED))
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(9):
        page = store.list_orders(SCOPE, OrderFilter(client="trader", limit=3, cursor=cursor))
        seen += [o.id for o in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"O{n}" for n in (6, 5, 4, 3, 2, 1, 0)]
    assert len(store.list_orders(SCOPE, OrderFilter(date_from=date(2026, 11, 21))).items) == 7
    assert [o.id for o in store.list_orders(SCOPE, OrderFilter(status=Status.FILLED)).items] == ["OTHER"]
    assert len(store.list_orders(SCOPE, OrderFilter(symbol="NIFTY", strategy="orb")).items) == 8
    assert store.list_orders(LIVE, OrderFilter()).items == ()
    with pytest.raises(InvalidAlert):
        store.list_orders(SCOPE, OrderFilter(cursor="broken"))


def test_a_nul_is_no_part_of_an_order_s_id_and_no_failure_of_the_database(store: SqlStore) -> None:
    cursor = base64.urlsafe_b64encode(b"2026-11-20T10:00:00+00:00 A\0B").decode()
    with pytest.raises(InvalidAlert):
        store.list_orders(SCOPE, OrderFilter(cursor=cursor))
    with store.write() as tx:
        assert tx.get_order(SCOPE, "A\0B", lock=True) is None
