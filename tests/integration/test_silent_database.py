"""A database behind something that takes connections and says nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from app.domain.deadline import Deadline
from app.errors import StoreUnavailable
from app.store.engine import Database

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def silent() -> Iterator[Database]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none", None)
        yield database
        database.close()


def took(database: Database) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), database.read(Deadline(began + 1.0)):
        pass
    return time.monotonic() - began


def test_one_who_asks_right_after_another_does_not_wait_for_the_same_silence(silent: Database) -> None:
    assert 1.0 < took(silent) < 2.4
    assert took(silent) < 0.3
