"""Schema 2: what the owner's server adds: tokens, events, limits, a master key in a KMS."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds what schema 1 lacks; nothing that is there is changed."""
    op.add_column("store", sa.Column("key_uri", sa.String(512), nullable=True))
    op.add_column("store", sa.Column("key_wrapped", sa.LargeBinary(), nullable=True))
    op.add_column("store", sa.Column("restored_ms", sa.BigInteger(), nullable=True))
    op.add_column("enclaves", sa.Column("max_boots", sa.BigInteger(), nullable=True))
    op.add_column("deployments", sa.Column("until_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("not_after_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_table(
        "enclave_events",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("message", sa.String(512), nullable=False),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("enclave_events_by_enclave", "enclave_events", ["enclave_uuid", "id"])
