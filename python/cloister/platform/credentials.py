"""What API keys and tokens have in common: made at random, shown once, kept as hashes.

A credential is ``<prefix>_<id>_<43 base64url characters>``: 256 random bits, so a plain SHA-256 of
all of it is enough to check it by, and says nothing about it. What it permits is its own module's.
"""

import base64
import dataclasses
import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import TypedDict, TypeVar

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.orm import Session

from cloister.errors import ConfigError
from cloister.platform.clock import from_ms
from cloister.platform.tables import ApiKey, TokenRow

Row = TypeVar("Row", ApiKey, TokenRow)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRecord:
    """What is known of a credential: everything but itself."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: dt.datetime
    not_after: dt.datetime | None
    revoked: dt.datetime | None

    def state(self, now: dt.datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.not_after is not None and self.not_after <= now else "active"


class Known(TypedDict):
    """The fields of :class:`CredentialRecord`."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: dt.datetime
    not_after: dt.datetime | None
    revoked: dt.datetime | None


def known(row: ApiKey | TokenRow) -> Known:
    """What is known of a row."""
    return {
        "id": row.id,
        "name": row.name,
        "scopes": tuple(row.scopes),
        "created": from_ms(row.created_ms),
        "not_after": None if row.not_after_ms is None else from_ms(row.not_after_ms),
        "revoked": None if row.revoked_ms is None else from_ms(row.revoked_ms),
    }


def made(prefix: str) -> tuple[str, str]:
    """Id and whole text of a new credential."""
    credential_id = secrets.token_hex(ID_BYTES)
    random = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    return credential_id, f"{prefix}_{credential_id}_{random}"


def is_id(text: str) -> bool:
    """Whether it can be the id of one; no other text is for a database, which may not take it."""
    return SHAPE.fullmatch(text) is not None


def hash_of(secret: str) -> bytes:
    """What is kept: SHA-256 of all of it, prefix and id included. Any text has one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def check(what: str, *, name: str, not_after: dt.datetime | None, now: dt.datetime) -> None:
    """Whether a new one can be called so and end then.

    Raises:
        ConfigError: The time is past, or the name cannot be shown.
    """
    if not_after is not None and not_after <= now:
        raise ConfigError(f"the {what} would expire at {not_after:%Y-%m-%d %H:%M:%S}, in the past")
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ConfigError(f"a {what}'s name is 1 to {MAX_NAME} printable characters")


def in_use(table: type[ApiKey | TokenRow], now_ms: int) -> tuple[ColumnElement[bool], ...]:
    """Conditions for rows that are neither revoked nor expired."""
    return (
        table.revoked_ms.is_(None),
        or_(table.not_after_ms.is_(None), table.not_after_ms > now_ms),
    )


def rows(
    session: Session,
    table: type[Row],
    *conditions: ColumnElement[bool],
    limit: int | None,
    after: Row | None,
) -> Sequence[Row]:
    """Rows, oldest first; revoked and expired ones stay, so there is no end to their number.

    Args:
        session: A transaction.
        table: Of which credentials.
        conditions: Which rows.
        limit: How many at most; all of them when absent.
        after: The row that the page before ended with.
    """
    place = tuple_(table.created_ms, table.id)  # two are made in one millisecond
    query = select(table).where(*conditions).order_by(table.created_ms, table.id).limit(limit)
    if after is not None:
        query = query.where(place > (after.created_ms, after.id))
    return session.scalars(query).all()


ID_BYTES = 8  # 16 hexadecimal digits: unique within a store, not secret
SHAPE = re.compile(r"[0-9a-f]{16}")
SECRET_BYTES = 32  # 43 base64url characters (data-plane.md §4)
MAX_NAME = 63
