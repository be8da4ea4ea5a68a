"""The broker's rate limit in the database: in no second more entries than its slots, whoever asks for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from app.store.sql import SqlStore
from tests.builders import SCOPE, an_order
from tests.integration.store_rows import Clock

PER_SECOND = 8


def take(store: SqlStore) -> bool:
    with store.write() as tx:
        return tx.take_order_slot(SCOPE, PER_SECOND)


def test_a_second_has_so_many_and_the_next_one_again(store: SqlStore, clock: Clock) -> None:
    assert [take(store) for _ in range(PER_SECOND + 2)] == [True] * PER_SECOND + [False] * 2
    clock.pass_(1)
    assert not take(store)
    clock.pass_(0.4)
    assert [take(store) for _ in range(PER_SECOND + 1)] == [True] * PER_SECOND + [False]


def test_no_window_of_a_second_has_more_however_they_are_spread(store: SqlStore, clock: Clock) -> None:
    sent = []
    for _ in range(200):
        clock.pass_(0.07)
        if take(store):
            sent.append(clock.now())
    assert len(sent) > PER_SECOND
    assert all(
        later - first > timedelta(seconds=1) for first, later in zip(sent, sent[PER_SECOND:], strict=False)
    )


def test_many_at_once_get_no_slot_twice(store: SqlStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: take(store), range(48))) == PER_SECOND


def test_a_clock_that_was_ahead_and_is_set_right_holds_no_slot(store: SqlStore, clock: Clock) -> None:
    clock.pass_(3600)
    assert [take(store) for _ in range(PER_SECOND)] == [True] * PER_SECOND
    clock.pass_(-5)
    assert not take(store), "so much a transaction may have waited"
    clock.pass_(-3595)
    assert [take(store) for _ in range(PER_SECOND + 1)] == [True] * PER_SECOND + [False]


def test_what_is_rolled_back_keeps_no_slot(store: SqlStore) -> None:
    def fails() -> None:
        with store.write() as tx:
            assert tx.take_order_slot(SCOPE, 1)
            raise LookupError(an_order().id)

    for _ in range(3):
        try:
            fails()
        except LookupError:
            continue
    with store.write() as tx:
        assert tx.take_order_slot(SCOPE, 1)
