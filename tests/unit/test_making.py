"""A connection by a deadline: what comes too late is the next one's, or closed where nobody may have it."""

from __future__ import annotations

import threading
import time

import pytest

from app.store.making import Attempt, Attempts, NotMade

SOON_S = 5.0


class Connection:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Server:
    """Lets connections be made when it is told to."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = 0

    def connect(self) -> Connection:
        self.asked += 1
        assert self.may.wait(SOON_S)
        return Connection()


def soon() -> float:
    return time.monotonic() + SOON_S


def had(attempt: Attempt) -> Connection:
    connection, made_at = attempt.result(soon())
    assert attempt.began <= made_at <= time.monotonic()
    assert isinstance(connection, Connection)
    return connection


def failed(attempts: Attempts, error: Exception) -> Attempt:
    def refused() -> None:
        raise error

    attempt = attempts.next(refused)
    with pytest.raises(type(error), match=str(error)):
        attempt.result(soon())
    return attempt


def late(attempts: Attempts, server: Server) -> Attempt:
    attempt = attempts.next(server.connect)
    with pytest.raises(NotMade):
        attempt.result(time.monotonic())
    attempts.keep(attempt)
    return attempt


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), TimeoutError("its own")])
def test_an_error_is_told_as_it_is(error: Exception) -> None:
    failed(Attempts(SOON_S), error)


def test_what_outlived_the_one_who_asked_is_the_next_ones() -> None:
    attempts, server = Attempts(SOON_S), Server()
    late(attempts, server)
    again = attempts.next(server.connect)
    server.may.set()
    assert not had(again).closed.is_set()
    assert server.asked == 1
    assert had(attempts.next(server.connect))
    assert server.asked == 2


def test_one_that_failed_meanwhile_is_nobodys() -> None:
    attempts, server = Attempts(SOON_S), Server()
    attempts.keep(failed(attempts, ConnectionRefusedError("no")))
    server.may.set()
    assert had(attempts.next(server.connect))


def test_one_that_hangs_is_left_behind_and_closed_when_it_comes() -> None:
    attempts, server = Attempts(0.0), Server()
    hung = late(attempts, server)
    other = Server()
    other.may.set()
    assert had(attempts.next(other.connect))
    server.may.set()
    assert had(hung).closed.wait(SOON_S)


def test_none_is_left_open_behind_a_pool_that_is_closed() -> None:
    attempts, server = Attempts(SOON_S), Server()
    attempt = late(attempts, server)
    attempts.drop()
    server.may.set()
    assert had(attempt).closed.wait(SOON_S)


def test_a_process_that_gets_no_thread_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(NotMade, match="thread"):
        Attempts(SOON_S).next(Connection)
