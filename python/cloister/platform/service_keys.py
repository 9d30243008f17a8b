"""The Ed25519 pairs of a team that sign bundles, and their rotation.

The oldest in use signs. A key that is added is measured into the images that are built from then
on, and takes over when the one before it is retired
(:func:`cloister.platform.bundle.signing_seed`).
"""

import secrets
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform.records import bump_versions, check_room, record_activity
from cloister.platform.tables import App, ServiceKeyRow
from cloister.platform.vault import Vault


def add(session: Session, vault: Vault, team_uuid: UUID, *, now_ms: int) -> bytes:
    """Adds a key within a write transaction, and returns its public half.

    Raises:
        ConfigError: There are :data:`MAX_IN_USE`.
    """
    in_use = select(ServiceKeyRow.id).where(
        ServiceKeyRow.team_uuid == team_uuid, ServiceKeyRow.retired_ms.is_(None)
    )
    check_room(session, in_use, MAX_IN_USE, "service keys in use")
    private = ed25519.Ed25519PrivateKey.generate()
    key_id = f"svc_{secrets.token_hex(8)}"
    row = ServiceKeyRow(
        id=key_id,
        team_uuid=team_uuid,
        public=private.public_key().public_bytes_raw(),
        seed_sealed=vault.seal(private.private_bytes_raw(), place=f"service_keys/{key_id}/seed"),
        created_ms=now_ms,
    )
    session.add(row)
    record_activity(session, now_ms, "service-key.add", key_id, "service key added")
    return row.public


def retire(session: Session, public: bytes, *, now_ms: int) -> None:
    """Ends a key within a write transaction: the next one signs.

    Raises:
        ConfigError: It is the only one in use.
        MissingInput: There is no such key in use.
    """
    row = session.scalars(
        select(ServiceKeyRow).where(
            ServiceKeyRow.public == public, ServiceKeyRow.retired_ms.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise MissingInput("there is no service key in use with this public half")
    in_use = select(func.count()).where(
        ServiceKeyRow.team_uuid == row.team_uuid, ServiceKeyRow.retired_ms.is_(None)
    )
    if session.scalar(in_use) == 1:
        raise ConfigError(
            "it is the only service key in use",
            hint="add the next one, and build and deploy images that know it, first",
        )
    row.retired_ms = now_ms
    # Bundles are signed anew: every enclave is told.
    for app_uuid in session.scalars(select(App.uuid).where(App.team_uuid == row.team_uuid)):
        bump_versions(session, app_uuid=app_uuid)
    record_activity(session, now_ms, "service-key.retire", row.id, "service key retired")


def public_halves(session: Session, team_uuid: UUID) -> list[bytes]:
    """Public halves of the keys in use, oldest first."""
    rows = session.scalars(
        select(ServiceKeyRow.public)
        .where(ServiceKeyRow.team_uuid == team_uuid, ServiceKeyRow.retired_ms.is_(None))
        .order_by(ServiceKeyRow.created_ms, ServiceKeyRow.id)
    )
    return list(rows)


MAX_IN_USE = 3  # what an image can trust (wire.md §3)
