"""Seals over the orders' chains; the database itself refuses to change what was said"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

APPEND_ONLY = {
    "order_events": "order_id = NEW.order_id AND sequence = NEW.sequence",
    "audit_seals": "number = NEW.number",
    "audit_seal_heads": "(seal = NEW.seal AND place = NEW.place) "
    "OR (order_id = NEW.order_id AND event_count = NEW.event_count)",
    "orders": "id = NEW.id OR tag = NEW.tag",
    "trading_state_history": "id = NEW.id",
    "config_versions": "mode = NEW.mode AND account = NEW.account AND version = NEW.version",
}
"""And which row an INSERT OR REPLACE of SQLite would silently delete, past any trigger on DELETE."""
HAVE_TRIGGERS = ("trading_state_history", "config_versions")
VERBS: dict[str, tuple[str, ...]] = {"orders": ("DELETE",), **dict.fromkeys(HAVE_TRIGGERS, ())}


def upgrade() -> None:
    op.create_table(
        "audit_seals",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("prev_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_seals"),
    )
    op.create_table(
        "audit_seal_heads",
        sa.Column("seal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.Column("head_hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seal", "place", name="pk_audit_seal_heads"),
    )
    op.create_index(
        "ix_audit_seal_heads_order", "audit_seal_heads", ["order_id", "event_count"], unique=True
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in ("order_events", "audit_seals", "audit_seal_heads"):
            _refuse_on_postgres(table, "UPDATE OR DELETE OR TRUNCATE")
        _refuse_on_postgres("orders", "DELETE OR TRUNCATE")
        return
    for table, same in APPEND_ONLY.items():
        verbs = VERBS.get(table, ("UPDATE", "DELETE"))
        for verb in verbs:
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} has this row already'); END"
        )


def _refuse_on_postgres(table: str, verbs: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE {verbs} ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if postgres:
        for table in ("order_events", "orders"):
            op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
    else:
        for name in ("order_events_no_update", "order_events_no_delete", "orders_no_delete"):
            op.execute(f"DROP TRIGGER {name}")
        for table in ("order_events", "orders", *HAVE_TRIGGERS):
            op.execute(f"DROP TRIGGER {table}_no_replace")
    op.drop_table("audit_seal_heads")
    op.drop_table("audit_seals")
