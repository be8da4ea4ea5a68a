"""The store keeps its promises about keys, caps, leases and refusals on SQLite and on Postgres alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.domain.deadline import Deadline
from app.domain.risk import Denial, TradingState
from app.domain.status import Status
from app.service.records import Cap, Refusal
from app.store import tables
from app.store.sql import MAX_REFUSALS, SqlStore
from tests.integration.store_rows import LIVE, NOON, SCOPE, Clock, key, order, said


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


def test_a_lease_is_held_by_one_until_freed_or_expired(
    store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock of the waits stands still meanwhile; that of the driver's time-outs does not, on a busy machine.
    monkeypatch.setattr("app.store.sql.ONE_TRY_S", 30.0)

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
