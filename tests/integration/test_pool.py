"""Which of the pool's connections may still be used after one was lost, and who waits for a database that is silent."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import event

from app.errors import StoreUnavailable
from app.store import pool
from app.store.engine import Database

LOST = sqlite3.OperationalError("lost")


class Time:
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(pool, "time", made)
    return made


@pytest.fixture
def database(sqlite_url: str, time: Time) -> Iterator[Database]:
    made = Database(sqlite_url, None)
    yield made
    made.close()


def made_at(database: Database) -> float:
    """When the connection was made that the next one gets."""
    with database.read() as connection:
        made: float = connection.info["made"]
        return made


def lose(database: Database) -> None:
    with suppress(StoreUnavailable), database.read() as connection:
        connection.invalidate(LOST)


def test_after_a_loss_one_waits_for_a_silent_database_and_the_next_does_not(
    database: Database, time: Time
) -> None:
    with database.read(), database.read(), database.read():
        pass  # three in the pool
    time.at += 1
    tries: list[float] = []

    @event.listens_for(database.engine, "do_connect")
    def silent(*_: object) -> None:
        tries.append(time.at)
        time.at += pool.CONNECT_BOUND_S
        raise LOST

    lose(database)
    with pytest.raises(StoreUnavailable, match="failed"):
        made_at(database)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="a moment ago"):
            made_at(database)
    assert len(tries) == 1
    time.at += pool.REST_S
    with pytest.raises(StoreUnavailable, match="failed"):
        made_at(database)
    assert len(tries) == 2
    event.remove(database.engine, "do_connect", silent)
    time.at += pool.REST_S
    assert made_at(database)


def test_an_answer_to_one_who_asked_later_says_more_than_the_silence_before_it(
    database: Database, time: Time
) -> None:
    lose(database)
    asked: list[float] = []

    @event.listens_for(database.engine, "do_connect")
    def silent_to_the_first(*_: object) -> None:
        asked.append(time.at)
        if len(asked) == 1:
            time.at += 1
            asked.append(made_at(database))
            time.at += pool.CONNECT_BOUND_S
            raise LOST

    time.at += 1
    with pytest.raises(StoreUnavailable, match="failed"):
        made_at(database)
    assert made_at(database) == asked[1]
    event.remove(database.engine, "do_connect", silent_to_the_first)


def test_one_from_before_the_last_loss_says_nothing_of_those_made_since(
    database: Database, time: Time
) -> None:
    with suppress(StoreUnavailable), database.read() as old:
        with database.read():
            pass
        time.at += 1
        lose(database)
        time.at += 1
        new = made_at(database)
        assert new == time.at
        time.at += 1
        old.invalidate(LOST)
    assert made_at(database) == new


def test_one_in_use_at_a_loss_does_its_work_and_is_not_used_again(database: Database, time: Time) -> None:
    with database.write() as used:
        time.at += 1
        with database._pool.seat(1), database._pool.connect() as other:
            other.invalidate(LOST)
        used.exec_driver_sql("SELECT 1")
    time.at += 1
    with database.read() as one, database.read() as another:
        assert [c.info["made"] for c in (one, another)] == [time.at] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_a_read_within_a_lost_transaction_is_told_as_it_is(
    database: Database, error: type[BaseException]
) -> None:
    def broken() -> None:
        with database.write(), database.read() as connection:
            connection.invalidate(LOST)
            raise error

    with pytest.raises(error):
        broken()


def test_a_process_without_a_free_descriptor_has_no_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres_url, None)
    with database.read():
        pass

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", none_left)
        with pytest.raises(StoreUnavailable, match="Too many"), database.read():
            pytest.fail("expected no transaction")
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()
