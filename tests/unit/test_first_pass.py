"""Which pass lets entries in after a start."""

from __future__ import annotations

from app.service.reconcile import FirstPass
from tests.builders import SCOPE
from tests.fake_store import FakeClock, FakeStore


def passed(store: FakeStore) -> None:
    with store.write() as tx:
        tx.record_pass(SCOPE, tx.now())


def test_a_pass_since_the_start_lets_entries_in_and_none_of_before() -> None:
    clock = FakeClock()
    store = FakeStore(clock, SCOPE)
    passed(store)
    clock.advance(1)
    fresh = FirstPass(clock, SCOPE)
    with store.read() as tx:
        assert not fresh(tx)
    clock.advance(1)
    passed(store)
    with store.read() as tx:
        assert fresh(tx)


def test_a_pass_of_a_clock_that_was_ahead_lets_nothing_in() -> None:
    clock = FakeClock()
    store = FakeStore(clock, SCOPE)
    passed(store)
    clock.set_back(3600)
    clock.advance(600)
    fresh = FirstPass(clock, SCOPE)
    clock.advance(1)
    with store.read() as tx:
        assert not fresh(tx)
    passed(store)
    with store.read() as tx:
        assert fresh(tx)
