"""The indexes of orders begin with what tells rows apart: without statistics Postgres took the day's for any look-up"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OPEN = sa.text("status IN ('EXIT_PENDING','SENDING','IN_DOUBT','NEEDS_REVIEW','ACCEPTED','PARTIALLY_FILLED')")
FILLED = sa.text("filled_quantity > 0")
LEFT = sa.text("status NOT IN ('DENIED','NOT_SENT')")
AT_BROKER = sa.text("broker_order_id IS NOT NULL")
TRIED = sa.text("variant <> ''")
UNSENT = sa.text("status = 'NOT_SENT'")
EXIT = sa.text("purpose = 'exit'")
WORTH = "side lot filled_quantity fill_price ltp"
BEFORE = (
    ("newest", "mode account created_at id", None),
    ("day", "mode account ist_date created_at id", None),
    ("open", "mode account ticker side created_at id", OPEN),
    ("filled", "mode account client ticker product ist_date side filled_quantity", FILLED),
    ("held", f"mode account session_end ticker product id {WORTH}", FILLED),
    ("contract", "mode account ticker created_at id", LEFT),
    ("broker_id", "mode account broker_order_id", AT_BROKER),
    ("variant", "mode account variant", TRIED),
)
AFTER = (
    ("newest", "created_at id", None),
    ("day", "ist_date created_at id", None),
    ("open", "ticker purpose side created_at id", OPEN),
    ("filled", "client ticker product ist_date side filled_quantity mode account", FILLED),
    ("held", f"session_end ticker product id {WORTH} mode account", FILLED),
    ("contract", "ticker client side created_at id", LEFT),
    ("unsent", "ticker created_at", UNSENT),
    ("exits", "ticker created_at", EXIT),
    ("broker_id", "broker_order_id", AT_BROKER),
    ("variant", "variant", TRIED),
)


def upgrade() -> None:
    _replace(BEFORE, AFTER)


def downgrade() -> None:
    _replace(AFTER, BEFORE)


def _replace(
    old: tuple[tuple[str, str, sa.TextClause | None], ...],
    new: tuple[tuple[str, str, sa.TextClause | None], ...],
) -> None:
    for name, _, _ in old:
        op.drop_index(f"ix_orders_{name}", "orders")
    for name, columns, where in new:
        op.create_index(
            f"ix_orders_{name}", "orders", columns.split(), postgresql_where=where, sqlite_where=where
        )
