# ruff: noqa: INP001 - Alembic loads this file by its path
"""What Alembic runs. The connection comes from `app.store.migrate.upgrade`, which owns its transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from app.store.tables import metadata

MIGRATION_LOCK = 7_141_801
"""Any number of our own: two instances that start together must not migrate at the same time."""


def ours(name: str | None, kind: str, _parents: object) -> bool:
    """What autogeneration compares: the paper exchange defines its own tables."""
    return kind != "table" or not (name or "").startswith("paper_")


connection: Connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": MIGRATION_LOCK})
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_name=ours,
    render_as_batch=connection.dialect.name == "sqlite",
    user_module_prefix="column_types.",
)
with context.begin_transaction():
    context.run_migrations()
