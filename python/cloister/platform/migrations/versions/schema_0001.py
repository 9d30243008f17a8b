"""Schema 1: the store of local runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes every table of schema 1."""
    _identities()
    _keys()
    _enclaves()
    _releases()


def _identities() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("schema_version", sa.BigInteger(), nullable=False),
        sa.Column("trust_class", sa.String(16), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("key_check_sealed", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "teams",
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uuid"),
    )
    op.create_table(
        "apps",
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("team_uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team_uuid"], ["teams.uuid"]),
        sa.PrimaryKeyConstraint("uuid"),
    )


def _keys() -> None:
    op.create_table(
        "app_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("app_uuid", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("curve", sa.String(16), nullable=False),
        sa.Column("public", sa.LargeBinary(33), nullable=False),
        sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["app_uuid"], ["apps.uuid"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("app_uuid", "position"),
    )
    op.create_table(
        "service_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("team_uuid", sa.Uuid(), nullable=False),
        sa.Column("public", sa.LargeBinary(32), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("retired_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["team_uuid"], ["teams.uuid"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("app_uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("not_after_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["app_uuid"], ["apps.uuid"]),
        sa.PrimaryKeyConstraint("id"),
    )


def _enclaves() -> None:
    op.create_table(
        "enclaves",
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("app_uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("trust_class", sa.String(16), nullable=False),
        sa.Column("accepts_debug", sa.Boolean(), nullable=False),
        sa.Column("bundle_version", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("trust_class IN ('production','debug','development')"),
        sa.ForeignKeyConstraint(["app_uuid"], ["apps.uuid"]),
        sa.PrimaryKeyConstraint("uuid"),
    )
    op.create_table(
        "enclave_signers",
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("pcr8", sa.LargeBinary(48), nullable=False),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("enclave_uuid", "pcr8"),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("pcrs", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deployments_by_enclave", "deployments", ["enclave_uuid", "active"])
    op.create_table(
        "variables",
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("value_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.Boolean(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("enclave_uuid", "name"),
    )


def _releases() -> None:
    op.create_table(
        "challenges",
        sa.Column("value", sa.LargeBinary(32), nullable=False),
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("value"),
    )
    op.create_table(
        "boots",
        sa.Column("enclave_uuid", sa.Uuid(), nullable=False),
        sa.Column("boot_key", sa.LargeBinary(32), nullable=False),
        sa.Column("deployment_id", sa.String(32), nullable=False),
        sa.Column("challenge", sa.LargeBinary(32), nullable=False),
        sa.Column("pcr0", sa.LargeBinary(48), nullable=False),
        sa.Column("module_id", sa.String(128), nullable=False),
        sa.Column("released_ms", sa.BigInteger(), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"]),
        sa.ForeignKeyConstraint(["enclave_uuid"], ["enclaves.uuid"]),
        sa.PrimaryKeyConstraint("enclave_uuid", "boot_key"),
    )
    op.create_table(
        "releases",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("enclave_uuid", sa.Uuid(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(512), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=True),
        sa.Column("bundle_version", sa.BigInteger(), nullable=True),
        sa.Column("boot_key", sa.LargeBinary(), nullable=True),
        sa.Column("module_id", sa.String(128), nullable=True),
        sa.Column("pcrs", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("releases_by_enclave", "releases", ["enclave_uuid", "at_ms"])
    op.create_table(
        "activity",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("message", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
