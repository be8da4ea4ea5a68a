"""Bring a database's schema to this version's: `python -m app.store.migrate URL`.

Alembic loads only here and only to upgrade: the serving process compares one row with one constant.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url

from app.store.head import HEAD


def at_head(connection: Connection) -> bool:
    """Whether the schema is this version's."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) == [HEAD]


def upgrade(database_url: str) -> None:
    """Run what is missing, in one transaction; changes nothing when all is there."""
    from alembic import command
    from alembic.config import Config

    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _whole(engine)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _whole(engine: Engine) -> None:
    """SQLite's driver would commit before every CREATE: a start killed half-way could then never be repeated."""

    @event.listens_for(engine, "connect")
    def leave_it_to_us(raw: Any, _: object) -> None:  # noqa: ANN401 - the driver's connection
        raw.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


if __name__ == "__main__":
    upgrade(sys.argv[1])
