"""Locks with a life: whoever asks in vain is told so, also where the database is busy at the end of his time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database
from app.store.sql import SqlStore
from tests.integration.store_rows import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_lock_that_was_anothers_stays_so_when_there_is_no_time_for_one_more_look(
    sqlite_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def busy(_: object = None) -> Iterator[Connection]:
        raise StoreUnavailable("another writes")
        yield

    def pause(_: float) -> None:
        monkeypatch.setattr(store.database, "write", busy)

    store = SqlStore(Database(sqlite_url, clock), clock, pause)
    life, soon = timedelta(minutes=1), Deadline(clock.monotonic() + 0.3)
    assert store.take_lock("login", "one", life, soon)
    assert not store.take_lock("login", "two", life, soon)
    with pytest.raises(StoreUnavailable):
        store.take_lock("login", "two", life, soon)
    store.close()


def test_a_lock_of_a_clock_that_was_ahead_is_free_once_that_is_set_right(
    store: SqlStore, clock: Clock
) -> None:
    life, at_once = timedelta(seconds=15), Deadline(clock.monotonic())
    assert store.take_lock("job:reconcile", "dead", life, at_once)
    clock.pass_(-20)
    assert not store.take_lock("job:reconcile", "heir", life, at_once)
    clock.pass_(-3600)
    assert store.take_lock("job:reconcile", "heir", life, at_once)
