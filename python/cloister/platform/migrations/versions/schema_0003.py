"""Schema 3: sealed objects: what their keys are made from, and which of them are current."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds what schema 2 lacks; nothing that is there is changed."""
    op.create_table(
        "sealing_secrets",
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("enclave_uuid"),
    )
    op.create_table(
        "object_heads",
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("recorded_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("enclave_uuid", "name"),
    )
