"""Runtime configuration by versions, clients' preferences, and the variant and kind of an order"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

VERSIONS = "config_versions"


def upgrade() -> None:
    op.create_table(
        VERSIONS,
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("mode", "account", "version", name=f"pk_{VERSIONS}"),
    )
    _append_only()
    op.create_table(
        "preferences",
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client", name="pk_preferences"),
    )
    op.add_column("orders", sa.Column("kind", sa.String(), nullable=False, server_default="MARKET"))
    op.add_column("orders", sa.Column("limit_price", column_types.Exact(), nullable=True))
    op.add_column("orders", sa.Column("variant", sa.String(), nullable=False, server_default=""))
    tried = sa.text("variant <> ''")
    op.create_index(
        "ix_orders_variant",
        "orders",
        ["mode", "account", "variant"],
        postgresql_where=tried,
        sqlite_where=tried,
    )


def _append_only() -> None:
    """Who changed a limit is evidence: the database itself refuses to change or delete it."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {VERSIONS}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {VERSIONS} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {VERSIONS}_no_{verb.lower()} BEFORE {verb} ON {VERSIONS} "
            f"BEGIN SELECT RAISE(ABORT, '{VERSIONS} is append-only'); END"
        )


def downgrade() -> None:
    op.drop_index("ix_orders_variant", "orders")
    for name in ("variant", "limit_price", "kind"):
        op.drop_column("orders", name)
    op.drop_table("preferences")
    op.drop_table(VERSIONS)
