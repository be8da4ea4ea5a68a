"""Tables of what reconciliation keeps beside the orders: evidence of absence, strangers in the book, its passes."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, String, Table

from app.store.column_types import UtcTime
from app.store.tables import metadata, scope_columns

absences = Table(
    "absences",
    metadata,
    Column("order_id", String, ForeignKey("orders.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("reads", Integer, nullable=False),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
)

strangers = Table(
    "strangers",
    metadata,
    *scope_columns(key=True),
    Column("broker_order_id", String, primary_key=True),
    Column("ticker", String, nullable=False),
    Column("side", String, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("product", String, nullable=False),
    Column("tag", String),
    Column("placed_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("acknowledged_by", String),
    Column("acknowledged_at", UtcTime),
)

reconcile_passes = Table(
    "reconcile_passes",
    metadata,
    *scope_columns(key=True),
    Column("began_at", UtcTime, nullable=False),
)
