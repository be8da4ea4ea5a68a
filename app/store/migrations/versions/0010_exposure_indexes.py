"""What an entry adds up from indexes alone, and a contract's orders without those that never left: no slower with the years"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FILLED = sa.text("filled_quantity > 0")
LEFT = sa.text("status NOT IN ('DENIED','NOT_SENT')")
PLACE = ["mode", "account", "client", "ticker", "product"]
WORTH = ["side", "lot", "filled_quantity", "fill_price", "ltp"]


def upgrade() -> None:
    for name in ("contract", "filled"):
        op.drop_index(f"ix_orders_{name}", "orders")
    _index("filled", [*PLACE, "ist_date", "side", "filled_quantity"], FILLED)
    _index("held", ["mode", "account", "session_end", "ticker", "product", "id", *WORTH], FILLED)
    _index("contract", ["mode", "account", "ticker", "created_at", "id"], LEFT)


def downgrade() -> None:
    for name in ("contract", "held", "filled"):
        op.drop_index(f"ix_orders_{name}", "orders")
    _index("filled", ["mode", "account", "client"], FILLED)
    op.create_index("ix_orders_contract", "orders", ["mode", "account", "ticker", "product"])


def _index(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(f"ix_orders_{name}", "orders", columns, postgresql_where=where, sqlite_where=where)
