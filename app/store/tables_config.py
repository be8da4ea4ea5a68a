"""The tables of the runtime configuration and of clients' preferences. They stand in the schema of app/store/tables.py.

Settings belong to a (mode, account): a limit tried on paper must not become real money's.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Integer, String, Table, Text

from app.store.column_types import UtcTime
from app.store.tables import metadata

# Append-only: triggers of the migration refuse anything else. Each version holds the whole document.
config_versions = Table(
    "config_versions",
    metadata,
    Column("mode", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("changed_by", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("document", JSON, nullable=False),
    Column("changes", JSON, nullable=False),
)

preferences = Table(
    "preferences",
    metadata,
    Column("client", String, primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
