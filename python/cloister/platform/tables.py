"""Tables of the platform's store.

Typed ORM, no behavior. SQLite and PostgreSQL hold them; nothing here is peculiar to one. What is
changed here needs a migration beside it (:mod:`cloister.platform.migrations`). Times are
milliseconds since the Unix epoch, digests and keys are raw bytes, and every column whose name ends
in ``_sealed`` holds a ciphertext of :mod:`cloister.platform.vault`. No column holds a private half,
a secret or an API key in clear.
"""

from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Only a column of type INTEGER numbers its rows by itself in SQLite (sqlite.org/autoinc.html).
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Metadata of every table."""

    type_annotation_map = {int: BigInteger}  # noqa: RUF012 - declared so by SQLAlchemy


class StoreRow(Base):
    """The store itself: one row."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint("id = 1"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    schema_version: Mapped[int]
    trust_class: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int]
    key_check_sealed: Mapped[bytes]
    key_uri: Mapped[str | None] = mapped_column(String(512))
    """Who unwraps the master key, ``kms://…``; none: it is in a file."""
    key_wrapped: Mapped[bytes | None]
    restored_ms: Mapped[int | None]


class Team(Base):
    """Who owns apps."""

    __tablename__ = "teams"

    uuid: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    created_ms: Mapped[int]


class App(Base):
    """What encryption keys and API keys belong to."""

    __tablename__ = "apps"

    uuid: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    team_uuid: Mapped[UUID] = mapped_column(ForeignKey("teams.uuid"))
    name: Mapped[str] = mapped_column(String(63))
    created_ms: Mapped[int]


class AppKey(Base):
    """A key pair that data is encrypted to. ``position`` orders them; the last is the newest."""

    __tablename__ = "app_keys"
    __table_args__ = (UniqueConstraint("app_uuid", "position"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_uuid: Mapped[UUID] = mapped_column(ForeignKey("apps.uuid"))
    position: Mapped[int]
    curve: Mapped[str] = mapped_column(String(16))
    public: Mapped[bytes] = mapped_column(LargeBinary(33))
    private_sealed: Mapped[bytes]
    created_ms: Mapped[int]


class ServiceKeyRow(Base):
    """An Ed25519 pair that signs bundles; its public half is measured into images."""

    __tablename__ = "service_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    team_uuid: Mapped[UUID] = mapped_column(ForeignKey("teams.uuid"))
    public: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    seed_sealed: Mapped[bytes]
    created_ms: Mapped[int]
    retired_ms: Mapped[int | None]


class Enclave(Base):
    """An enclave by name, with the trust anchor its documents must lead to."""

    __tablename__ = "enclaves"
    __table_args__ = (CheckConstraint("trust_class IN ('production','debug','development')"),)

    uuid: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    app_uuid: Mapped[UUID] = mapped_column(ForeignKey("apps.uuid"))
    name: Mapped[str] = mapped_column(String(63))
    trust_class: Mapped[str] = mapped_column(String(16))
    accepts_debug: Mapped[bool]
    bundle_version: Mapped[int]
    created_ms: Mapped[int]
    max_boots: Mapped[int | None]
    """Most boots that are released to at one time; any number, when absent."""


class EnclaveSigner(Base):
    """A signing certificate (PCR8) that images of an enclave must carry; none: any."""

    __tablename__ = "enclave_signers"

    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"), primary_key=True)
    pcr8: Mapped[bytes] = mapped_column(LargeBinary(48), primary_key=True)


class Deployment(Base):
    """One image of an enclave: the registers it must have, as ``{"0": hex, …}``."""

    __tablename__ = "deployments"
    __table_args__ = (Index("deployments_by_enclave", "enclave_uuid", "active"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"))
    pcrs: Mapped[dict[str, str]] = mapped_column(JSON)
    active: Mapped[bool]
    created_ms: Mapped[int]
    ended_ms: Mapped[int | None]
    until_ms: Mapped[int | None]
    """When it ends by itself."""


class ApiKey(Base):
    """An API key: the hash of it, never the key."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_uuid: Mapped[UUID] = mapped_column(ForeignKey("apps.uuid"))
    name: Mapped[str] = mapped_column(String(63))
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    not_after_ms: Mapped[int | None]
    created_ms: Mapped[int]
    revoked_ms: Mapped[int | None]


class Variable(Base):
    """An environment variable of an enclave's process. Its value is sealed, secret or not."""

    __tablename__ = "variables"

    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    value_sealed: Mapped[bytes]
    secret: Mapped[bool]
    updated_ms: Mapped[int]


class ChallengeRow(Base):
    """A challenge that was handed out: used once, bound to one enclave."""

    __tablename__ = "challenges"

    value: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"))
    issued_ms: Mapped[int]
    used_ms: Mapped[int | None]


class Boot(Base):
    """A boot of an enclave that was released to, known by its X25519 key."""

    __tablename__ = "boots"

    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"), primary_key=True)
    boot_key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"))
    challenge: Mapped[bytes] = mapped_column(LargeBinary(32))
    pcr0: Mapped[bytes] = mapped_column(LargeBinary(48))
    module_id: Mapped[str] = mapped_column(String(128))
    released_ms: Mapped[int]
    issued_ms: Mapped[int]
    """15 minutes before its last bundle ends: when it was issued, unless its deployment cuts it."""


class Release(Base):
    """A bundle that left the platform, or a request that was refused and why."""

    __tablename__ = "releases"
    __table_args__ = (Index("releases_by_enclave", "enclave_uuid", "at_ms"),)

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    enclave_uuid: Mapped[UUID | None]
    at_ms: Mapped[int]
    released: Mapped[bool]
    reason: Mapped[str] = mapped_column(String(512))
    deployment_id: Mapped[str | None]
    bundle_version: Mapped[int | None]
    boot_key: Mapped[bytes | None]
    module_id: Mapped[str | None] = mapped_column(String(128))
    pcrs: Mapped[dict[str, str] | None] = mapped_column(JSON)


class Activity(Base):
    """What changed in the registry, in order."""

    __tablename__ = "activity"

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    at_ms: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(String(512))


class TokenRow(Base):
    """A token of the platform's own API: the hash of it, never the token."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    not_after_ms: Mapped[int | None]
    created_ms: Mapped[int]
    revoked_ms: Mapped[int | None]


class EnclaveEvent(Base):
    """What a host reported of an enclave: a stranger's word, bounded and printable."""

    __tablename__ = "enclave_events"
    __table_args__ = (Index("enclave_events_by_enclave", "enclave_uuid", "id"),)

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"))
    at_ms: Mapped[int]
    kind: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(String(512))


class SealingSecretRow(Base):
    """What the keys of an enclave's sealed objects are made from. Made with its first bundle."""

    __tablename__ = "sealing_secrets"

    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"), primary_key=True)
    secret_sealed: Mapped[bytes]
    created_ms: Mapped[int]


class ObjectHead(Base):
    """Which sealed object is the current one of its name, as an enclave of the image proved."""

    __tablename__ = "object_heads"

    enclave_uuid: Mapped[UUID] = mapped_column(ForeignKey("enclaves.uuid"), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int]
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    recorded_ms: Mapped[int]
