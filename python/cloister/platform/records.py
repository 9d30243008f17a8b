"""Records of the registry, as other parts of the platform read them within a transaction."""

import dataclasses
import re
import secrets
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from cloister.errors import ConfigError
from cloister.platform.tables import Activity, App, Deployment, Enclave, EnclaveSigner
from cloister.platform.trust_class import TrustClass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveRecord:
    """A registered enclave, as the owner sees it."""

    uuid: UUID
    name: str
    app_uuid: UUID
    team_uuid: UUID
    trust_class: TrustClass
    accepts_debug: bool
    bundle_version: int
    max_boots: int | None
    signers: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """A registered image: which registers it has."""

    id: str
    enclave_uuid: UUID
    pcrs: Mapping[int, bytes]
    active: bool
    created_ms: int
    until_ms: int | None

    def is_active(self, now_ms: int) -> bool:
        """Whether secrets are released to it: neither ended nor past its time."""
        return self.active and (self.until_ms is None or now_ms < self.until_ms)


def read_enclave(session: Session, uuid: UUID) -> EnclaveRecord | None:
    """A registered enclave with its team and signers, within a transaction."""
    found = session.execute(
        select(Enclave, App.team_uuid)
        .join(App, App.uuid == Enclave.app_uuid)
        .where(Enclave.uuid == uuid)
    ).one_or_none()
    if found is None:
        return None
    row, team_uuid = found
    signers = session.scalars(
        select(EnclaveSigner.pcr8).where(EnclaveSigner.enclave_uuid == uuid)
    ).all()
    return EnclaveRecord(
        uuid=row.uuid,
        name=row.name,
        app_uuid=row.app_uuid,
        team_uuid=team_uuid,
        trust_class=TrustClass(row.trust_class),
        accepts_debug=row.accepts_debug,
        bundle_version=row.bundle_version,
        max_boots=row.max_boots,
        signers=tuple(signers),
    )


def read_deployments(session: Session, enclave_uuid: UUID) -> list[DeploymentRecord]:
    """Every deployment of an enclave, oldest first, within a transaction."""
    rows = session.scalars(
        select(Deployment)
        .where(Deployment.enclave_uuid == enclave_uuid)
        .order_by(Deployment.created_ms, Deployment.id)
    )
    return [
        DeploymentRecord(
            id=row.id,
            enclave_uuid=row.enclave_uuid,
            pcrs={int(index): bytes.fromhex(value) for index, value in row.pcrs.items()},
            active=row.active,
            created_ms=row.created_ms,
            until_ms=row.until_ms,
        )
        for row in rows
    ]


def bump_versions(
    session: Session, *, app_uuid: UUID | None = None, enclave_uuid: UUID | None = None
) -> None:
    """Raises the bundle version of every enclave of an app, or of one enclave."""
    if (app_uuid is None) == (enclave_uuid is None):
        raise TypeError("exactly one of app_uuid and enclave_uuid is needed")
    which = Enclave.app_uuid == app_uuid if app_uuid is not None else Enclave.uuid == enclave_uuid
    session.execute(update(Enclave).where(which).values(bundle_version=Enclave.bundle_version + 1))


def record_activity(session: Session, at_ms: int, kind: str, subject: str, message: str) -> None:
    """Writes down what changed, in the transaction that changes it."""
    session.add(Activity(at_ms=at_ms, kind=kind, subject=subject, message=message))


def check_room(session: Session, query: Select[Any], limit: int, what: str) -> None:
    """Whether there may be another of what ``query`` finds.

    Raises:
        ConfigError: There are ``limit`` of them.
    """
    count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    if count >= limit:
        raise ConfigError(f"there are {count} {what}, the most that a platform has")


def fresh_uuid() -> UUID:
    """A random uuid (RFC 9562, version 4)."""
    return UUID(bytes=secrets.token_bytes(16), version=4)


def checked_name(name: str) -> str:
    """A name as ``enclave.toml`` takes it.

    Raises:
        ConfigError: Not a DNS label of lower-case letters, digits and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise ConfigError(
            f"the name {name[:80]!a} is not a DNS label: expected 1 to 63 lower-case letters,"
            " digits and hyphens"
        )
    return name


def checked_register(index: int, value: bytes) -> bytes:
    """A PCR value.

    Raises:
        ConfigError: Not 48 bytes long.
    """
    if len(value) != PCR_BYTES:
        raise ConfigError(f"PCR{index} is {len(value)} bytes long, expected {PCR_BYTES}")
    return value


PCR_BYTES = 48  # SHA-384, the only digest the NSM uses (nsm-api, attestation_process.md 3.2.2.2)
