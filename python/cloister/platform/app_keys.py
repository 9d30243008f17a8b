"""Key pairs of an app: what data is encrypted to, and what opens it inside its enclaves.

New data is encrypted to the newest pair of P-256. Pairs of secp256k1 are for reading what was
encrypted to such a key before. Private halves are sealed in the store and leave it in bundles.
"""

import dataclasses
import secrets
from typing import Literal
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError
from cloister.platform.records import record_activity
from cloister.platform.tables import AppKey
from cloister.platform.vault import Vault

Curve = Literal["P-256", "secp256k1"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublicPair:
    """What may be shown of a pair. ``public`` is compressed (SEC 1, 33 bytes)."""

    id: str
    curve: str
    public: bytes
    created_ms: int


def add(  # noqa: PLR0913 - the columns of a row, named at the call
    session: Session,
    vault: Vault,
    app_uuid: UUID,
    *,
    now_ms: int,
    curve: Curve = "P-256",
    private: bytes | None = None,
) -> AppKey:
    """Adds a pair within a write transaction; the caller raises versions where enclaves exist.

    Raises:
        ConfigError: ``private`` is not a private half of this curve, or there are
            :data:`MAX_PAIRS` of it.
    """
    grouped = session.execute(
        select(AppKey.curve, func.count()).where(AppKey.app_uuid == app_uuid).group_by(AppKey.curve)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in grouped}
    if counts.get(curve, 0) >= MAX_PAIRS:
        raise ConfigError(
            f"the app has {counts[curve]} key pairs of {curve}, expected at most {MAX_PAIRS}"
        )
    pair = _pair(curve, private)
    key_id = f"key_{secrets.token_hex(8)}"
    row = AppKey(
        id=key_id,
        app_uuid=app_uuid,
        position=sum(counts.values()),
        curve=curve,
        public=pair.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        ),
        private_sealed=vault.seal(
            pair.private_numbers().private_value.to_bytes(PRIVATE_BYTES, "big"),
            place=f"app_keys/{key_id}/private",
        ),
        created_ms=now_ms,
    )
    session.add(row)
    record_activity(session, now_ms, "app-key.add", key_id, f"app key pair of {curve} added")
    return row


def newest(session: Session, app_uuid: UUID) -> AppKey | None:
    """The pair to encrypt to: the newest of P-256."""
    return session.scalars(
        select(AppKey)
        .where(AppKey.app_uuid == app_uuid, AppKey.curve == "P-256")
        .order_by(AppKey.position.desc())
        .limit(1)
    ).one_or_none()


def public_pairs(session: Session, app_uuid: UUID) -> list[PublicPair]:
    """What may be shown of every pair of an app, oldest first."""
    rows = session.scalars(
        select(AppKey).where(AppKey.app_uuid == app_uuid).order_by(AppKey.position)
    )
    return [
        PublicPair(id=row.id, curve=row.curve, public=row.public, created_ms=row.created_ms)
        for row in rows
    ]


def _pair(curve: Curve, private: bytes | None) -> ec.EllipticCurvePrivateKey:
    shape: ec.EllipticCurve = ec.SECP256R1() if curve == "P-256" else ec.SECP256K1()
    if private is None:
        return ec.generate_private_key(shape)
    if len(private) != PRIVATE_BYTES:
        raise ConfigError(
            f"the private half is {len(private)} bytes long, expected {PRIVATE_BYTES}"
        )
    try:
        return ec.derive_private_key(int.from_bytes(private, "big"), shape)
    except ValueError:
        raise ConfigError(f"the private half is not one of {curve}: it is out of range") from None


MAX_PAIRS = 4  # of each curve: an enclave tries each of them for a ciphertext (data-plane.md §4)
PRIVATE_BYTES = 32
