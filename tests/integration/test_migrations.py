"""The second revision on a database that the first one's version has filled: nothing is lost or counted wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from app.domain.order import Scope
from app.domain.risk import TradingState
from app.service.records import Cap
from app.store import migrate
from app.store.head import HEAD
from app.store.sql import connect
from tests.integration.store_rows import NOON, SCOPE, Clock, order, said

FILLED = """
INSERT INTO trading_state (mode, account, state, reason, changed_at) VALUES ('paper', 'PAPER', 'REDUCING', 'flood', :at);
INSERT INTO caps (mode, account, name, "window", used) VALUES ('paper', 'PAPER', 'value', 'day', 300);
INSERT INTO cap_reservations (mode, account, order_id, name, "window", amount, returnable, released_at)
VALUES ('paper', 'PAPER', 'A', 'value', 'day', 200, true, :at), ('paper', 'PAPER', 'B', 'value', 'day', 300, true, NULL)
"""


@contextmanager
def alembic(url: str) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        yield config
    engine.dispose()


def test_state_and_caps_survive_the_second_revision(database_url: str, clock: Clock) -> None:
    with alembic(database_url) as config:
        command.downgrade(config, "0001")
    engine = create_engine(database_url)
    with engine.begin() as connection:
        for statement in FILLED.split(";"):
            connection.execute(text(statement), {"at": "2026-11-23 06:30:00.000000"})
    engine.dispose()
    store = connect(database_url, clock)
    assert HEAD in (store.check() or "")
    migrate.upgrade(database_url)
    assert store.check() is None
    value = Cap("value", "day", 1000, 200, returnable=True)
    with store.write() as tx:
        assert [c.reason for c in tx.state_history(SCOPE, 9)] == ["flood"]
        assert tx.state_change(SCOPE).state is TradingState.REDUCING
        tx.insert_order(order(), said())
        tx.reserve_again(SCOPE, "A", [value])  # it had given back 200
        tx.release(SCOPE, "B")
        assert tx.reserve(SCOPE, "C", [Cap("value", "day", 1000, 800, returnable=True)]) is None
        assert tx.reserve(SCOPE, "D", [Cap("value", "day", 1000, 1, returnable=True)]) is not None
        assert tx.state_change(Scope(SCOPE.mode, "another")).at == NOON
    store.close()


@pytest.mark.parametrize("revision", ["0001", "base"])
def test_the_way_back_and_forth_ends_at_the_same_schema(
    database_url: str, clock: Clock, revision: str
) -> None:
    with alembic(database_url) as config:
        command.downgrade(config, revision)
    migrate.upgrade(database_url)
    store = connect(database_url, clock)
    store.ensure_scope(SCOPE)
    assert store.check() is None
    store.close()


def test_a_migration_that_fails_half_way_leaves_nothing_and_can_be_repeated(
    database_url: str, clock: Clock
) -> None:
    with alembic(database_url) as config:
        command.downgrade(config, "0001")
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE strangers (id INTEGER)"))  # in the way of the second revision
    with pytest.raises(DBAPIError):
        migrate.upgrade(database_url)
    with engine.begin() as connection:
        assert "filled_at" not in {column["name"] for column in inspect(connection).get_columns("orders")}
        connection.execute(text("DROP TABLE strangers"))
    engine.dispose()
    migrate.upgrade(database_url)
    store = connect(database_url, clock)
    assert store.check() is None
    store.close()
