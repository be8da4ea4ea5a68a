"""The tables of seals. They stand in the schema of app/store/tables.py, built by the same migrations.

Append-only: triggers refuse anything else, on these, on order_events and on the state's history.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from app.store.column_types import UtcTime
from app.store.tables import metadata

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("upto", BigInteger, nullable=False),
    Column("sealed_at", UtcTime, nullable=False),
    Column("prev_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)

# What a seal stands on: how far each order's chain had come. No foreign keys: these rows outlive what they witness.
audit_seal_heads = Table(
    "audit_seal_heads",
    metadata,
    Column("seal", Integer, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("order_id", String, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("head_hash", String, nullable=False),
    Index("ix_audit_seal_heads_order", "order_id", "event_count", unique=True),
)
