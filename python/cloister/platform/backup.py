"""Backup and restore of a store, from either database into either.

A backup is text: a line that says what it is, the rows of each table, and a last line with their
count, a SHA-256 of everything before it, and an HMAC of the same under a key of the master key's.
Private values are in it as they are in the store, sealed: it is worth nothing without the master
key, which is not in it and has to be kept apart. A copy of a backup is not trusted: who can write
to it could add a token of an owner, or an image that secrets are released to. So nothing of it is
restored before the HMAC is known to be right; the SHA-256 finds files that were cut, without a key.

Restoring goes back in time, and enclaves do not: each remembers the highest version of its bundle
and refuses lower ones. So every enclave's version jumps ahead, to :data:`VERSION_JUMP` for each
second since 1970: above all that an earlier restore, of this backup or another, began with and a
store has added since. What was revoked since the backup works again until it is revoked again; the
caller says so.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from sqlalchemy import LargeBinary, Row, Table, Uuid, case, insert, select, update

from cloister.errors import InputError, MissingInput, OutputError, StoreError
from cloister.platform import database as databases
from cloister.platform.clock import from_ms
from cloister.platform.database import SCHEMA_VERSION, Database
from cloister.platform.master_key import KeyServices, context_of, key_service
from cloister.platform.records import record_activity
from cloister.platform.tables import Base, Enclave, StoreRow
from cloister.platform.trust_class import TrustClass
from cloister.platform.vault import Vault


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup says of itself."""

    created_ms: int
    trust_class: TrustClass
    schema_version: int
    rows: int


def write(database: Database, path: pathlib.Path, *, now_ms: int) -> Backup:
    """Writes a backup of an open store: one consistent view of it, whole or not at all.

    Args:
        database: The store; it may be in use.
        path: A file that does not exist.
        now_ms: The time, milliseconds since the Unix epoch.

    Raises:
        OutputError: The file exists or cannot be written.
        StoreError: The store cannot be read.
    """
    if path.exists():
        raise OutputError(f"`{path}` exists, and a backup is not written over another")
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)  # of a backup that was stopped
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            rows = _write(database, file, now_ms)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise OutputError(f"`{path}` exists, and a backup is not written over another") from None
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Backup(
        created_ms=now_ms,
        trust_class=database.trust_class,
        schema_version=SCHEMA_VERSION,
        rows=rows,
    )


def check(path: pathlib.Path) -> Backup:
    """Reads a backup to its end and says what it says it is; :func:`restore` asks who wrote it.

    Raises:
        MissingInput: It cannot be read.
        InputError: It is not a backup, is cut or damaged, or of another schema.
    """
    digest, rows, head = hashlib.sha256(), 0, b""
    try:
        with path.open("rb") as file:
            last = b""
            for number, line in enumerate(file):
                if number == 0:
                    head = line
                if last:
                    digest.update(last)
                    rows += last.startswith(b"[")
                last = line
    except OSError as problem:
        raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from None
    found, end = _object(head), _object(last)
    if found.get("format") != FORMAT:
        raise _not_one(path)
    if end.get("sha256") != digest.hexdigest() or end.get("rows") != rows:
        raise InputError(f"`{path}` is not whole: it was cut or damaged")
    schema, created_ms = found.get("schema"), found.get("created_ms")
    if type(schema) is not int or type(created_ms) is not int:
        raise _not_one(path)
    if schema != SCHEMA_VERSION:
        raise InputError(
            f"`{path}` has schema {schema}, this program reads schema {SCHEMA_VERSION}",
            hint="restore it with the version that wrote it, then `cloister platform migrate`",
        )
    try:
        trust_class = TrustClass(found.get("trust_class"))
        from_ms(created_ms)
    except (ValueError, OverflowError):
        raise _not_one(path) from None
    return Backup(created_ms=created_ms, trust_class=trust_class, schema_version=schema, rows=rows)


def restore(
    database: Database,
    path: pathlib.Path,
    *,
    now_ms: int,
    services: KeyServices = key_service,
) -> Backup:
    """Fills a store that was just made with what a backup has, in one transaction.

    Args:
        database: A store without a team, made with the master key of the backup.
        path: The backup; :func:`check` it first for what it is.
        now_ms: The time, milliseconds since the Unix epoch.
        services: Finds who wrapped the master key of the backup; the store has that key from here
            on, and must be opened again.

    Raises:
        InputError: See :func:`check`; or the backup is of another class, or was not written by a
            platform with this master key.
        StoreError: The store holds something, or the master key is another.
    """
    backup = check(path)
    if backup.trust_class is not database.trust_class:
        raise InputError(
            f"the backup is of class `{backup.trust_class.value}`, the store of class"
            f" `{database.trust_class.value}`"
        )
    tables = {table.name: table for table in _tables()}
    with database.writing() as session:
        for table in tables.values():
            if table.name != StoreRow.__tablename__ and session.execute(select(table)).first():
                raise StoreError("the store is not empty: a backup is restored into a new one")
        vault = _vault(database, session.scalars(select(StoreRow)).one().key_uri, path, services)
        _check_author(path, vault)
        for table, row in _rows(path, tables):
            if table.name == StoreRow.__tablename__:
                session.execute(update(StoreRow).values(row | {"restored_ms": now_ms}))
            else:
                session.execute(insert(table).values(row))
        ahead, of_now = Enclave.bundle_version + VERSION_JUMP, now_ms // 1000 * VERSION_JUMP
        # The first of them where the clock is behind that of an earlier restore.
        version = case((ahead > of_now, ahead), else_=of_now)
        session.execute(update(Enclave).values(bundle_version=version))
        taken = from_ms(backup.created_ms)
        message = f"restored from a backup of {taken:%Y-%m-%d %H:%M:%S} UTC"
        record_activity(session, now_ms, "store.restore", "store", message)
    return backup


def _vault(
    database: Database, key_uri: str | None, path: pathlib.Path, services: KeyServices
) -> Vault:
    """The vault of the backup: of its wrapped key, or of the key in the folder.

    Who wraps the key is the operator's word, ``key_uri``: that of the file, which nobody vouches
    for yet, could name a key service of somebody who made up the file.
    """
    tables = {StoreRow.__tablename__: Base.metadata.tables[StoreRow.__tablename__]}
    try:
        _, row = next(_rows(path, tables))
        wrapped, uri, sealed = row["key_wrapped"], row["key_uri"], row["key_check_sealed"]
    except (KeyError, RecursionError, StopIteration, TypeError, ValueError):
        raise _not_one(path) from None
    if not isinstance(sealed, bytes):
        raise _not_one(path)
    vault = database.vault
    if wrapped is not None:
        if uri != key_uri:
            raise InputError(
                f"the master key of `{path}` is wrapped by another key service than that of"
                " the store",
                hint="`master_key` of platform.toml names it; the store must be a new one",
            )
        key = services(uri).unwrap(wrapped, context_of(database.trust_class))
        vault = Vault(key, database.trust_class)
    vault.open(sealed, place=databases.KEY_CHECK)
    return vault


def _check_author(path: pathlib.Path, vault: Vault) -> None:
    """Whether a platform with this master key wrote all of a backup.

    Raises:
        InputError: It did not.
    """
    authenticator, last = vault.authenticator(AUTHENTICATOR), b""
    with path.open("rb") as file:
        for line in file:
            authenticator.update(last)
            last = line
    try:
        authenticator.verify(bytes.fromhex(str(_object(last).get("hmac"))))
    except (InvalidSignature, ValueError):
        raise InputError(
            f"`{path}` was altered: a platform with this master key did not write it so"
        ) from None


def _write(database: Database, file: BinaryIO, now_ms: int) -> int:
    digest, rows = hashlib.sha256(), 0
    authenticator = database.vault.authenticator(AUTHENTICATOR)

    def line(value: object) -> None:
        text = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        digest.update(text)
        authenticator.update(text)
        file.write(text)

    line(
        {
            "format": FORMAT,
            "schema": SCHEMA_VERSION,
            "trust_class": database.trust_class.value,
            "created_ms": now_ms,
        }
    )
    with database.reading() as session:
        for table in _tables():
            line({"table": table.name, "columns": [column.name for column in _columns(table)]})
            query = select(*_columns(table)).order_by(*table.primary_key.columns)
            for row in session.execute(query.execution_options(yield_per=BATCH)):
                line(_texts(row))
                rows += 1
    end = {
        "rows": rows,
        "sha256": digest.hexdigest(),
        "hmac": authenticator.finalize().hex(),
    }
    file.write(json.dumps(end, separators=(",", ":")).encode() + b"\n")
    return rows


def _rows(path: pathlib.Path, tables: dict[str, Table]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Rows of a backup, in the order of their tables; raises anything where it is not one."""
    table: Table | None = None
    columns: list[str] = []
    with path.open("rb") as file:
        for line in file:
            value = json.loads(line)
            if isinstance(value, dict):
                table = tables.get(str(value.get("table")))
                columns = list(value.get("columns", ()))
            elif table is not None:
                yield table, _values(table, dict(zip(columns, value, strict=True)))


def _tables() -> list[Table]:
    """Every table whose rows outlive a minute, those that are referred to first."""
    return [table for table in Base.metadata.sorted_tables if table.name not in TRANSIENT]


def _columns(table: Table) -> list[Any]:
    """Columns of a table; rows that number themselves are numbered anew, in their order."""
    return [column for column in table.columns if table.name not in NUMBERED or column.name != "id"]


def _texts(row: Row[Any]) -> list[Any]:
    return [
        base64.b64encode(value).decode()
        if isinstance(value, bytes)
        else str(value)
        if isinstance(value, UUID)
        else value
        for value in row
    ]


def _values(table: Table, texts: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in texts.items():
        kind = table.columns[name].type
        if text is not None and isinstance(kind, LargeBinary):
            values[name] = base64.b64decode(text, validate=True)
        elif text is not None and isinstance(kind, Uuid):
            values[name] = UUID(text)
        else:
            values[name] = text
    return values


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _not_one(path: pathlib.Path) -> InputError:
    return InputError(f"`{path}` is not a backup of a platform")


AUTHENTICATOR = "backup"
FORMAT = "cloister-platform-backup/1"
TRANSIENT = frozenset({"challenges"})
NUMBERED = frozenset({"activity", "enclave_events", "releases"})
VERSION_JUMP = 1 << 20  # more than a store changes in a second, or between two backups
BATCH = 500
