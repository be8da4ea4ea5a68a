"""At which price a holding was closed outside our orders"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("holding_adjustments", sa.Column("price", column_types.Exact(), nullable=True))


def downgrade() -> None:
    op.drop_column("holding_adjustments", "price")
