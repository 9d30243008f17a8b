"""API keys of an app: made here, shown once, kept as hashes, checked inside the enclaves.

A key is ``ck_<id>_<43 base64url characters>`` (:mod:`~cloister.platform.credentials`). Scopes are
``app`` (every enclave of the app) or ``enclave:<uuid>``. Every change raises the bundle version of
the app's enclaves, which is how it reaches them.
"""

import dataclasses
import datetime as dt
import hmac
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform import credentials
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.credentials import CredentialRecord
from cloister.platform.database import Database
from cloister.platform.records import bump_versions, record_activity
from cloister.platform.tables import ApiKey, App, Enclave


class ApiKeyRecord(CredentialRecord):
    """What is known of an API key: everything but the key."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """An API key at the one moment it is known."""

    record: ApiKeyRecord
    secret: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What an enclave checks a key by."""

    id: str
    name: str
    sha256: bytes
    scopes: tuple[str, ...]
    not_after_ms: int | None


class ApiKeys:
    """The API keys of one app.

    Args:
        database: The open store.
        app_uuid: The app.
        clock: Source of the times that are written.
    """

    def __init__(self, database: Database, app_uuid: UUID, clock: Clock = system) -> None:
        self._database = database
        self._app_uuid = app_uuid
        self._clock = clock

    def create(
        self, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None = None
    ) -> NewApiKey:
        """Makes a key.

        Args:
            name: What people know it by: 1 to 63 printable characters. Not unique.
            scopes: One or more of ``app`` and ``enclave:<uuid>``.
            not_after: When it stops working; never, when absent.

        Raises:
            ConfigError: No scope, too many or an unknown one, a name that cannot be shown, a time
                that is past, or more than :data:`MAX_API_KEYS` keys in use.
            MissingInput: A scope names an enclave that the app does not have.
        """
        now = self._clock()
        credentials.check("key", name=name, not_after=not_after, now=now)
        key_id, secret = credentials.made(PREFIX)
        row = ApiKey(
            id=key_id,
            app_uuid=self._app_uuid,
            name=name,
            sha256=credentials.hash_of(secret),
            not_after_ms=None if not_after is None else to_ms(not_after),
            created_ms=to_ms(now),
        )
        with self._database.writing() as session:
            if session.get(App, self._app_uuid) is None:
                raise MissingInput(f"there is no app `{self._app_uuid}` in this store")
            row.scopes = [self._checked_scope(session, scope) for scope in dict.fromkeys(scopes)]
            if not 1 <= len(row.scopes) <= MAX_SCOPES:
                raise ConfigError(
                    f"a key has 1 to {MAX_SCOPES} scopes, each `app` or `enclave:<uuid>`"
                )
            if _count_in_use(session, self._app_uuid, to_ms(now)) >= MAX_API_KEYS:
                raise ConfigError(
                    f"the app has {MAX_API_KEYS} keys in use, the most an enclave holds",
                    hint="`cloister key list` shows them, `cloister key revoke ID` ends one",
                )
            session.add(row)
            bump_versions(session, app_uuid=self._app_uuid)
            record_activity(session, to_ms(now), "api-key.create", key_id, "API key made")
        return NewApiKey(record=_record(row), secret=secret)

    def all(self, *, limit: int | None = None, after: str | None = None) -> list[ApiKeyRecord]:
        """Every key of the app, oldest first, revoked and expired ones included.

        Args:
            limit: How many at most.
            after: Go on behind the key of this id.

        Raises:
            MissingInput: The app has no such key.
        """
        mine = ApiKey.app_uuid == self._app_uuid
        with self._database.reading() as session:
            last = None if after is None else self._found(session, after)
            rows = credentials.rows(session, ApiKey, mine, limit=limit, after=last)
            return [_record(row) for row in rows]

    def works(self, secret: str) -> bool:
        """Whether this is a key of the app, neither expired nor revoked."""
        now_ms = to_ms(self._clock())
        with self._database.reading() as session:
            known = verifiers(session, self._app_uuid, now_ms)
        return any(hmac.compare_digest(key.sha256, credentials.hash_of(secret)) for key in known)

    def revoke(self, key_id: str) -> ApiKeyRecord:
        """Ends a key; ending it again changes nothing.

        Args:
            key_id: Its id, or the whole key.

        Raises:
            MissingInput: The app has no such key.
        """
        found = id_of(key_id)
        with self._database.writing() as session:
            row = self._found(session, found)
            if row.revoked_ms is None:
                row.revoked_ms = to_ms(self._clock())
                bump_versions(session, app_uuid=self._app_uuid)
                record_activity(session, row.revoked_ms, "api-key.revoke", found, "API key revoked")
            return _record(row)

    def _found(self, session: Session, key_id: str) -> ApiKey:
        row = session.get(ApiKey, key_id) if credentials.is_id(key_id) else None
        if row is None or row.app_uuid != self._app_uuid:
            raise MissingInput(
                "there is no API key with this id", hint="`cloister key list` shows the ids"
            )
        return row

    def _checked_scope(self, session: Session, scope: str) -> str:
        if scope == APP_SCOPE:
            return scope
        kind, colon, rest = scope.partition(":")
        try:
            uuid = UUID(rest)
        except ValueError:
            uuid = None
        if kind != "enclave" or not colon or uuid is None:
            raise ConfigError(f"unknown scope {scope[:80]!a}: expected `app` or `enclave:<uuid>`")
        enclave = session.get(Enclave, uuid)
        if enclave is None or enclave.app_uuid != self._app_uuid:
            raise MissingInput(f"the app has no enclave `{uuid}`")
        return f"enclave:{uuid}"


def verifiers(session: Session, app_uuid: UUID, now_ms: int) -> list[Verifier]:
    """Keys that work at ``now_ms``, for a bundle, within a transaction.

    A bundle carries all keys of the app, whatever their scope, so that an enclave can tell a key
    that is not for it (403) from one that does not exist (401).
    """
    rows = session.scalars(
        select(ApiKey)
        .where(ApiKey.app_uuid == app_uuid, *credentials.in_use(ApiKey, now_ms))
        .order_by(ApiKey.created_ms, ApiKey.id)
    )
    return [
        Verifier(
            id=row.id,
            name=row.name,
            sha256=row.sha256,
            scopes=tuple(row.scopes),
            not_after_ms=row.not_after_ms,
        )
        for row in rows
    ]


def id_of(key: str) -> str:
    """The id in a key, or the text itself when it is an id."""
    return key.split("_")[1] if key.startswith(f"{PREFIX}_") and key.count("_") > 1 else key


def _count_in_use(session: Session, app_uuid: UUID, now_ms: int) -> int:
    return session.scalars(
        select(func.count())
        .select_from(ApiKey)
        .where(ApiKey.app_uuid == app_uuid, *credentials.in_use(ApiKey, now_ms))
    ).one()


def _record(row: ApiKey) -> ApiKeyRecord:
    return ApiKeyRecord(**credentials.known(row))


APP_SCOPE = "app"
PREFIX = "ck"
MAX_SCOPES = 64  # rust/sealing, bundle.rs
MAX_API_KEYS = 1024  # what a bundle carries stays far below the 1 MiB of the agent API
