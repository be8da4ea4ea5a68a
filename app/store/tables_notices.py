"""Tables of what is told and watched: notices and their deliveries, heartbeats, runs of jobs."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from app.store.column_types import UtcTime
from app.store.tables import BIG_ID, metadata

notices = Table(
    "notices",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("mode", String, nullable=False),
    Column("account", String, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("code", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("page", Boolean, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("spread_at", UtcTime),
    Index("ix_notices_subject", "subject", "code"),
)
NOT_SPREAD = text("spread_at IS NULL")
Index("ix_notices_new", notices.c.id, postgresql_where=NOT_SPREAD, sqlite_where=NOT_SPREAD)

deliveries = Table(
    "deliveries",
    metadata,
    Column("notice_id", BIG_ID, ForeignKey("notices.id", ondelete="CASCADE"), primary_key=True),
    Column("channel", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("ref", String),
    Column("owner", String),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Index("ix_deliveries_channel", "channel", "state"),
    Index("ix_deliveries_ref", "ref"),
)

# How far each order's audit trail has been told.
told_orders = Table(
    "told_orders",
    metadata,
    Column("order_id", String, ForeignKey("orders.id"), primary_key=True),
    Column("sequence", Integer, nullable=False),
)

told_up_to = Table(
    "told_up_to",
    metadata,
    Column("mode", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("at", UtcTime, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("mode", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("client", String, primary_key=True),
    Column("strategy", String, primary_key=True),
    Column("every_seconds", Integer, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Column("missing_since", UtcTime),
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("mode", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("host", String, primary_key=True),
    Column("slot_at", UtcTime),
    Column("owner", String, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("ok", Boolean),
    Column("result", Text, nullable=False),
    Column("last_success_at", UtcTime),
)
