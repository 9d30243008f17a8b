"""Sealed objects, as the platform sees them: a secret for each enclave, and heads.

The objects themselves are at hosts, sealed, and never come here. What comes here is which of them
is the current one, so that a host that gives back an older one is noticed (wire.md, section 3,
"Sealed objects"). It comes through that host: what counts is the proof that an enclave of the image
made.

The secret is the enclave's own: debug, development and production enclaves have different uuids and
so nothing that opens each other's objects (T-23).
"""

import re
import secrets
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from cloister._native import sealing
from cloister.errors import InputError, ReleaseRefused, StoreError
from cloister.platform.records import bump_versions
from cloister.platform.tables import Boot, Deployment, ObjectHead, SealingSecretRow
from cloister.platform.vault import Vault


def secret(session: Session, vault: Vault, enclave_uuid: UUID, *, now_ms: int) -> bytes:
    """The enclave's sealing secret, made when there is none; within a write transaction."""
    row = session.get(SealingSecretRow, enclave_uuid)
    place = f"sealing_secrets/{enclave_uuid}/secret"
    if row is not None:
        return vault.open(row.secret_sealed, place=place)
    made = secrets.token_bytes(SECRET_BYTES)
    session.add(
        SealingSecretRow(
            enclave_uuid=enclave_uuid,
            secret_sealed=vault.seal(made, place=place),
            created_ms=now_ms,
        )
    )
    return made


def heads(session: Session, boot: Boot) -> list[tuple[str, int, bytes]]:
    """Name, version and SHA-256 of what is current for the image of a boot."""
    rows = session.scalars(
        select(ObjectHead)
        .where(
            ObjectHead.enclave_uuid == boot.enclave_uuid,
            _is_of(sealing.object_scope(*_image(session, boot))),
        )
        .order_by(ObjectHead.name)
    )
    return [(row.name, row.version, row.sha256) for row in rows]


def record(  # noqa: PLR0913 - the parts of one head
    session: Session,
    vault: Vault,
    boot: Boot,
    *,
    name: str,
    version: int,
    sha256: bytes,
    proof: bytes,
    now_ms: int,
) -> bool:
    """Takes note that an object is the current one of its name, within a write transaction.

    A version only grows; the same head again is taken again. What is recorded reaches every enclave
    of this uuid in its next bundle.

    Returns:
        Whether it is recorded; ``False``: another one is, as new or newer.

    Raises:
        InputError: ``name``, ``version`` or ``sha256`` cannot be one.
        ReleaseRefused: The proof is not that of an enclave of the boot's image, the name is of
            another image, or the image has :data:`MAX_HEADS`.
    """
    if not _NAME.fullmatch(name) or not 0 < version < 1 << 63 or len(sha256) != SHA256_BYTES:
        raise InputError("the name, version or digest of a sealed object is out of its bounds")
    image = _image(session, boot)
    try:
        sealing.verify_object_head(
            sealing_secret=secret(session, vault, boot.enclave_uuid, now_ms=now_ms),
            image=image,
            enclave=str(boot.enclave_uuid),
            name=name,
            version=version,
            sha256=sha256,
            proof=proof,
        )
    except ValueError as problem:
        raise ReleaseRefused(f"the object's head is refused: {problem}") from problem
    scope = sealing.object_scope(*image)
    if name.rpartition(".")[2] not in {scope, SHARED_SCOPE}:
        raise ReleaseRefused("the object's head is refused: its name is of another image")
    row = session.get(ObjectHead, (boot.enclave_uuid, name))
    if row is not None:
        if row.version == version and row.sha256 == sha256:
            return True
        if row.version >= version:
            return False
    else:
        known = session.scalars(
            select(func.count())
            .select_from(ObjectHead)
            .where(ObjectHead.enclave_uuid == boot.enclave_uuid, _is_of(scope))
        ).one()
        if known >= MAX_HEADS:
            raise ReleaseRefused(f"the image has {known} sealed objects, the most it can have")
        row = ObjectHead(enclave_uuid=boot.enclave_uuid, name=name)
        session.add(row)
    row.version, row.sha256, row.recorded_ms = version, sha256, now_ms
    bump_versions(session, enclave_uuid=boot.enclave_uuid)
    return True


def _is_of(scope: str) -> ColumnElement[bool]:
    return ObjectHead.name.endswith(f".{scope}", autoescape=True) | ObjectHead.name.endswith(
        f".{SHARED_SCOPE}", autoescape=True
    )


def _image(session: Session, boot: Boot) -> tuple[bytes, bytes, bytes]:
    """PCR0, PCR1 and PCR2 of the deployment that a boot was released to as."""
    deployment = session.get(Deployment, boot.deployment_id)
    registers: Mapping[str, str] = {} if deployment is None else deployment.pcrs
    try:
        return (
            bytes.fromhex(registers["0"]),
            bytes.fromhex(registers["1"]),
            bytes.fromhex(registers["2"]),
        )
    except KeyError:
        raise StoreError("a deployment of this store lacks PCR0, PCR1 or PCR2") from None


SECRET_BYTES = 32
SHA256_BYTES = 32
MAX_HEADS = 64  # of one image and of those that share, together; a bundle takes 256
SHARED_SCOPE = "shared"  # rust/sealing object.rs SHARED_SCOPE
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\.([0-9a-f]{32}|shared)")
