"""A connection by a deadline: what comes too late is closed, and nobody has it."""

from __future__ import annotations

import threading

import pytest

from app.store.making import NotMade, made_within


class Connection:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_what_is_made_in_time_is_had_open() -> None:
    connection = Connection()
    assert made_within(lambda: connection, 5.0) is connection
    assert not connection.closed.is_set()


def test_its_error_is_told_as_it_is() -> None:
    def refused() -> None:
        raise ConnectionRefusedError("no")

    with pytest.raises(ConnectionRefusedError, match="no"):
        made_within(refused, 5.0)


def test_a_time_out_of_its_own_is_its_error() -> None:
    def timed_out() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        made_within(timed_out, 5.0)


def test_what_comes_too_late_is_closed() -> None:
    connection, may = Connection(), threading.Event()

    def late() -> Connection:
        assert may.wait(5)
        return connection

    with pytest.raises(NotMade):
        made_within(late, 0.0)
    may.set()
    assert connection.closed.wait(5)


def test_an_error_that_comes_too_late_is_nobodys(recwarn: pytest.WarningsRecorder) -> None:
    done, may = threading.Event(), threading.Event()

    def late() -> None:
        assert may.wait(5)
        done.set()
        raise ConnectionRefusedError("no")

    with pytest.raises(NotMade):
        made_within(late, 0.0)
    may.set()
    assert done.wait(5)
    assert not recwarn.list
