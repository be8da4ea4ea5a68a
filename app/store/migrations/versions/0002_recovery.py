"""what recovery and control need"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

HISTORY = "trading_state_history"


def _scope() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("mode", sa.String(), nullable=False), sa.Column("account", sa.String(), nullable=False)


def _open_index(*columns: str) -> None:
    is_open = sa.text(
        "status IN ('EXIT_PENDING','SENDING','IN_DOUBT','NEEDS_REVIEW','ACCEPTED','PARTIALLY_FILLED')"
    )
    op.drop_index("ix_orders_open", "orders")
    op.create_index(
        "ix_orders_open",
        "orders",
        ["mode", "account", *columns],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )


def upgrade() -> None:
    op.add_column("orders", sa.Column("filled_at", column_types.UtcTime(timezone=True), nullable=True))
    op.create_index("ix_orders_day", "orders", ["mode", "account", "ist_date", "created_at", "id"])
    at_broker = sa.text("broker_order_id IS NOT NULL")
    op.create_index(
        "ix_orders_broker_id",
        "orders",
        ["mode", "account", "broker_order_id"],
        postgresql_where=at_broker,
        sqlite_where=at_broker,
    )
    _open_index("ticker", "side", "created_at", "id")  # an entry asks for one contract's open orders
    op.add_column(
        "cap_reservations", sa.Column("returned", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute("UPDATE cap_reservations SET returned = amount WHERE released_at IS NOT NULL")
    op.add_column("trading_state", sa.Column("changed_by", sa.String(), nullable=False, server_default=""))
    op.create_table(
        HISTORY,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *_scope(),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{HISTORY}"),
    )
    op.create_index("ix_trading_state_history_newest", HISTORY, ["mode", "account", "id"])
    op.execute(
        f"INSERT INTO {HISTORY} (mode, account, state, changed_by, reason, changed_at) "
        "SELECT mode, account, state, changed_by, reason, changed_at FROM trading_state"
    )
    _append_only()
    op.create_table(
        "absences",
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reads", sa.Integer(), nullable=False),
        sa.Column("first_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("last_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_absences_order_id"),
        sa.PrimaryKeyConstraint("order_id", "attempt", name="pk_absences"),
    )
    op.create_table(
        "strangers",
        *_scope(),
        sa.Column("broker_order_id", sa.String(), nullable=False),
        sa.Column("ticker", sa.String(), nullable=False),
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("product", sa.String(), nullable=False),
        sa.Column("tag", sa.String(), nullable=True),
        sa.Column("placed_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("seen_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("acknowledged_at", column_types.UtcTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("mode", "account", "broker_order_id", name="pk_strangers"),
    )
    op.create_table(
        "reconcile_passes",
        *_scope(),
        sa.Column("began_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("mode", "account", name="pk_reconcile_passes"),
    )


def _append_only() -> None:
    """Who halted and who resumed is evidence: the database itself refuses to change or delete it."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {HISTORY}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {HISTORY} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {HISTORY}_no_{verb.lower()} BEFORE {verb} ON {HISTORY} "
            f"BEGIN SELECT RAISE(ABORT, '{HISTORY} is append-only'); END"
        )


def downgrade() -> None:
    op.drop_table("reconcile_passes")
    op.drop_table("strangers")
    op.drop_table("absences")
    op.drop_table(HISTORY)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
    op.drop_column("trading_state", "changed_by")
    op.drop_column("cap_reservations", "returned")
    _open_index("created_at", "id")
    op.drop_index("ix_orders_broker_id", "orders")
    op.drop_index("ix_orders_day", "orders")
    op.drop_column("orders", "filled_at")
