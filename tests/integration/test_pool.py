"""Which of the pool's connections may still be used after one was lost, and who waits for a database that is silent."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import event

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store import pool
from app.store.engine import Database
from app.store.watchdog import Watchdog

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
            with ThreadPoolExecutor(1) as other:
                asked.append(other.submit(made_at, database).result())
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


def no_descriptor(_: int) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("owner", "name", "gone"), [(os, "dup", no_descriptor), (threading.Thread, "start", no_thread)]
)
def test_a_process_without_a_free_descriptor_or_thread_has_no_database_and_then_has_it_again(
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    gone: Callable[..., object],
    connected: bool,
) -> None:
    database = Database(postgres_url, None)
    if connected:
        with database.read():
            pass
        database._watchdog = Watchdog()  # of a process that has just been forked: without its thread
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, gone)
        with pytest.raises(StoreUnavailable), database.read():
            pytest.fail("expected no transaction")
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        assert database._watchdog._process == os.getpid()
    database.close()


def slow_to_connect(database: Database, seconds: float) -> list[float]:
    """When each connection was made, of a server that takes so long to make one."""
    real, made = database.engine.dialect.connect, list[float]()

    def connect(*given: Any, **named: Any) -> Any:
        sleep(seconds)
        made.append(monotonic())
        return real(*given, **named)

    database.engine.dialect.connect = connect  # type: ignore[method-assign]
    return made


@pytest.mark.alone
def test_a_server_that_is_further_than_anybody_waits_is_reached(postgres_url: str) -> None:
    database = Database(postgres_url, None)
    made = slow_to_connect(database, 0.4)
    answers = [read_within(database, 0.3) for _ in range(6)]
    assert answers.index(True) <= 3
    assert len(made) <= 2
    database.close()


@pytest.mark.alone
def test_one_who_has_little_time_ends_it_for_nobody_else(postgres_url: str) -> None:
    """Connections take 1.2 s after a loss; a scrape gives up after one."""
    database = Database(postgres_url, None)
    assert read_within(database, 5.0)
    database._pool._lost_at = monotonic()
    slow_to_connect(database, 1.2)
    with ThreadPoolExecutor(12) as threads:
        scrape = threads.submit(read_within, database, 1.0)
        sleep(0.3)
        others = [threads.submit(read_within, database, 2.0) for _ in range(4)]
        assert not scrape.result()
        [other.result() for other in others]
        assert [read_within(database, 2.0) for _ in range(5)] == [True] * 5
    database.close()


def read_within(database: Database, seconds: float) -> bool:
    try:
        with database.read(Deadline(monotonic() + seconds)):
            return True
    except StoreUnavailable:
        return False
