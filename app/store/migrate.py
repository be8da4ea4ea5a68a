"""Bring a database's schema to this version's: `python -m app.store.migrate URL`.

Alembic loads only here and only to upgrade: the serving process compares one row with one constant.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url

HEAD = "0002"
"""The newest revision in migrations/versions; a test says so."""


def at_head(connection: Connection) -> bool:
    """Whether the schema is this version's."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) == [HEAD]


def upgrade(database_url: str) -> None:
    """Run what is missing, in one transaction on Postgres; changes nothing when all is there."""
    from alembic import command
    from alembic.config import Config

    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


if __name__ == "__main__":
    upgrade(sys.argv[1])
