"""A store on each database in turn; whole instances on SQLite against the simulated broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.engine import Database
from app.store.sql import SqlStore
from tests.fyers_sim import FyersSim
from tests.integration.store_rows import Clock
from tests.wire_desk import Desks, WireDesk, count_contracts, simulated


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[SqlStore]:
    made = SqlStore(Database(database_url, clock), clock, pause=clock.pass_)
    yield made
    made.close()


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[FyersSim]:
    with simulated(tmp_path) as made:
        yield made


@pytest.fixture
def desks(tmp_path: Path, sim: FyersSim) -> Iterator[Desks]:
    with Desks(tmp_path, sim) as made:
        yield made


@pytest.fixture
def desk(desks: Desks) -> WireDesk:
    made = desks.start()
    made.pass_on()
    return made


@pytest.fixture
def contract_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `usefixtures`, and so before any desk: caps that `assert_caps` can compare with the ledger."""
    count_contracts(monkeypatch)
