"""Trading state, evidence, strangers, passes and caps by part: the fake and both databases keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from sqlalchemy import func, select, text

from app.domain.alert import Product
from app.domain.audit import Event
from app.domain.deadline import Deadline
from app.domain.order import Protection, Scope, Side
from app.domain.risk import TradingState
from app.domain.status import Status
from app.errors import StoreUnavailable
from app.service.ports import Store
from app.service.records import Cap, Evidence, Holding, Moved, StateChange, Stranger
from app.store import tables
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.fake_store import FakeStore
from tests.integration.store_rows import LIVE, NOON, SCOPE, TICKER, Clock, key, order, said

DAY = date(2026, 11, 23)


@pytest.fixture(params=["fake", "sqlite_url", pytest.param("postgres_url", marks=pytest.mark.slow)])
def any_store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Store]:
    if request.param == "fake":
        yield FakeStore(clock, SCOPE)
        return
    made = SqlStore(Database(request.getfixturevalue(request.param), clock), clock, pause=clock.pass_)
    made.ensure_scope(SCOPE)
    yield made
    made.close()


def used(store: Store, name: str) -> int:
    """A cap's counter, which must always be the sum of what its reservations still count."""
    if isinstance(store, FakeStore):
        rows = [r for of in store.data.reserved.values() for r in of if r.cap.name == name]
        total = sum(n for (_, cap, _), n in store.data.caps.items() if cap == name)
        assert total == sum(r.cap.amount - r.returned for r in rows)
        return total
    assert isinstance(store, SqlStore)
    r = tables.cap_reservations.c
    with store.database.read() as connection:
        c = tables.caps.c
        counter = connection.execute(select(func.sum(c.used)).where(c.name == name)).scalar()
        counted = connection.execute(select(func.sum(r.amount - r.returned)).where(r.name == name)).scalar()
    assert int(counter or 0) == int(counted or 0)
    return int(counter or 0)


def test_the_state_is_set_once_and_every_change_is_kept(any_store: Store, clock: Clock) -> None:
    first = StateChange(TradingState.ACTIVE, "service", "first start", NOON)
    with any_store.read() as tx:
        assert (tx.state_change(SCOPE), tx.state_history(SCOPE, 9)) == (first, (first,))
        nobody = tx.state_change(LIVE)
        assert (nobody.state, tx.state_history(LIVE, 9)) == (TradingState.HALTED, ())
    clock.pass_(5)
    halted = StateChange(TradingState.HALTED, "ann", "flood", clock.now())
    with any_store.write() as tx:
        assert tx.set_trading_state(SCOPE, TradingState.HALTED, "ann", "flood")
        assert not tx.set_trading_state(SCOPE, TradingState.HALTED, "bob", "me too")
    any_store.ensure_scope(SCOPE)  # a later start does not resume
    with any_store.read() as tx:
        assert (tx.state_change(SCOPE), tx.trading_state(SCOPE)) == (halted, TradingState.HALTED)
        assert tx.state_history(SCOPE, 9) == (halted, first)
        assert tx.state_history(SCOPE, 1) == (halted,)
    with suppress(KeyError), any_store.write() as tx:
        tx.set_trading_state(SCOPE, TradingState.ACTIVE, "ann", "over")
        raise KeyError
    with any_store.read() as tx:
        assert tx.state_history(SCOPE, 9) == (halted, first)


def test_only_active_is_reduced_and_what_a_person_has_set_stays(any_store: Store) -> None:
    with any_store.write() as tx:
        assert tx.reduce(SCOPE, "runaway", "fires without end")
        assert not tx.reduce(SCOPE, "loss", "too much")
        assert tx.trading_state(SCOPE) is TradingState.REDUCING
        tx.set_trading_state(SCOPE, TradingState.HALTED, "ann", "flood")
        assert not tx.reduce(SCOPE, "runaway", "fires without end")
        assert not tx.reduce(LIVE, "runaway", "nothing has been set there, and so it is halted")
    with any_store.read() as tx:
        assert (tx.trading_state(SCOPE), tx.trading_state(LIVE)) == (TradingState.HALTED, TradingState.HALTED)
        assert [c.by for c in tx.state_history(SCOPE, 9)] == ["ann", "runaway", "service"]


def test_a_person_who_halts_meanwhile_is_not_overruled(postgres_url: str, clock: Clock) -> None:
    """The transaction that trips has seen ACTIVE; the halt is committed before it writes."""
    with closing(SqlStore(Database(postgres_url, clock), clock)) as made:
        made.ensure_scope(SCOPE)
        with made.write() as tx:
            assert tx.trading_state(SCOPE) is TradingState.ACTIVE
            with ThreadPoolExecutor(1) as other:
                other.submit(halted, made).result(5)
            assert not tx.reduce(SCOPE, "runaway", "fires without end")
        with made.read() as tx:
            assert tx.trading_state(SCOPE) is TradingState.HALTED


def halted(store: SqlStore) -> None:
    with store.write() as tx:
        tx.set_trading_state(SCOPE, TradingState.HALTED, "ann", "flood")


@pytest.mark.parametrize(
    "change", ["UPDATE trading_state_history SET reason = ''", "DELETE FROM trading_state_history"]
)
def test_the_database_refuses_to_rewrite_the_history(store: SqlStore, change: str) -> None:
    store.ensure_scope(SCOPE)
    with pytest.raises(StoreUnavailable), store.database.write() as connection:
        connection.execute(text(change))
    with store.read() as tx:
        assert [c.reason for c in tx.state_history(SCOPE, 9)] == ["first start"]


VALUE = Cap("value", "2026-11-23", 1000, 500, returnable=True)
COUNT = Cap("orders", "2026-11-23", 5, 1, returnable=False)


def test_the_unfilled_part_is_given_back_rounded_down_and_once(any_store: Store) -> None:
    with any_store.write() as tx:
        assert tx.reserve(SCOPE, "A", [VALUE, COUNT]) is None
    for part in (Fraction(1, 3), Fraction(1, 1)):
        with any_store.write() as tx:
            tx.release(SCOPE, "A", unfilled=part)
        assert (used(any_store, "value"), used(any_store, "orders")) == (500 - 166, 1)


def test_an_adopted_order_counts_again_above_the_limit_and_can_be_given_back_again(any_store: Store) -> None:
    with any_store.write() as tx:
        tx.reserve(SCOPE, "A", [VALUE, COUNT])
        tx.release(SCOPE, "A")
        assert tx.reserve(SCOPE, "B", [replace(VALUE, amount=900)]) is None
    for _ in range(2):
        with any_store.write() as tx:
            tx.reserve_again(SCOPE, "A", [VALUE, COUNT])
        assert (used(any_store, "value"), used(any_store, "orders")) == (1400, 1)
    with any_store.write() as tx:  # one that was found at the broker and never reserved here
        tx.reserve_again(SCOPE, "C", [VALUE, COUNT])
    assert (used(any_store, "value"), used(any_store, "orders")) == (1900, 2)
    with any_store.write() as tx:
        tx.release(SCOPE, "A", unfilled=Fraction(1, 2))
        tx.release(SCOPE, "C")
    assert (used(any_store, "value"), used(any_store, "orders")) == (900 + 250, 2)


def test_a_new_reservation_after_a_part_was_returned_counts_the_whole_once(any_store: Store) -> None:
    with any_store.write() as tx:
        tx.reserve(SCOPE, "A", [VALUE])
        tx.release(SCOPE, "A", unfilled=Fraction(1, 5))
        assert tx.reserve(SCOPE, "A", [replace(VALUE, amount=700)]) is None
    assert used(any_store, "value") == 700


def test_absences_are_counted_per_order_and_attempt(any_store: Store, clock: Clock) -> None:
    with any_store.write() as tx:
        tx.insert_order(order(), said())
        assert tx.note_absence(order()) == Evidence(1, NOON, NOON)
    clock.pass_(30)
    with any_store.write() as tx:
        assert tx.note_absence(order()) == Evidence(2, NOON, clock.now())
        assert tx.note_absence(order(attempt=2)) == Evidence(1, clock.now(), clock.now())


def a_stranger(ident: str, seconds: int = 0) -> Stranger:
    at = NOON + timedelta(seconds=seconds)
    return Stranger(ident, TICKER, Side.SELL, 75, "CNC", None, at, NOON)


def test_strangers_are_noted_once_until_a_person_has_looked(any_store: Store) -> None:
    late, early = a_stranger("9", 5), a_stranger("8")
    with any_store.write() as tx:
        assert [tx.add_stranger(SCOPE, s) for s in (late, early, replace(late, quantity=1))] == [
            True,
            True,
            False,
        ]
        assert tx.add_stranger(LIVE, late)
        assert tx.strangers(SCOPE, acknowledged=False) == tx.strangers(SCOPE) == (early, late)
        assert tx.strangers(SCOPE, acknowledged=True) == ()
        assert [tx.acknowledge_strangers(SCOPE, "ann"), tx.acknowledge_strangers(SCOPE, "bob")] == [2, 0]
        assert not tx.add_stranger(SCOPE, late)  # it stays looked at
        assert {s.acknowledged_by for s in tx.strangers(SCOPE, acknowledged=True)} == {"ann"}
        assert tx.strangers(SCOPE, acknowledged=False) == ()
        assert tx.strangers(LIVE, acknowledged=False) == (late,)


def test_the_latest_beginning_of_a_pass_is_kept(any_store: Store) -> None:
    with any_store.write() as tx:
        assert tx.last_pass(SCOPE) is None
        for seconds in (5, 1, 3):
            tx.record_pass(SCOPE, NOON - timedelta(seconds=seconds))
        assert tx.last_pass(SCOPE) == NOON - timedelta(seconds=1)
        assert tx.last_pass(LIVE) is None


def test_a_pass_of_a_clock_that_was_ahead_is_not_the_latest(any_store: Store) -> None:
    with any_store.write() as tx:
        tx.record_pass(SCOPE, NOON + timedelta(hours=5))
        tx.record_pass(SCOPE, NOON)
        assert tx.last_pass(SCOPE) == NOON


def test_old_keys_are_deleted_oldest_first_and_no_more_than_asked(any_store: Store, clock: Clock) -> None:
    with any_store.write() as tx:
        for n in range(4):
            tx.claim_key(SCOPE, "trader", key(f"d{n}"), "A", timedelta(seconds=10 + n))
        tx.claim_key(LIVE, "trader", key("d0"), "A", timedelta(seconds=1))
    clock.pass_(13)
    with any_store.write() as tx:
        assert [tx.purge_keys(SCOPE, clock.now(), 2), tx.purge_keys(SCOPE, clock.now(), 2)] == [2, 1]
        assert tx.purge_keys(SCOPE, clock.now(), 2) == 0  # d3 has just expired, not before


def test_orders_are_found_by_tag_broker_id_and_day(any_store: Store) -> None:
    yesterday, live = DAY - timedelta(days=1), Scope(LIVE.mode, LIVE.account)
    rows = (
        order("A", broker_order_id="8", status=Status.ACCEPTED),
        order("B", status=Status.IN_DOUBT, created_at=NOON + timedelta(seconds=1)),
        order("C", broker_order_id="7", status=Status.FILLED, ist_date=yesterday),
        order("D", scope=live, broker_order_id="6", status=Status.FILLED),
    )
    with any_store.write() as tx:
        for row in rows:
            tx.insert_order(row, said(status=row.status))
    with any_store.read() as tx:
        found = tx.find_tag(SCOPE, "tagsA")
        assert (found and found.id, tx.find_tag(SCOPE, "TAGSD"), tx.find_tag(SCOPE, "TAGS")) == (
            "A",
            None,
            None,
        )
        assert tx.known_at_broker(SCOPE, [*(str(n) for n in range(1200)), "x"]) == {"7", "8"}
        assert tx.known_at_broker(SCOPE, []) == frozenset()
        assert [o.id for o in tx.orders_on(SCOPE, DAY)] == ["A", "B"]
        assert [o.id for o in tx.orders_on(SCOPE, DAY, {Status.IN_DOUBT})] == ["B"]
        assert tx.orders_on(SCOPE, DAY, ()) == ()
        assert [o.id for o in tx.orders_before(SCOPE, DAY, {Status.FILLED, Status.ACCEPTED})] == ["C"]
        assert tx.orders_before(SCOPE, yesterday, {Status.FILLED}) == ()


def test_the_events_of_many_orders_come_by_order_and_kind(any_store: Store) -> None:
    many = [f"O{n}" for n in range(1200)]
    with any_store.write() as tx:
        tx.insert_order(order("A"), said())
        tx.insert_order(order("B"), said())
        tx.insert_order(order("C", scope=LIVE), said())
        for kind in (Event.LEG_CANCELLED, Event.ENTRY_CANCEL, Event.LEG_RESTORED):
            for ident, scope in (("A", SCOPE), ("C", LIVE)):
                tx.record(order(ident, scope=scope), said(kind))
    kinds = (Event.LEG_RESTORED, Event.LEG_CANCELLED)
    with any_store.read() as tx:
        found = tx.events_of(SCOPE, ["C", "B", "A", *many], kinds)
        assert {i: [(e.event, e.sequence) for e in events] for i, events in found.items()} == {
            "A": [(Event.LEG_CANCELLED, 2), (Event.LEG_RESTORED, 4)]
        }
        assert tx.events_of(SCOPE, [], kinds) == tx.events_of(SCOPE, ["A"], []) == {}


def test_holdings_of_earlier_days_leave_out_today(any_store: Store, clock: Clock) -> None:
    old = order("A", status=Status.FILLED, filled_quantity=75, ist_date=DAY - timedelta(days=1))
    clock.at = datetime(2026, 11, 22, 18, 29, 59, tzinfo=UTC)  # one second before the IST midnight
    with any_store.write() as tx:
        tx.insert_order(old, said(status=old.status))
        tx.insert_order(order("B", status=Status.FILLED, filled_quantity=150), said())
        tx.adjust_holding(SCOPE, "trader", TICKER, Product.INTRADAY, -5, "yesterday")
    clock.pass_(1)
    with any_store.write() as tx:
        tx.adjust_holding(SCOPE, "trader", TICKER, Product.INTRADAY, -20, "today")
        held = [tx.holdings(SCOPE, "trader", before=day) for day in (DAY - timedelta(days=1), DAY, None)]
    assert held == [
        (),
        (Holding("trader", TICKER, Product.INTRADAY, 70),),
        (Holding("trader", TICKER, Product.INTRADAY, 200),),
    ]


def test_a_change_may_name_fill_time_protection_fence_and_client(any_store: Store) -> None:
    change = Moved(filled_at=NOON, protection=Protection.SEEN, fence="f2", client="ann")
    with any_store.write() as tx:
        tx.insert_order(order(), said())
        tx.record(order(), said(Event.PROTECTION_SEEN), change)
    with any_store.read() as tx:
        row = tx.get_order(SCOPE, "A")
    assert row is not None
    assert (row.filled_at, row.protection, row.fence, row.client) == (NOON, Protection.SEEN, "f2", "ann")


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_waiting_exit_becomes_a_send_once_under_its_own_attempt_or_the_next(
    any_store: Store, attempt: int
) -> None:
    waiting, sending = order(status=Status.EXIT_PENDING), order(attempt=attempt, fence="f2")
    with any_store.write() as tx:
        tx.insert_order(waiting, said(status=waiting.status))
        assert not tx.restart_order(sending, said(), Status.NOT_SENT)
        assert tx.restart_order(sending, said(), Status.EXIT_PENDING)
        assert not tx.restart_order(sending, said(), Status.EXIT_PENDING)
        failed = tx.move(sending, Status.NOT_SENT, said(Event.ORDER_NOT_SENT))
        assert failed is not None
        again = replace(waiting, attempt=attempt + 1)
        assert not tx.restart_order(replace(again, attempt=attempt), said(), Status.NOT_SENT)
        assert tx.restart_order(again, said(), Status.NOT_SENT)
        assert not tx.restart_order(sending, said(), Status.EXIT_PENDING)  # an older look at it


def test_a_lease_asked_for_after_the_deadline_is_tried_once_and_at_once(
    any_store: Store, clock: Clock
) -> None:
    passed = Deadline(clock.monotonic())
    assert any_store.take_lock("job", "one", timedelta(seconds=10), passed)
    assert not any_store.take_lock("job", "two", timedelta(seconds=10), passed)
    assert any_store.take_lock("job", "one", timedelta(seconds=10), passed)  # its owner may prolong it
    assert clock.monotonic() == passed.at  # nobody waited
