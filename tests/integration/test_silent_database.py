"""A database behind something that takes connections and says nothing, or nothing more once they are made."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import pytest

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.quiet]


@pytest.fixture
def silent() -> Iterator[Database]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none", None)
        yield database
        database.close()


class Pooler:
    """Answers logins, whose bytes are the protocol's, while the database behind it hangs."""

    READY = b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I"
    VERSION = 196608

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self._threads = ThreadPoolExecutor(1)
        self._threads.submit(self._serve)
        port = self._listening.getsockname()[1]
        self.database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none", None)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                self._peers.append(peer)
                while self._greeting(peer) != self.VERSION:
                    peer.sendall(b"N")  # no encryption
                peer.sendall(self.READY)

    def _greeting(self, peer: socket.socket) -> int:
        length, code = struct.unpack("!II", peer.recv(8, socket.MSG_WAITALL))
        peer.recv(length - 8, socket.MSG_WAITALL)
        return int(code)

    def hang_up(self) -> None:
        """Also on whoever still waits."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads.shutdown()
        for one in (self._listening, *self._peers):
            one.close()
        self.database.close()


def took(database: Database, within_s: float = 1.0) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), database.read(Deadline(began + within_s)):
        pass
    return time.monotonic() - began


def test_one_who_asks_right_after_another_does_not_wait_for_the_same_silence(silent: Database) -> None:
    assert 1.0 < took(silent, 3.0) < 2.4
    assert took(silent) < 0.3


def test_nobody_waits_for_a_connection_past_his_deadline(silent: Database) -> None:
    assert 0.5 < took(silent, 0.6) < 0.9


def test_a_database_that_is_silent_after_the_login_is_waited_for_by_nobody_past_his_deadline() -> None:
    """The first connections of a process: SQLAlchemy has questions to a new database, and asks them under a lock."""
    pooler = Pooler()
    with ThreadPoolExecutor(4) as threads:
        waits = [threads.submit(took, pooler.database, 1.5) for _ in range(4)]
        _, late = wait(waits, timeout=5)
        pooler.hang_up()
    assert not late
    assert max(one.result() for one in waits) < 1.6


def test_a_database_that_says_nothing_is_found_by_one_of_those_who_wait_for_it() -> None:
    pooler = Pooler()
    with ThreadPoolExecutor(4) as threads:
        began = time.monotonic()
        waits = [threads.submit(took, pooler.database, within_s) for within_s in (0.2, 4.0, 4.0, 4.0)]
        wait(waits, timeout=5)
        pooler.hang_up()
    assert time.monotonic() - began < 1.6
