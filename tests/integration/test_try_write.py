"""Whether anything can be written: found out by a write that costs nobody anything, on both databases."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from sqlalchemy import make_url, select, update

from app.domain.deadline import Deadline
from app.errors import StoreBusy, StoreUnavailable
from app.store.sql import TRIED, SqlStore, connect
from app.store.tables import locks
from tests.integration.store_rows import SCOPE, Clock


def soon(clock: Clock, seconds: float = 5) -> Deadline:
    return Deadline(clock.monotonic() + seconds)


def test_it_writes_one_row_however_often(store: SqlStore, clock: Clock) -> None:
    seen = set()
    for _ in range(3):
        clock.pass_(1)
        store.try_write(soon(clock))
        with store.database.read() as connection:
            (row,) = connection.execute(select(locks)).all()
        seen.add((row.name, row.expires_at))
    assert len(seen) == 3


def test_one_that_was_stopped_in_the_middle_keeps_no_other_from_it(postgres_url: str, clock: Clock) -> None:
    store, other = connect(postgres_url, clock), connect(postgres_url, clock)
    store.try_write(soon(clock))
    with store.database.write() as connection:
        connection.execute(update(locks).where(locks.c.name == TRIED).values(owner="stopped"))
        other.try_write(soon(clock))
    store.close()
    other.close()


def test_a_sqlite_that_others_write_to_is_busy_and_not_broken(sqlite_url: str, clock: Clock) -> None:
    store, other = connect(sqlite_url, clock), connect(sqlite_url, clock)
    for writer in (store, other):  # of this process, and of another
        with writer.write(), pytest.raises(StoreBusy):
            store.try_write(soon(clock, 0.01))
    with pytest.raises(StoreBusy):
        store.try_write(soon(clock, 0))  # its turn came when there was no time left
    store.try_write(soon(clock))
    store.close()
    other.close()


def only_reads(store: SqlStore, clock: Clock) -> None:
    assert store.check() is None
    clock.pass_(1)  # or there would be nothing to change
    with pytest.raises(StoreUnavailable) as told:
        store.try_write(soon(clock))
    assert not isinstance(told.value, StoreBusy)
    store.close()


def test_a_postgres_that_only_reads(postgres_url: str, clock: Clock) -> None:
    weak = make_url(postgres_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    only_reads(connect(weak.render_as_string(hide_password=False), clock), clock)


def test_a_sqlite_file_that_only_reads(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)
    store.ensure_scope(SCOPE)
    only_reads(connect(f"sqlite:///file:{make_url(sqlite_url).database}?mode=ro&uri=true", clock), clock)
    store.close()


def test_a_sqlite_file_without_room(sqlite_url: str, clock: Clock) -> None:
    store = connect(sqlite_url, clock)
    store.try_write(soon(clock))
    size = Path(f"{make_url(sqlite_url).database}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        only_reads(store, clock)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
