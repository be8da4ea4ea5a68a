"""API clients, their tokens, and the ids of signed messages"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.store import column_types

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_clients",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("max_lots", sa.Integer(), nullable=True),
        sa.Column("symbols", sa.String(), nullable=True),
        sa.Column("networks", sa.String(), nullable=False),
        sa.Column("expires_at", column_types.UtcTime(timezone=True), nullable=True),
        sa.Column("created_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("revoked_at", column_types.UtcTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_api_clients"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("created_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.Column("ends_at", column_types.UtcTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["client"], ["api_clients.name"], name="fk_api_tokens_client"),
        sa.PrimaryKeyConstraint("digest", name="pk_api_tokens"),
    )
    op.create_index("ix_api_tokens_client", "api_tokens", ["client"])
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("expires_at", column_types.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_messages"),
    )
    op.create_index("ix_webhook_messages_expires_at", "webhook_messages", ["expires_at"])


def downgrade() -> None:
    op.drop_table("webhook_messages")
    op.drop_table("api_tokens")
    op.drop_table("api_clients")
