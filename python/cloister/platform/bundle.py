"""What one boot of one enclave is given, put together from the store and sealed at once.

The bundle in clear exists only between :func:`assemble` and :func:`seal`, inside the platform; no
public call returns it. Its form and its cryptography are in Rust (`rust/sealing`).
"""

import dataclasses
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloister._native import sealing
from cloister.errors import StoreError
from cloister.platform import api_keys, sealed_objects, variables
from cloister.platform.records import EnclaveRecord
from cloister.platform.tables import AppKey, Boot, Deployment, ServiceKeyRow
from cloister.platform.vault import Vault


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenAppKey:
    """A private half, on its way into a bundle."""

    id: str
    curve: str
    private: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle in clear (wire.md, section 3). Times are milliseconds since the Unix epoch."""

    enclave: UUID
    deployment: str
    version: int
    challenge: bytes
    pcr0: bytes
    issued_at: int
    not_after: int
    app_keys: list[OpenAppKey] = dataclasses.field(repr=False)
    api_keys: list[api_keys.Verifier]
    env: list[variables.OpenVariable] = dataclasses.field(repr=False)
    objects: list[tuple[str, int, bytes]]
    sealing_secret: bytes = dataclasses.field(repr=False)
    team: str
    app: str
    name: str


def assemble(
    session: Session, vault: Vault, enclave: EnclaveRecord, boot: Boot, *, now_ms: int
) -> Bundle:
    """Puts together what this boot is given now, within a write transaction.

    It ends with its deployment, when that ends before.
    """
    return Bundle(
        enclave=enclave.uuid,
        deployment=boot.deployment_id,
        version=enclave.bundle_version,
        challenge=boot.challenge,
        pcr0=boot.pcr0,
        issued_at=now_ms,
        not_after=_end_ms(session, boot, now_ms),
        app_keys=_app_keys(session, vault, enclave.app_uuid),
        api_keys=api_keys.verifiers(session, enclave.app_uuid, now_ms),
        env=variables.open_all(session, vault, enclave.uuid),
        objects=sealed_objects.heads(session, boot),
        sealing_secret=sealed_objects.secret(session, vault, enclave.uuid, now_ms=now_ms),
        team=str(enclave.team_uuid),
        app=str(enclave.app_uuid),
        name=enclave.name,
    )


def note_issue(session: Session, boot: Boot, *, now_ms: int) -> None:
    """Notes in a boot's row that it is given a bundle, so that it says when its last one ends.

    A bundle that ends sooner than one before, because its deployment's end was brought forward,
    takes nothing back: whoever holds the one before may go on with it.
    """
    begin_ms = _end_ms(session, boot, now_ms) - BUNDLE_LIFE_MS
    # One after now is of a clock that was set back since: renewals would wait for it.
    before_ms = boot.issued_ms if boot.issued_ms <= now_ms else begin_ms
    boot.issued_ms = max(before_ms, begin_ms)


def is_due(
    session: Session, enclave: EnclaveRecord, boot: Boot, *, after: int, now_ms: int
) -> bool:
    """Whether a boot whose bundle has version ``after`` needs another one.

    It does for a newer version, and when half of the life of its bundle has passed, unless its
    deployment ends before another one could last longer.
    """
    is_half_over = now_ms - boot.issued_ms >= BUNDLE_LIFE_MS // 2
    lasts_longer = _end_ms(session, boot, now_ms) > boot.issued_ms + BUNDLE_LIFE_MS
    return enclave.bundle_version > after or (is_half_over and lasts_longer)


def seal(bundle: Bundle, service_seed: bytes, recipient: bytes) -> bytes:
    """Signs with the service key and seals to the X25519 key ``recipient``, in Rust.

    Raises:
        StoreError: It is larger than an enclave takes, or the boot's key is not a point that can
            be sealed to.
    """
    try:
        return sealing.seal_bundle(
            service_seed=service_seed,
            recipient=recipient,
            enclave=str(bundle.enclave),
            deployment=bundle.deployment,
            version=bundle.version,
            challenge=bundle.challenge,
            pcr0=bundle.pcr0,
            issued_at=bundle.issued_at,
            not_after=bundle.not_after,
            app_keys=[(key.id, key.curve, key.private) for key in bundle.app_keys],
            api_keys=[
                (key.id, key.name, key.sha256, list(key.scopes), key.not_after_ms)
                for key in bundle.api_keys
            ],
            env=[(variable.name, variable.value, variable.secret) for variable in bundle.env],
            objects=bundle.objects,
            sealing_secret=bundle.sealing_secret,
            identity=(bundle.team, bundle.app, bundle.name),
        )
    except ValueError as problem:
        raise StoreError(f"the bundle cannot be sealed: {problem}") from problem


def signing_seed(session: Session, vault: Vault, team_uuid: UUID) -> bytes:
    """Seed of the service key that signs: the oldest in use.

    A key that is added is measured into the next images first, and takes over when the one before
    it is retired; the oldest is the one that every running image knows.

    Raises:
        StoreError: The team has no service key in use.
    """
    row = session.scalars(
        select(ServiceKeyRow)
        .where(ServiceKeyRow.team_uuid == team_uuid, ServiceKeyRow.retired_ms.is_(None))
        .order_by(ServiceKeyRow.created_ms, ServiceKeyRow.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        raise StoreError("the team has no service key to sign bundles with")
    return vault.open(row.seed_sealed, place=f"service_keys/{row.id}/seed")


def _end_ms(session: Session, boot: Boot, now_ms: int) -> int:
    """When a bundle ends that this boot is given now."""
    deployment = session.get(Deployment, boot.deployment_id)
    until_ms = None if deployment is None else deployment.until_ms
    end_ms = now_ms + BUNDLE_LIFE_MS
    return end_ms if until_ms is None else min(end_ms, until_ms)


def _app_keys(session: Session, vault: Vault, app_uuid: UUID) -> list[OpenAppKey]:
    rows = session.scalars(
        select(AppKey).where(AppKey.app_uuid == app_uuid).order_by(AppKey.position)
    )
    return [
        OpenAppKey(
            id=row.id,
            curve=row.curve,
            private=vault.open(row.private_sealed, place=f"app_keys/{row.id}/private"),
        )
        for row in rows
    ]


BUNDLE_LIFE_MS = 15 * 60 * 1000  # how long a host can delay a revocation (wire.md §3, T-08)
