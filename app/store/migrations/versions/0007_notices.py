"""Notices and their deliveries, heartbeats, runs of jobs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = column_types.UtcTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("page", sa.Boolean(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("spread_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.UniqueConstraint("key", name="uq_notices_key"),
    )
    op.create_index("ix_notices_subject", "notices", ["subject", "code"])
    new = sa.text("spread_at IS NULL")
    op.create_index("ix_notices_new", "notices", ["id"], postgresql_where=new, sqlite_where=new)
    op.create_table(
        "deliveries",
        sa.Column("notice_id", BIG_ID, nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ref", sa.String()),
        sa.Column("owner", sa.String()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["notice_id"], ["notices.id"], name="fk_deliveries_notice_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("notice_id", "channel", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_channel", "deliveries", ["channel", "state"])
    op.create_index("ix_deliveries_ref", "deliveries", ["ref"])
    op.create_table(
        "told_orders",
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_told_orders_order_id"),
        sa.PrimaryKeyConstraint("order_id", name="pk_told_orders"),
    )
    # What happened before there was an outbox is not told: nobody wants last month's fills.
    op.execute("INSERT INTO told_orders (order_id, sequence) SELECT id, event_count FROM orders")
    op.create_table(
        "told_up_to",
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("mode", "account", name="pk_told_up_to"),
    )
    op.create_table(
        "heartbeats",
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("every_seconds", sa.Integer(), nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("missing_since", TIME),
        sa.PrimaryKeyConstraint("mode", "account", "client", "strategy", name="pk_heartbeats"),
    )
    op.create_table(
        "job_runs",
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("slot_at", TIME),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("ok", sa.Boolean()),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("last_success_at", TIME),
        sa.PrimaryKeyConstraint("mode", "account", "name", "host", name="pk_job_runs"),
    )


def downgrade() -> None:
    for table in ("job_runs", "heartbeats", "told_up_to", "told_orders", "deliveries", "notices"):
        op.drop_table(table)
