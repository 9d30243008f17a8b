"""Restoring a backup (:mod:`cloister.platform.backup`) of this schema or an older one.

A restore makes the store, in one transaction: the tables of the backup's schema, its rows, then the
migrations up to the newest. Whatever fails on the way, a process that is killed included, leaves
no store. The file is read twice: once to know that a platform with this master key wrote it, before
a row of it is used, and once for its rows, whose HMAC is asked for again before they count: who
exchanges the file in between gains nothing.

Restoring goes back in time, and enclaves do not: each remembers the highest version of its bundle
and refuses lower ones. So every enclave's version jumps ahead, to :data:`VERSION_JUMP` for each
second since 1970: above all that an earlier restore, of this backup or another, began with and a
store has added since. What was revoked since the backup works again until it is revoked again; the
caller says so.
"""

import base64
import binascii
import contextlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from sqlalchemy import URL, LargeBinary, Table, Uuid, case, func, insert, select, update
from sqlalchemy.orm import Session

from cloister.errors import InputError, OutputError, StoreError
from cloister.platform import backup as backups
from cloister.platform import database as databases
from cloister.platform import migrations, schemas
from cloister.platform.backup import Backup
from cloister.platform.clock import from_ms
from cloister.platform.master_key import KeyService, context_of
from cloister.platform.records import record_activity
from cloister.platform.tables import Enclave, StoreRow
from cloister.platform.trust_class import TrustClass
from cloister.platform.vault import Vault, read_master_key, write_master_key


def restore(  # noqa: PLR0913 - where to, and what from
    directory: pathlib.Path,
    path: pathlib.Path,
    trust_class: TrustClass,
    *,
    now_ms: int,
    url: URL | None = None,
    wraps_key: KeyService | None = None,
    master_key: bytes | None = None,
) -> Backup:
    """Makes a store of what a backup has, at the newest schema, or nothing.

    Args:
        directory: Folder of the store, where there is none; the master key is in it, unless it is
            given or wrapped.
        path: The backup, of this schema or an older one.
        trust_class: Class of the store, which must be that of the backup.
        now_ms: The time, milliseconds since the Unix epoch.
        url: The store's PostgreSQL database; an SQLite file in the folder when absent.
        wraps_key: Who wrapped the master key of the backup; it is in a file when absent. That of
            the file, which nobody vouches for yet, could be of somebody who made up the file.
        master_key: The master key, which comes into the folder with the store.

    Raises:
        InputError: See :func:`cloister.platform.backup.check`; or the backup is of another class,
            its master key is kept elsewhere, or no platform with this master key wrote it.
        OutputError: Another master key is in the folder, or it cannot be written.
        StoreError: There is a store, or the master key or the database cannot be used.
    """
    found = backups.check(path)
    if found.trust_class is not trust_class:
        raise InputError(
            f"the backup is of class `{found.trust_class.value}`, the store of class"
            f" `{trust_class.value}`"
        )
    vault = _vault(directory, path, trust_class, wraps_key, master_key)
    _check_author(path, vault)
    tables = {table.name: table for table in schemas.tables(found.schema_version)}
    # In the store's lock: of two restores that bring the key, the one that fails takes none away.
    with databases.filling(directory, url=url) as session, _bringing(directory, master_key):
        connection = session.connection()
        migrations.upgrade(connection, schema_version=0, to=found.schema_version)
        _insert(session, path, tables, vault)
        _check(session, path, tables, found)
        migrations.upgrade(connection, schema_version=found.schema_version)
        _become_newest(session, found, now_ms)
    return found


def _vault(
    directory: pathlib.Path,
    path: pathlib.Path,
    trust_class: TrustClass,
    wraps_key: KeyService | None,
    master_key: bytes | None,
) -> Vault:
    """The vault of the backup: of its wrapped key, of the one given, or of that in the folder."""
    row = _store_row(path)
    wrapped = _bytes(path, row.get("key_wrapped"))  # schema 1 has none
    if wraps_key is None and wrapped is None:
        key = _key_of(directory, master_key)
    elif wraps_key is None or wrapped is None or row.get("key_uri") != wraps_key.uri:
        where = "in a file" if wrapped is None else "wrapped by another key service"
        raise InputError(
            f"the master key of `{path}` is {where}, not where that of the store is",
            hint="`master_key` of platform.toml says where; it must be that of the backup",
        )
    else:
        key = wraps_key.unwrap(wrapped, context_of(trust_class))
    vault = Vault(key, trust_class)
    try:
        vault.open(_bytes(path, row.get("key_check_sealed")) or b"", place=databases.KEY_CHECK)
    except StoreError as problem:
        raise InputError(
            f"`{path}` cannot be opened with this master key: a platform with another one wrote it",
            hint="every platform has a master key of its own; nothing was restored",
        ) from problem
    return vault


def _key_of(directory: pathlib.Path, given: bytes | None) -> bytes:
    """The key that is given, or in the folder; two of them must be one.

    Raises:
        OutputError: They differ.
        StoreError: That in the folder cannot be read.
    """
    path = directory / databases.MASTER_KEY_FILE
    if given is None or path.exists():
        found = read_master_key(path)
        if given not in {None, found}:
            raise OutputError(
                f"`{path}` is another master key",
                hint="a store that is restored into needs a folder of its own; if no store needs"
                " this key, move it away",
            )
        return found
    return given


@contextlib.contextmanager
def _bringing(directory: pathlib.Path, key: bytes | None) -> Iterator[None]:
    """Puts a master key into the folder, if it is not there; what fails takes it away again."""
    path = directory / databases.MASTER_KEY_FILE
    if key is None or _is_there(directory, key):
        yield
        return
    write_master_key(path, key)
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _is_there(directory: pathlib.Path, key: bytes) -> bool:
    """Whether the folder has this key; another one is an error."""
    return (directory / databases.MASTER_KEY_FILE).exists() and _key_of(directory, key) == key


def _store_row(path: pathlib.Path) -> Mapping[str, Any]:
    """The row that says what the store is, as the file has it."""
    lines = backups.lines(path)
    for line in lines:
        head = backups.read_object(line) if line.startswith(b"{") else {}
        if head.get("table") == StoreRow.__tablename__:
            try:
                return dict(zip(head["columns"], json.loads(next(lines)), strict=True))
            except (KeyError, RecursionError, StopIteration, TypeError, ValueError):
                break
    raise backups.not_one(path)


def _bytes(path: pathlib.Path, text: object) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise backups.not_one(path) from None


def _check_author(path: pathlib.Path, vault: Vault) -> None:
    """Whether a platform with this master key wrote all of a backup.

    Raises:
        InputError: It did not.
    """
    for _ in _authenticated(path, vault):
        pass


def _authenticated(path: pathlib.Path, vault: Vault) -> Iterator[bytes]:
    """Every line but the last, which at the end must vouch for those that were given.

    Raises:
        InputError: It does not.
    """
    authenticator, last = vault.authenticator(backups.AUTHENTICATOR), b""
    for line in backups.lines(path):
        if last:
            authenticator.update(last)
            yield last
        last = line
    try:
        authenticator.verify(bytes.fromhex(str(backups.read_object(last).get("hmac"))))
    except (InvalidSignature, ValueError):
        raise InputError(
            f"`{path}` was altered: a platform with this master key did not write it so"
        ) from None


def _insert(
    session: Session, path: pathlib.Path, tables: Mapping[str, Table], vault: Vault
) -> None:
    rows = _rows(path, tables, vault)
    for name, of_table in itertools.groupby(rows, lambda found: found[0]):
        while batch := [values for _, values in itertools.islice(of_table, backups.BATCH)]:
            session.execute(insert(tables[name]), batch)


def _rows(
    path: pathlib.Path, tables: Mapping[str, Table], vault: Vault
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a backup, in the order of its tables, which must be those of its schema."""
    table: Table | None = None
    columns: list[str] = []
    missing = set(tables)
    try:
        for number, line in enumerate(_authenticated(path, vault)):
            value = json.loads(line)
            if isinstance(value, list) and table is not None:
                yield table.name, _values(table, dict(zip(columns, value, strict=True)))
            elif number:
                table, columns = tables[value["table"]], value["columns"]
                if set(columns) != {column.name for column in schemas.columns(table)}:
                    raise backups.not_one(path)
                missing.remove(table.name)
    except (KeyError, RecursionError, TypeError, ValueError):
        raise backups.not_one(path) from None
    if missing:
        raise backups.not_one(path)


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


def _check(
    session: Session, path: pathlib.Path, tables: Mapping[str, Table], found: Backup
) -> None:
    """Whether the database has what the backup says it has, of the schema it says."""
    rows = sum(
        session.scalar(select(func.count()).select_from(table)) or 0 for table in tables.values()
    )
    store = tables[StoreRow.__tablename__]
    facts = session.execute(select(store.c.schema_version, store.c.trust_class)).all()
    if rows != found.rows or facts != [(found.schema_version, found.trust_class.value)]:
        raise backups.not_one(path)


def _become_newest(session: Session, found: Backup, now_ms: int) -> None:
    """What no migration does: the number of the schema, versions, and a word in the activity."""
    session.execute(
        update(StoreRow).values(schema_version=databases.SCHEMA_VERSION, restored_ms=now_ms)
    )
    ahead, of_now = Enclave.bundle_version + VERSION_JUMP, now_ms // 1000 * VERSION_JUMP
    # The first of them where the clock is behind that of an earlier restore.
    version = case((ahead > of_now, ahead), else_=of_now)
    session.execute(update(Enclave).values(bundle_version=version))
    taken, schema = from_ms(found.created_ms), found.schema_version
    message = f"restored from a backup of {taken:%Y-%m-%d %H:%M:%S} UTC, of schema {schema}"
    record_activity(session, now_ms, "store.restore", "store", message)


VERSION_JUMP = 1 << 20  # more than a store changes in a second, or between two backups
