"""The schema. The migrations build it; a test says that both are the same.

The paper exchange's own tables are defined beside it (app/brokers/paper/sql.py) and built by the same migrations.
Whatever counts money carries (mode, account): paper never counts in live mode, nor one account in another.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    text,
)

from app.store.column_types import Exact, UtcTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BIG_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only for a column of exactly this type."""


def scope_columns(*, key: bool = False) -> tuple[Column[str], Column[str]]:
    return (
        Column("mode", String, nullable=False, primary_key=key),
        Column("account", String, nullable=False, primary_key=key),
    )


orders = Table(
    "orders",
    metadata,
    Column("id", String, primary_key=True),
    *scope_columns(),
    Column("client", String, nullable=False),
    Column("strategy", String, nullable=False),
    Column("key_kind", String, nullable=False),
    Column("key_digest", String, nullable=False),
    Column("key_body_hash", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("action", String, nullable=False),
    Column("exchange", String, nullable=False),
    Column("underlying", String, nullable=False),
    Column("expiry", Date, nullable=False),
    Column("session_end", UtcTime, nullable=False),
    Column("strike", Exact, nullable=False),
    Column("option_type", String, nullable=False),
    Column("ticker", String, nullable=False),
    Column("lot", Integer, nullable=False),
    Column("side", String, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("product", String, nullable=False),
    Column("status", String, nullable=False),
    Column("ist_date", Date, nullable=False),
    Column("tag", String, nullable=False, unique=True),
    Column("attempt", Integer, nullable=False),
    Column("code", String),
    Column("reason", Text),
    Column("broker_order_id", String),
    Column("ltp", Exact),
    Column("stop_distance", Exact),
    Column("target_distance", Exact),
    Column("stop_loss", Exact),
    Column("take_profit", Exact),
    Column("protection", String, nullable=False),
    Column("filled_quantity", Integer, nullable=False),
    Column("fill_price", Exact),
    Column("explanation", Text, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("fence", String),
    Column("send_by", UtcTime),
    Column("answer_by", UtcTime),
    Column("sent_at", UtcTime),
    Column("filled_at", UtcTime),
    Column("request_id", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("kind", String, nullable=False, server_default="MARKET"),
    Column("limit_price", Exact),
    Column("variant", String, nullable=False, server_default=""),
    Column("signal_price", Exact),
    Column("event_count", Integer, nullable=False),
    Column("head_hash", String, nullable=False),
    Index("ix_orders_newest", "mode", "account", "created_at", "id"),
    Index("ix_orders_day", "mode", "account", "ist_date", "created_at", "id"),
)
# Queries repeat these words as they stand: a bound value would hide from the planner that the index fits.
OPEN = ("EXIT_PENDING", "SENDING", "IN_DOUBT", "NEEDS_REVIEW", "ACCEPTED", "PARTIALLY_FILLED")
IS_OPEN = text(f"status IN ({','.join(repr(word) for word in OPEN)})")
IS_FILLED = text("filled_quantity > 0")
HAS_LEFT = text("status NOT IN ('DENIED','NOT_SENT')")
AT_BROKER = text("broker_order_id IS NOT NULL")
IS_TRIED = text("variant <> ''")


def _some(name: str, where: TextClause, columns: str) -> None:
    names = ("mode", "account", *columns.split())
    Index(f"ix_orders_{name}", *(orders.c[n] for n in names), postgresql_where=where, sqlite_where=where)


_some("open", IS_OPEN, "ticker side created_at id")
# What is added up is read from these two alone: a row has fifty columns.
_some("filled", IS_FILLED, "client ticker product ist_date side filled_quantity")
_some("held", IS_FILLED, "session_end ticker product id side lot filled_quantity fill_price ltp")
_some("contract", HAS_LEFT, "ticker created_at id")
_some("broker_id", AT_BROKER, "broker_order_id")
_some("variant", IS_TRIED, "variant")

order_events = Table(
    "order_events",
    metadata,
    Column("order_id", String, ForeignKey("orders.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("event", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("status", String),
    Column("detail", JSON, nullable=False),
    Column("prev_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    *scope_columns(key=True),
    Column("client", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("body_hash", String, nullable=False),
    Column("order_id", String, nullable=False),
    Column("claimed_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

caps = Table(
    "caps",
    metadata,
    *scope_columns(key=True),
    Column("name", String, primary_key=True),
    Column("window", String, primary_key=True),
    Column("used", BigInteger, nullable=False),
    CheckConstraint("used >= 0", name="used"),
)

cap_reservations = Table(
    "cap_reservations",
    metadata,
    *scope_columns(key=True),
    Column("order_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("window", String, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("returnable", Boolean, nullable=False),
    Column("released_at", UtcTime),
    Column("returned", BigInteger, nullable=False, server_default="0"),
)

holding_adjustments = Table(
    "holding_adjustments",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    *scope_columns(),
    Column("client", String, nullable=False),
    Column("ticker", String, nullable=False),
    Column("product", String, nullable=False),
    Column("delta", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("price", Exact),
    Index("ix_holding_adjustments_client", "mode", "account", "client"),
)

locks = Table(
    "locks",
    metadata,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

order_slots = Table(
    "order_slots",
    metadata,
    *scope_columns(key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("used_at", UtcTime, nullable=False),
)

trading_state = Table(
    "trading_state",
    metadata,
    *scope_columns(key=True),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Column("changed_by", String, nullable=False, server_default=""),
)

# Append-only: triggers of the migration refuse anything else.
trading_state_history = Table(
    "trading_state_history",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    *scope_columns(),
    Column("state", String, nullable=False),
    Column("changed_by", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Index("ix_trading_state_history_newest", "mode", "account", "id"),
)

deployment = Table(
    "deployment",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("tag_prefix", String, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

refusals = Table(
    "refusals",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    *scope_columns(),
    Column("at", UtcTime, nullable=False),
    Column("address", String, nullable=False),
    Column("client", String),
    Column("status", Integer, nullable=False),
    Column("code", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("body_hash", String, nullable=False),
    Column("safe_fields", JSON, nullable=False),
    Column("request_id", String, nullable=False),
    Index("ix_refusals_newest", "mode", "account", "id"),
)
