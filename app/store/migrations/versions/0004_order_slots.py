"""Slots of the order budget: as many as entries may be sent in one second"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "order_slots",
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("used_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("mode", "account", "slot", name="pk_order_slots"),
    )


def downgrade() -> None:
    op.drop_table("order_slots")
