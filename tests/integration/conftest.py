"""A store on each database in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.store.engine import Database
from app.store.sql import SqlStore
from tests.integration.store_rows import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[SqlStore]:
    made = SqlStore(Database(database_url, clock), clock, pause=clock.pass_)
    yield made
    made.close()
