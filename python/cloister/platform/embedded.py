"""The platform in this process: what ``cloister run`` and the owner's server answer with.

It releases secrets to enclaves that prove what they are, and to nobody else; what leaves it is
sealed to the enclave's own key. It trusts its store and its clock. It does not trust the host that
carries the calls, which at most can lose them, repeat them, or make them in vain.

Follows wire.md, section 3.
"""

import datetime as dt
import pathlib
import secrets
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from cloister import attest
from cloister.errors import ReleaseRefused
from cloister.platform import bundle, events, release, sealed_objects
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.database import Database
from cloister.platform.interface import ActiveDeployment
from cloister.platform.records import EnclaveRecord, read_deployments, read_enclave
from cloister.platform.tables import Boot, ChallengeRow, Deployment, Enclave, Release
from cloister.platform.trust_class import TrustClass


class EmbeddedPlatform:
    """Answers a host's calls from a store. See :class:`~cloister.platform.interface.Platform`.

    Args:
        database: The open store; the caller closes it after :meth:`close`.
        development_root: File of the development root's certificate, which must be given for a
            development store and must not be for another. It is read at the first document.
        clock: The platform's time.

    Raises:
        ReleaseRefused: A development root for a store that is not of class development, or none
            for one that is: the classes never mix (T-23).
    """

    def __init__(
        self,
        database: Database,
        *,
        development_root: pathlib.Path | None = None,
        clock: Clock = system,
    ) -> None:
        is_development = database.trust_class is TrustClass.DEVELOPMENT
        if is_development != (development_root is not None):
            raise ReleaseRefused(
                f"a store of class `{database.trust_class.value}` is served"
                f" {'with' if is_development else 'without'} a development root only"
            )
        self._database = database
        self._development_root = development_root
        self._development_anchor: attest.TrustAnchor | None = None
        self._clock = clock

    def issue_challenge(self, enclave_uuid: UUID | str) -> bytes:
        """Makes a challenge: 32 random bytes, valid once, for 60 s, for this enclave alone.

        Raises:
            ReleaseRefused: There is no such enclave, or it has :data:`MAX_OPEN_CHALLENGES` open.
        """
        uuid = _uuid(enclave_uuid)
        now_ms = to_ms(self._clock())
        value = secrets.token_bytes(CHALLENGE_BYTES)
        with self._database.writing() as session:
            _known(session, uuid)
            session.execute(
                delete(ChallengeRow).where(
                    ChallengeRow.issued_ms < now_ms - KEEP_CHALLENGES_MS,
                )
            )
            still_open = session.scalars(
                select(func.count())
                .select_from(ChallengeRow)
                .where(
                    ChallengeRow.enclave_uuid == uuid,
                    ChallengeRow.used_ms.is_(None),
                    ChallengeRow.issued_ms >= now_ms - release.CHALLENGE_LIFE_MS,
                )
            ).one()
            if still_open >= MAX_OPEN_CHALLENGES:
                raise ReleaseRefused(
                    f"the enclave has {still_open} open challenges, the most it can have",
                    hint=f"they expire after {release.CHALLENGE_LIFE_MS // 1000} s",
                )
            session.add(ChallengeRow(value=value, enclave_uuid=uuid, issued_ms=now_ms))
        return value

    def provision(
        self, enclave_uuid: UUID | str, document: bytes, now: dt.datetime | None = None
    ) -> bytes:
        """Checks an attestation document and seals a bundle to the key in it.

        Whatever comes of it is recorded: what was released, or why it was refused.

        Raises:
            ReleaseRefused: A check of wire.md §3 does not hold; the message says which.
        """
        uuid = _uuid(enclave_uuid)
        moment = self._clock() if now is None else now
        claims: attest.Claims | None = None
        try:
            claims = self._verify(uuid, document, moment)
            boot_key = release.check_purpose(claims)
            challenge = self._use_challenge(uuid, claims.nonce, to_ms(moment))
            return self._release(uuid, claims, boot_key, challenge, to_ms(moment))
        except ReleaseRefused as refusal:
            self._record_refusal(uuid, claims, refusal.message, to_ms(moment))
            raise

    def newer_bundle(
        self,
        enclave_uuid: UUID | str,
        after: int,
        *,
        boot_key: bytes | None = None,
        now: dt.datetime | None = None,
    ) -> bytes | None:
        """Seals the current bundle to a boot that was provisioned, when it needs one.

        It needs one when its version is above ``after``, or when half of the life of the last one
        has passed and another one lasts longer.

        Raises:
            ReleaseRefused: No such enclave or boot, or its deployment is not active any more.
        """
        uuid = _uuid(enclave_uuid)
        now_ms = to_ms(self._clock() if now is None else now)
        with self._database.reading() as session:
            enclave = _known(session, uuid)
            boot = _boot(session, uuid, boot_key, now_ms)
            if not bundle.is_due(session, enclave, boot, after=after, now_ms=now_ms):
                return None
            known_as = boot.boot_key
        with self._database.writing() as session:
            enclave = _known(session, uuid)
            boot = _boot(session, uuid, known_as, now_ms)
            if not bundle.is_due(session, enclave, boot, after=after, now_ms=now_ms):
                return None
            bundle.note_issue(session, boot, now_ms=now_ms)
            return self._seal(session, enclave, boot, now_ms=now_ms)

    def wait_for_change(self, enclave_uuid: UUID | str, after: int, timeout_s: float) -> bool:
        """Blocks until the enclave's version is above ``after``, or for ``timeout_s`` seconds.

        Raises:
            ReleaseRefused: There is no such enclave.
        """
        uuid = _uuid(enclave_uuid)

        def is_newer() -> bool:
            with self._database.reading() as session:
                version = session.scalars(
                    select(Enclave.bundle_version).where(Enclave.uuid == uuid)
                ).one_or_none()
            if version is None:
                raise ReleaseRefused("there is no enclave of this uuid")
            return version > after

        return self._database.changes.wait_until(is_newer, timeout_s)

    def active_deployments(self, enclave_uuid: UUID | str) -> list[ActiveDeployment]:
        """What a host is to run of an enclave: its active deployments, the newest first.

        Raises:
            ReleaseRefused: There is no such enclave.
        """
        uuid, now_ms = _uuid(enclave_uuid), to_ms(self._clock())
        with self._database.reading() as session:
            _known(session, uuid)
            found = read_deployments(session, uuid)
        return [
            ActiveDeployment(id=one.id, pcrs=one.pcrs)
            for one in reversed(found)
            if one.is_active(now_ms)
        ]

    def record_event(self, enclave_uuid: UUID | str, kind: str, message: str) -> None:
        """Keeps what a host reports of an enclave.

        Raises:
            ReleaseRefused: There is no such enclave.
        """
        uuid = _uuid(enclave_uuid)
        with self._database.writing() as session:
            _known(session, uuid)
            events.record(session, uuid, kind, message, now_ms=to_ms(self._clock()))

    def record_object(  # noqa: PLR0913 - the parts of one head
        self,
        enclave_uuid: UUID | str,
        *,
        boot_key: bytes,
        name: str,
        version: int,
        sha256: bytes,
        proof: bytes,
    ) -> bool:
        """Records that a sealed object is the current one of its name.

        Returns:
            Whether it is recorded; ``False``: another one is, as new or newer.

        Raises:
            InputError: A field is out of its bounds.
            ReleaseRefused: No such enclave or boot, its deployment is not active any more, or the
                proof is not that of an enclave of its image.
        """
        uuid, now_ms = _uuid(enclave_uuid), to_ms(self._clock())
        with self._database.writing() as session:
            _known(session, uuid)
            boot = _boot(session, uuid, boot_key, now_ms)
            return sealed_objects.record(
                session,
                self._database.vault,
                boot,
                name=name,
                version=version,
                sha256=sha256,
                proof=proof,
                now_ms=now_ms,
            )

    def close(self) -> None:
        """Ends every :meth:`wait_for_change`."""
        self._database.changes.close()

    def _verify(self, uuid: UUID, document: bytes, now: dt.datetime) -> attest.Claims:
        with self._database.reading() as session:
            enclave = _known(session, uuid)
            deployments = read_deployments(session, uuid)
        if self._development_root is not None and self._development_anchor is None:
            self._development_anchor = attest.TrustAnchor.dangerous_root(self._development_root)
        return release.verified_claims(
            document, enclave, deployments, development_anchor=self._development_anchor, now=now
        )

    def _use_challenge(self, uuid: UUID, nonce: bytes | None, now_ms: int) -> bytes:
        """Uses up the challenge, in a transaction of its own: what follows may still refuse."""
        with self._database.writing() as session:
            enclave = _known(session, uuid)
            challenge = session.get(ChallengeRow, nonce) if nonce else None
            release.check_challenge(challenge, enclave, now_ms=now_ms)
            taken = session.scalars(
                update(ChallengeRow)
                .where(ChallengeRow.value == nonce, ChallengeRow.used_ms.is_(None))
                .values(used_ms=now_ms)
                .returning(ChallengeRow.value)
            ).all()
        # The write lock keeps others out between check and mark; if it ever did not, the mark does.
        if nonce is None or len(taken) != 1:
            raise ReleaseRefused("the challenge was used before")
        return nonce

    def _release(
        self, uuid: UUID, claims: attest.Claims, boot_key: bytes, challenge: bytes, now_ms: int
    ) -> bytes:
        with self._database.writing() as session:
            enclave = _known(session, uuid)
            deployment = release.matching_deployment(
                claims, enclave, read_deployments(session, uuid), now_ms=now_ms
            )
            others = select(func.count()).where(
                Boot.enclave_uuid == uuid,
                Boot.boot_key != boot_key,
                Boot.issued_ms > now_ms - bundle.BUNDLE_LIFE_MS,
            )
            release.check_room(enclave, session.scalar(others) or 0)
            boot = session.get(Boot, (uuid, boot_key)) or Boot(
                enclave_uuid=uuid, boot_key=boot_key, issued_ms=0
            )
            boot.deployment_id = deployment.id
            boot.challenge = challenge
            boot.pcr0 = claims.pcrs[0]
            boot.module_id = claims.module_id[:MAX_MODULE_ID]
            boot.released_ms = now_ms
            bundle.note_issue(session, boot, now_ms=now_ms)
            session.add(boot)
            session.execute(
                delete(Boot).where(
                    Boot.enclave_uuid == uuid, Boot.issued_ms < now_ms - KEEP_BOOTS_MS
                )
            )
            session.flush()
            return self._seal(session, enclave, boot, now_ms=now_ms, claims=claims)

    def _seal(
        self,
        session: Session,
        enclave: EnclaveRecord,
        boot: Boot,
        *,
        now_ms: int,
        claims: attest.Claims | None = None,
    ) -> bytes:
        """Assembles and seals within the transaction that records it: both happen, or neither."""
        vault = self._database.vault
        content = bundle.assemble(session, vault, enclave, boot, now_ms=now_ms)
        seed = bundle.signing_seed(session, vault, enclave.team_uuid)
        if claims is not None or not _was_recorded(session, enclave, boot, now_ms):
            self._record_release(session, enclave, boot, claims, now_ms)
        return bundle.seal(content, seed, boot.boot_key)

    def _record_release(
        self,
        session: Session,
        enclave: EnclaveRecord,
        boot: Boot,
        claims: attest.Claims | None,
        now_ms: int,
    ) -> None:
        session.add(
            Release(
                enclave_uuid=enclave.uuid,
                at_ms=now_ms,
                released=True,
                reason="renewed or updated" if claims is None else "provisioned",
                deployment_id=boot.deployment_id,
                bundle_version=enclave.bundle_version,
                boot_key=boot.boot_key,
                module_id=boot.module_id,
                pcrs=None if claims is None else _hex(claims),
            )
        )

    def _record_refusal(
        self, uuid: UUID, claims: attest.Claims | None, reason: str, now_ms: int
    ) -> None:
        with self._database.writing() as session:
            row = Release(
                enclave_uuid=uuid,
                at_ms=now_ms,
                released=False,
                reason=reason[:MAX_REASON],
                boot_key=None,
                module_id=None if claims is None else claims.module_id[:MAX_MODULE_ID],
                pcrs=None if claims is None else _hex(claims),
            )
            session.add(row)
            session.flush()
            session.execute(
                delete(Release).where(
                    Release.released.is_(False), Release.id < row.id - KEEP_REFUSALS
                )
            )


def _known(session: Session, uuid: UUID) -> EnclaveRecord:
    enclave = read_enclave(session, uuid)
    if enclave is None:
        raise ReleaseRefused("there is no enclave of this uuid")
    return enclave


def _boot(session: Session, uuid: UUID, boot_key: bytes | None, now_ms: int) -> Boot:
    """The boot with this key, else the one provisioned last, while its deployment is active."""
    query = select(Boot).where(Boot.enclave_uuid == uuid)
    if boot_key is not None:
        query = query.where(Boot.boot_key == boot_key)
    boot = session.scalars(query.order_by(Boot.released_ms.desc()).limit(1)).one_or_none()
    if boot is None:
        raise ReleaseRefused("this boot of the enclave was not provisioned")
    deployment = session.get(Deployment, boot.deployment_id)
    is_over = deployment is not None and (deployment.until_ms or now_ms + 1) <= now_ms
    if deployment is None or not deployment.active or is_over:
        raise ReleaseRefused("the deployment of this enclave is not active any more")
    return boot


def _was_recorded(session: Session, enclave: EnclaveRecord, boot: Boot, now_ms: int) -> bool:
    """Whether this boot was given this version a moment ago: a host may ask without end."""
    query = select(Release.id).where(
        Release.enclave_uuid == enclave.uuid,
        Release.at_ms > now_ms - RECORD_EVERY_MS,
        Release.boot_key == boot.boot_key,
        Release.bundle_version == enclave.bundle_version,
    )
    return session.scalars(query.limit(1)).first() is not None


def _uuid(value: UUID | str) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise ReleaseRefused("there is no enclave of this uuid") from None


def _hex(claims: attest.Claims) -> dict[str, str]:
    return {str(index): value.hex() for index, value in sorted(claims.pcrs.items())}


CHALLENGE_BYTES = 32
MAX_OPEN_CHALLENGES = 256  # bounds what a host that only asks can make the store hold
KEEP_CHALLENGES_MS = 10 * 60 * 1000  # a used challenge is told from a foreign one for this long
KEEP_BOOTS_MS = 24 * 3600 * 1000  # a boot that asked for nothing this long has ended
RECORD_EVERY_MS = 60_000  # the same version to the same boot within this time is one record
KEEP_REFUSALS = 10_000  # rows; releases are all kept
MAX_MODULE_ID = 128
MAX_REASON = 512
