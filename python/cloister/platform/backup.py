"""Backups of a store, from either database; :mod:`cloister.platform.restoring` brings them back.

A backup is text: a line that says what it is, the rows of each table, and a last line with their
count, a SHA-256 of everything before it, and an HMAC of the same under a key of the master key's.
Private values are in it as they are in the store, sealed: it is worth nothing without the master
key, which is not in it and has to be kept apart. A copy of a backup is not trusted: who can write
to it could add a token of an owner, or an image that secrets are released to. So nothing of it is
restored before the HMAC is known to be right; the SHA-256 finds files that were cut, without a key.

The rows are those of the schema the store has, with its columns: a store is backed up by a newer
program too, before that program migrates it.
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

from sqlalchemy import Row, select

from cloister.errors import InputError, MissingInput, OutputError, StoreError
from cloister.platform import schemas
from cloister.platform.clock import from_ms
from cloister.platform.database import SCHEMA_VERSION, Database
from cloister.platform.tables import StoreRow
from cloister.platform.trust_class import TrustClass


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
        database: The store, of whichever schema; it may be in use.
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
        schema_version=database.schema_version,
        rows=rows,
    )


def check(path: pathlib.Path) -> Backup:
    """Reads a backup to its end and says what it says it is; a restore asks who wrote it.

    Raises:
        MissingInput: It cannot be read.
        InputError: It is not a backup, is cut or damaged, or of a newer schema.
    """
    digest, rows, head = hashlib.sha256(), 0, b""
    last = b""
    for number, line in enumerate(lines(path)):
        if number == 0:
            head = line
        if last:
            digest.update(last)
            rows += last.startswith(b"[")
        last = line
    found, end = read_object(head), read_object(last)
    if found.get("format") != FORMAT:
        raise not_one(path)
    if end.get("sha256") != digest.hexdigest() or end.get("rows") != rows:
        raise InputError(f"`{path}` is not whole: it was cut or damaged")
    return _described(path, found, rows)


def lines(path: pathlib.Path) -> Iterator[bytes]:
    """Lines of a file that may be anything, none of them longer than one of a backup can be.

    Raises:
        MissingInput: It cannot be read.
        InputError: A line is longer than :data:`MAX_LINE_BYTES`.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise not_one(path)
                yield line
    except OSError as problem:
        raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from None


def _described(path: pathlib.Path, head: dict[str, Any], rows: int) -> Backup:
    """What the first line says."""
    schema, created_ms = head.get("schema"), head.get("created_ms")
    if type(schema) is not int or type(created_ms) is not int:
        raise not_one(path)
    if schema > SCHEMA_VERSION:
        raise InputError(
            f"`{path}` has schema {schema}, this program reads schemas up to {SCHEMA_VERSION}",
            hint="restore it with the version of cloister that wrote it, or a newer one",
        )
    if schema < OLDEST_SCHEMA:
        raise not_one(path)
    try:
        trust_class = TrustClass(head.get("trust_class"))
        from_ms(created_ms)
    except (ValueError, OverflowError):
        raise not_one(path) from None
    return Backup(created_ms=created_ms, trust_class=trust_class, schema_version=schema, rows=rows)


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
            "schema": database.schema_version,
            "trust_class": database.trust_class.value,
            "created_ms": now_ms,
        }
    )
    with database.reading() as session:
        if session.scalar(select(StoreRow.schema_version)) != database.schema_version:
            raise StoreError("the store was migrated while it was open for its backup")
        for table in schemas.tables(database.schema_version):
            columns = schemas.columns(table)
            line({"table": table.name, "columns": [column.name for column in columns]})
            query = select(*columns).order_by(*table.primary_key.columns)
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


def _texts(row: Row[Any]) -> list[Any]:
    return [
        base64.b64encode(value).decode()
        if isinstance(value, bytes)
        else str(value)
        if isinstance(value, UUID)
        else value
        for value in row
    ]


def read_object(line: bytes) -> dict[str, Any]:
    """The members of a line; none, where it is not an object."""
    try:
        found = json.loads(line)
    except (RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def not_one(path: pathlib.Path) -> InputError:
    """What is said of a file that is something else."""
    return InputError(f"`{path}` is not a backup of a platform")


AUTHENTICATOR = "backup"
FORMAT = "cloister-platform-backup/1"
OLDEST_SCHEMA = 1
BATCH = 500
MAX_LINE_BYTES = 1 << 20  # a sealed variable of 96 KiB in base64 takes 132 KiB
