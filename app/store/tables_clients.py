"""The tables of API clients. They stand in the schema of app/store/tables.py, built by the same migrations.

Clients belong to the deployment, not to a (mode, account): what they sent carries those.
"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table

from app.store.column_types import UtcTime
from app.store.tables import metadata

api_clients = Table(
    "api_clients",
    metadata,
    Column("name", String, primary_key=True),
    Column("scopes", String, nullable=False),
    Column("max_lots", Integer),
    Column("symbols", String),
    Column("networks", String, nullable=False),
    Column("expires_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", String, nullable=False),
    Column("revoked_at", UtcTime),
)

# Of a token only its hash is kept.
api_tokens = Table(
    "api_tokens",
    metadata,
    Column("digest", String, primary_key=True),
    Column("client", String, ForeignKey("api_clients.name"), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ends_at", UtcTime),
    Index("ix_api_tokens_client", "client"),
)

# Ids of signed messages with a hash of what they came with, until no copy of them could be fresh any more.
webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", String, primary_key=True),
    Column("content", String, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index("ix_webhook_messages_expires_at", "expires_at"),
)
