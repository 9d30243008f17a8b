"""Tokens of the platform's own API: who may change the registry, and which host may relay.

They are not the API keys of an app, which clients show to enclaves and which an enclave may hand to
its application: whoever sees such a key must not be able to change the registry with it. A token is
``cp_<id>_<43 base64url characters>`` (:mod:`~cloister.platform.credentials`).

A token has one or more scopes:

- ``owner``: everything.
- ``manage:<app uuid>``: everything of one app but tokens.
- ``deploy:<app uuid>``: read it, and register and end deployments.
- ``read:<app uuid>``: read it; no value of a variable.
- ``relay:<enclave uuid>``: what a host carries for one enclave, and nothing else.
"""

import dataclasses
import datetime as dt
import hmac
import re
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform import credentials
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.credentials import CredentialRecord
from cloister.platform.database import Database
from cloister.platform.records import record_activity
from cloister.platform.tables import App, Enclave, TokenRow

Right = Literal["manage", "deploy", "read"]


class TokenRecord(CredentialRecord):
    """What is known of a token: everything but the token."""

    __slots__ = ()

    @property
    def is_owner(self) -> bool:
        """It may do everything."""
        return OWNER in self.scopes

    def may(self, right: Right, app_uuid: UUID) -> bool:
        """Whether it has this right, or one that includes it, for an app."""
        including = RIGHTS[: RIGHTS.index(right) + 1]
        return self.is_owner or any(f"{one}:{app_uuid}" in self.scopes for one in including)

    def may_relay(self, enclave_uuid: UUID) -> bool:
        """Whether a host with it carries calls of this enclave; the owner's token is not for that.

        A host is not trusted, and who starts one with the owner's token has made a mistake.
        """
        return f"relay:{enclave_uuid}" in self.scopes

    @property
    def apps(self) -> frozenset[UUID]:
        """Apps it has any right for; the owner has every one without naming it."""
        named = [scope.partition(":") for scope in self.scopes]
        return frozenset(UUID(uuid) for kind, _, uuid in named if kind in RIGHTS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token at the one moment it is known."""

    record: TokenRecord
    secret: str = dataclasses.field(repr=False)


class Tokens:
    """The tokens of a platform.

    Args:
        database: The open store.
        clock: Source of the times that are written and compared.
    """

    def __init__(self, database: Database, clock: Clock = system) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None = None
    ) -> NewToken:
        """Makes a token.

        Args:
            name: What people know it by: 1 to 63 printable characters.
            scopes: See the module.
            not_after: When it stops working; never, when absent.

        Raises:
            ConfigError: No scope, too many or an unknown one, a name that cannot be shown, a time
                that is past, or :data:`MAX_TOKENS` tokens in use.
            MissingInput: A scope names an app or enclave that there is not.
        """
        now = self._clock()
        credentials.check("token", name=name, not_after=not_after, now=now)
        if not 1 <= len(scopes) <= MAX_SCOPES:
            raise ConfigError(f"a token has 1 to {MAX_SCOPES} scopes")
        token_id, secret = credentials.made(PREFIX)
        row = TokenRow(
            id=token_id,
            name=name,
            sha256=credentials.hash_of(secret),
            not_after_ms=None if not_after is None else to_ms(not_after),
            created_ms=to_ms(now),
        )
        with self._database.writing() as session:
            row.scopes = [_checked(session, scope) for scope in dict.fromkeys(scopes)]
            counting = select(func.count()).select_from(TokenRow)
            counting = counting.where(*credentials.in_use(TokenRow, to_ms(now)))
            if session.scalars(counting).one() >= MAX_TOKENS:
                raise ConfigError(f"the platform has {MAX_TOKENS} tokens in use")
            session.add(row)
            record_activity(session, to_ms(now), "token.create", token_id, "token made")
        return NewToken(record=_record(row), secret=secret)

    def all(self, *, limit: int | None = None, after: str | None = None) -> list[TokenRecord]:
        """Every token, oldest first, revoked and expired ones included.

        Args:
            limit: How many at most.
            after: Go on behind the token of this id.

        Raises:
            MissingInput: There is no such token.
        """
        with self._database.reading() as session:
            last = None if after is None else _found(session, after)
            rows = credentials.rows(session, TokenRow, limit=limit, after=last)
            return [_record(row) for row in rows]

    def find(self, secret: str) -> TokenRecord | None:
        """The token, when it works now; ``None`` for every other text.

        It is found by its id, which is no secret, and compared in constant time. A token that does
        not exist takes the same comparison.
        """
        shape = SHAPE.fullmatch(secret)
        with self._database.reading() as session:
            row = session.get(TokenRow, shape[1]) if shape else None
            matches = hmac.compare_digest(
                row.sha256 if row else bytes(32), credentials.hash_of(secret)
            )
            record = _record(row) if row is not None and matches else None
        return record if record and record.state(self._clock()) == "active" else None

    def is_active(self, token_id: str) -> bool:
        """Whether the token of this id works now."""
        with self._database.reading() as session:
            row = session.get(TokenRow, token_id)
            return row is not None and _record(row).state(self._clock()) == "active"

    def revoke(self, token_id: str) -> TokenRecord:
        """Ends a token; ending it again changes nothing.

        Args:
            token_id: Its id, or the whole token.

        Raises:
            MissingInput: There is no such token.
        """
        shape = SHAPE.fullmatch(token_id)
        found = shape[1] if shape else token_id
        with self._database.writing() as session:
            row = _found(session, found)
            if row.revoked_ms is None:
                row.revoked_ms = to_ms(self._clock())
                record_activity(session, row.revoked_ms, "token.revoke", row.id, "token revoked")
            return _record(row)


def _found(session: Session, token_id: str) -> TokenRow:
    row = session.get(TokenRow, token_id) if credentials.is_id(token_id) else None
    if row is None:
        raise MissingInput("there is no token with this id", hint="`cloister platform token list`")
    return row


def _checked(session: Session, scope: str) -> str:
    """A scope in its one spelling.

    Raises:
        ConfigError: Unknown.
        MissingInput: What it names does not exist.
    """
    if scope == OWNER:
        return scope
    kind, _, rest = scope.partition(":")
    try:
        uuid = UUID(rest)
    except ValueError:
        uuid = None
    if uuid is None or kind not in {*RIGHTS, RELAY}:
        raise ConfigError(
            f"unknown scope {scope[:80]!a}: expected `owner`, `manage:<app uuid>`,"
            " `deploy:<app uuid>`, `read:<app uuid>` or `relay:<enclave uuid>`"
        )
    if session.get(Enclave if kind == RELAY else App, uuid) is None:
        raise MissingInput(f"there is no {'enclave' if kind == RELAY else 'app'} `{uuid}`")
    return f"{kind}:{uuid}"


def _record(row: TokenRow) -> TokenRecord:
    return TokenRecord(**credentials.known(row))


OWNER = "owner"
RELAY = "relay"
RIGHTS: tuple[Right, ...] = ("manage", "deploy", "read")  # each includes those after it
PREFIX = "cp"
SHAPE = re.compile(r"cp_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
MAX_SCOPES = 64
MAX_TOKENS = 4096
