"""The store keeps its promises on SQLite and on Postgres alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, select, text, update

from app.domain.alert import Action, AlertKey, Exchange, KeyKind, OptionType, Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Mode, Order, Protection, Purpose, Scope, Side
from app.domain.risk import Denial, TradingState
from app.domain.status import IllegalMoveError, Status
from app.errors import InvalidAlert, StoreUnavailable
from app.service.records import AuditEvent, Cap, Holding, Moved, OrderFilter, Refusal
from app.store import migrate, tables
from app.store.engine import Database, WriterQueue
from app.store.sql import MAX_REFUSALS, SqlStore, connect
from app.store.sql_orders import verify_chain

NOON = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
SCOPE = Scope(Mode.PAPER, "PAPER")
LIVE = Scope(Mode.LIVE, "XY1")
TICKER = "NSE:NIFTY26NOV24500CE"


class Clock:
    """Stands still until told; `monotonic` goes with it, so that deadlines do too."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOON).total_seconds()

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[SqlStore]:
    made = SqlStore(Database(database_url, clock), clock, pause=clock.pass_)
    yield made
    made.close()


def key(digest: str = "d1", body: str = "b1") -> AlertKey:
    return AlertKey(KeyKind.EXPLICIT, digest, body)


def order(ident: str = "A", **changed: object) -> Order:
    made = Order(
        id=ident,
        scope=SCOPE,
        client="trader",
        strategy="orb",
        key=key(),
        purpose=Purpose.ENTRY,
        action=Action.BUY,
        exchange=Exchange.NSE,
        underlying="NIFTY",
        expiry=date(2026, 11, 24),
        session_end=datetime(2026, 11, 24, 10, 0, tzinfo=UTC),
        strike=Decimal("24500.00"),
        option_type=OptionType.CE,
        ticker=TICKER,
        lot=75,
        side=Side.BUY,
        quantity=75,
        product=Product.INTRADAY,
        status=Status.SENDING,
        ist_date=date(2026, 11, 23),
        tag=f"TAGS{ident}",
        ltp=Decimal("142.3500"),
        stop_distance=Decimal("21.35"),
        stop_loss=Decimal("121.00"),
        protection=Protection.REQUESTED,
        warnings=("unknown field x", "“curly”"),
        fence="f1",
        send_by=NOON + timedelta(seconds=1, microseconds=5),
        created_at=NOON,
        updated_at=NOON,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def said(kind: Event = Event.ORDER_SENDING, status: Status | None = Status.SENDING) -> AuditEvent:
    return AuditEvent(kind, NOON, status, {"why": "test"})


def insert(store: SqlStore, *orders: Order) -> None:
    with store.write() as tx:
        for one in orders:
            tx.insert_order(one, said(status=one.status))


def test_migrations_build_exactly_the_metadata(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert migrate.at_head(connection)
        script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
        assert script.get_heads() == [migrate.HEAD]
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))
        assert not migrate.at_head(connection)
    engine.dispose()


def test_upgrade_twice_changes_nothing_and_check_names_an_empty_database(
    database_url: str, store: SqlStore, clock: Clock, tmp_path: Path
) -> None:
    store.ensure_scope(SCOPE)
    migrate.upgrade(database_url)
    assert store.check() is None
    with store.read() as tx:
        assert tx.trading_state(SCOPE) is TradingState.ACTIVE
    empty = connect(f"sqlite:///{tmp_path / 'empty.db'}", clock)
    assert "migrate" in (empty.check() or "")
    empty.close()


def test_an_order_comes_back_exactly_as_it_went_in(store: SqlStore) -> None:
    insert(store, order())
    with store.read() as tx:
        found = tx.get_order(SCOPE, "A")
        assert tx.get_order(LIVE, "A") is None
    assert found == order()
    assert found is not None
    assert str(found.ltp) == "142.3500"  # the trailing zeros too: exact, not a float


def test_a_raising_block_leaves_nothing(store: SqlStore) -> None:
    def fail() -> None:
        with store.write() as tx:
            tx.insert_order(order(), said())
            raise KeyError("boom")

    with pytest.raises(KeyError):
        fail()
    with store.read() as tx:
        assert tx.get_order(SCOPE, "A") is None


def test_of_two_threads_claiming_a_key_one_gets_it(store: SqlStore) -> None:
    gate = threading.Barrier(2)

    def claim(ident: str) -> bool:
        gate.wait(5)
        with store.write() as tx:
            return tx.claim_key(SCOPE, "trader", key(), ident, timedelta(seconds=40))

    with ThreadPoolExecutor(2) as pool:
        for n in range(10):
            with store.write() as tx:
                tx.claim_key(SCOPE, "trader", key(f"other{n}"), "X", timedelta(seconds=1))
        assert sorted(pool.map(claim, ("A", "B"))) == [False, True]


def test_an_open_claim_makes_the_other_wait_and_lose(store: SqlStore) -> None:
    """The second claim is made while the first one's transaction is still open."""
    held, done = threading.Event(), threading.Event()

    def second() -> bool:
        held.wait(5)
        done.set()
        with store.write() as tx:
            return tx.claim_key(SCOPE, "trader", key(), "B", timedelta(seconds=40))

    with ThreadPoolExecutor(1) as pool:
        with store.write() as tx:
            assert tx.claim_key(SCOPE, "trader", key(), "A", timedelta(seconds=40))
            held.set()
            later = pool.submit(second)
            done.wait(5)
        assert later.result(5) is False


def test_a_key_is_found_until_it_expires_and_then_taken_over_once(store: SqlStore, clock: Clock) -> None:
    ttl = timedelta(seconds=40)
    with store.write() as tx:
        assert tx.claim_key(SCOPE, "trader", key(), "A", ttl)
        tx.insert_order(order(), said())
    with store.write() as tx:
        known = tx.find_key(SCOPE, "trader", key(body="another body"))
        assert known is not None
        assert (known.order.id, known.body_hash) == ("A", "b1")
        assert tx.find_key(LIVE, "trader", key()) is None
        assert tx.find_key(SCOPE, "somebody", key()) is None
    clock.pass_(39.999)
    with store.write() as tx:
        assert not tx.claim_key(SCOPE, "trader", key(), "B", ttl)
    clock.pass_(0.001)
    with store.write() as tx:
        assert tx.find_key(SCOPE, "trader", key()) is None
        assert tx.claim_key(SCOPE, "trader", key(), "B", ttl)
        assert not tx.claim_key(SCOPE, "trader", key(), "C", ttl)


def used(store: SqlStore, name: str) -> int:
    with store.database.read() as connection:
        found = connection.execute(select(tables.caps.c.used).where(tables.caps.c.name == name)).scalar()
        return found or 0


def test_caps_are_reserved_all_or_none_and_given_back_once(store: SqlStore) -> None:
    value = Cap("value", "2026-11-23", 1000, 600, returnable=True)
    count = Cap("orders", "2026-11-23", 5, 1, returnable=False)
    with store.write() as tx:
        assert tx.reserve(SCOPE, "A", [value, count]) is None
        assert tx.reserve(SCOPE, "A", [value, count]) is None  # the same order counts once
    assert (used(store, "value"), used(store, "orders")) == (600, 1)
    with store.write() as tx:
        denial = tx.reserve(SCOPE, "B", [count, value])
        tx.insert_order(order("B", status=Status.DENIED), said())  # the transaction goes on after a "no"
    assert isinstance(denial, Denial)
    assert (denial.code, "allowed would be 400" in denial.reason) == ("cap_value", True)
    assert (used(store, "value"), used(store, "orders")) == (600, 1)
    for _ in range(2):
        with store.write() as tx:
            tx.release(SCOPE, "A")
        assert (used(store, "value"), used(store, "orders")) == (0, 1)
    with store.write() as tx:
        assert tx.reserve(SCOPE, "A", [value, count]) is None  # its next attempt
        assert tx.reserve(LIVE, "L", [value, count]) is None  # another account's counter
    with store.database.read() as connection:
        rows = connection.execute(select(tables.caps.c.used).where(tables.caps.c.account == SCOPE.account))
        assert sorted(rows.scalars()) == [1, 600]


def test_a_cap_is_never_passed_by_many_at_once(store: SqlStore) -> None:
    def one(n: int) -> bool:
        with store.write() as tx:
            return tx.reserve(SCOPE, f"O{n}", [Cap("orders", "day", 5, 1, returnable=False)]) is None

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(12))) == 5
    assert used(store, "orders") == 5


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


def test_a_changed_or_cut_event_shows_in_the_chain(store: SqlStore) -> None:
    insert(store, order(), order("B"))
    with store.write() as tx:
        tx.record(order(), said(Event.ORDER_SENT_LATE))
        tx.record(order("B"), said(Event.ORDER_SENT_LATE))
    e = tables.order_events
    with store.database.write() as connection:
        assert verify_chain(connection, "A")
        assert verify_chain(connection, "B")
        connection.execute(
            update(e).where(e.c.order_id == "A", e.c.sequence == 1).values(detail={"why": "x"})
        )
        connection.execute(e.delete().where(e.c.order_id == "B", e.c.sequence == 2))
        assert not verify_chain(connection, "A")
        assert not verify_chain(connection, "B")


def test_a_lease_is_held_by_one_until_freed_or_expired(store: SqlStore, clock: Clock) -> None:
    def take(owner: str, wait_s: float) -> bool:
        return store.take_lock("exit", owner, timedelta(seconds=10), Deadline(clock.monotonic() + wait_s))

    assert take("one", 1)
    before = clock.monotonic()
    assert not take("two", 1)
    assert 0.9 < clock.monotonic() - before <= 1
    with store.write() as tx:
        assert tx.owns_lock("exit", "one")
        assert not tx.owns_lock("exit", "two")
        tx.free_lock("exit", "two")  # not its own: nothing happens
    assert not take("two", 1)
    with store.write() as tx:
        tx.free_lock("exit", "one")
    assert take("two", 1)
    clock.pass_(10)
    with store.write() as tx:
        assert not tx.owns_lock("exit", "two")
    assert take("three", 1)
    assert take("four", 30)  # the wait outlasts the lease


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


def test_only_the_newest_refusals_are_kept(store: SqlStore) -> None:
    def refusal(n: int) -> Refusal:
        return Refusal(
            NOON, "203.0.113.9", None, 400, "malformed_body", f"no {n}", "h", {"symbol": "X"}, f"r{n}"
        )

    rows = [
        {"mode": "paper", "account": "PAPER", **{f: getattr(refusal(n), f) for f in Refusal.__slots__}}
        for n in range(MAX_REFUSALS)
    ]
    with store.database.write() as connection:
        connection.execute(tables.refusals.insert(), rows)
    store.record_refusal(LIVE, refusal(-1))
    for n in (MAX_REFUSALS, MAX_REFUSALS + 1):
        store.record_refusal(SCOPE, refusal(n))
    kept = store.list_refusals(SCOPE, 5000)
    assert (len(kept), kept[0], kept[-1]) == (MAX_REFUSALS, refusal(MAX_REFUSALS + 1), refusal(2))
    assert store.list_refusals(LIVE, 10) == (refusal(-1),)


def test_trading_state_without_a_readable_row_is_halted(store: SqlStore) -> None:
    with store.read() as tx:
        assert tx.trading_state(SCOPE) is TradingState.HALTED
    store.ensure_scope(SCOPE)
    with store.database.write() as connection:
        connection.execute(update(tables.trading_state).values(state="REDUCING"))
    store.ensure_scope(SCOPE)  # a later start does not resume
    with store.read() as tx:
        assert tx.trading_state(SCOPE) is TradingState.REDUCING
    with store.database.write() as connection:
        connection.execute(update(tables.trading_state).values(state="nonsense"))
    with store.read() as tx:
        assert tx.trading_state(SCOPE) is TradingState.HALTED


def test_the_tag_prefix_is_made_once_and_a_configured_one_must_agree(store: SqlStore) -> None:
    made = store.tag_prefix(None)
    assert store.tag_prefix(None) == made
    assert store.tag_prefix(made) == made
    with pytest.raises(ValueError, match=made):
        store.tag_prefix("ZZZ1" if made != "ZZZ1" else "ZZZ2")
    with pytest.raises(ValueError, match="upper-case"):
        store.tag_prefix("abc")


def test_no_time_left_is_said_before_the_database_is_asked(store: SqlStore, clock: Clock) -> None:
    for block in (store.write, store.read):
        with pytest.raises(StoreUnavailable), block(Deadline(clock.monotonic())):
            pytest.fail("expected no transaction")


def test_a_driver_error_is_store_unavailable(store: SqlStore) -> None:
    insert(store, order())
    with pytest.raises(StoreUnavailable):
        insert(store, order())


def _in_turn(queue: WriterQueue, names: str, work: Callable[[str], None]) -> list[threading.Thread]:
    """Threads that queue one after the other, each known to wait before the next starts."""
    threads = []
    for n, name in enumerate(names, start=1):
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        while queue.waiting < n:
            thread.join(0.001)
        threads.append(thread)
    return threads


def test_sqlite_writers_go_first_in_first_out(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)
    went: list[str] = []

    def write(name: str) -> None:
        with store.write(Deadline(clock.monotonic() + 30)):
            went.append(name)

    with store.write():
        threads = _in_turn(store.database.writers, "abcde", write)
        with store.read() as tx:  # readers do not queue
            assert tx.open_orders(SCOPE) == ()
    for thread in threads:
        thread.join(5)
    assert went == list("abcde")
    store.close()


def test_a_queued_sqlite_writer_gives_up_at_its_deadline_and_the_queue_goes_on(
    sqlite_url: str, clock: Clock
) -> None:
    store = connect(sqlite_url, clock)
    with store.write():
        with pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.01)):
            pytest.fail("expected no transaction")
        assert store.database.writers.waiting == 0
    with store.write():
        pass
    store.close()


def test_a_foreign_process_holding_sqlite_is_waited_for_no_longer_than_the_deadline(
    sqlite_url: str, clock: Clock
) -> None:
    store, other = connect(sqlite_url, clock), connect(sqlite_url, clock)
    with other.write(), pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.02)):
        pytest.fail("expected no transaction")
    with store.database.read() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")
        ]
        assert pragmas == ["wal", 2]
    store.close()
    other.close()


def test_postgres_ends_a_wait_for_a_row_at_the_deadline(postgres_url: str, clock: Clock) -> None:
    store = connect(postgres_url, clock)
    insert(store, order())
    with store.write() as tx:
        tx.get_order(SCOPE, "A", lock=True)
        with pytest.raises(StoreUnavailable), store.write(Deadline(clock.monotonic() + 0.02)) as late:
            late.get_order(SCOPE, "A", lock=True)
    with pytest.raises(StoreUnavailable), store.read() as tx:
        tx.free_lock("a read transaction changes nothing", "x")
    store.close()


def test_postgres_goes_by_its_own_clock_and_wants_synchronous_commit(postgres_url: str, clock: Clock) -> None:
    store = SqlStore(Database(postgres_url, None), clock)
    with store.read() as tx:
        assert abs(tx.now() - datetime.now(UTC)) < timedelta(minutes=1)
        assert tx.now() == tx.now()
    store.close()
    unsafe = Database(postgres_url, None)

    @event.listens_for(unsafe.engine, "do_connect")
    def weaken(_d: object, _r: object, _a: object, options: dict[str, object]) -> None:
        options["options"] = "-c synchronous_commit=off"

    with pytest.raises(StoreUnavailable, match="synchronous_commit"), unsafe.read():
        pytest.fail("expected no transaction")
    unsafe.close()
