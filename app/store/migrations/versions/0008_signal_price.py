"""The chart's price that an alert came with"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("signal_price", column_types.Exact(), nullable=True))


def downgrade() -> None:
    op.drop_column("orders", "signal_price")
