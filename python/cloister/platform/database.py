"""Opening and making a store: one database, one master key, one trust class, one schema.

A store has a folder, mode 0700, for its master key, and a database: an SQLite file in that folder,
or PostgreSQL by its address. Whoever opens it says which class it must have, it is never guessed:
development code cannot open a production store, nor the reverse. The class is bound to the master
key, so editing the database does not change it.
"""

import contextlib
import dataclasses
import enum
import pathlib
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import URL, Engine, inspect, select, update
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.orm import Session

from cloister.errors import DatabaseFailed, OutputError, StoreError
from cloister.platform import engines
from cloister.platform.changes import Changes
from cloister.platform.master_key import KeyService, KeyServices, context_of, key_service
from cloister.platform.tables import StoreRow
from cloister.platform.trust_class import TrustClass
from cloister.platform.vault import Vault, create_master_key, read_master_key


class Older(enum.Enum):
    """What becomes of a store of an older schema that is opened."""

    KEPT = enum.auto()
    MIGRATED = enum.auto()
    REFUSED = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Database:
    """An open store: sessions on its database and the vault of its private values.

    ``schema_version`` is :data:`SCHEMA_VERSION`, unless it is open for a backup alone.
    """

    engine: Engine
    vault: Vault
    trust_class: TrustClass
    directory: pathlib.Path
    schema_version: int
    changes: Changes = dataclasses.field(default_factory=Changes)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A read transaction: one consistent view."""
        with _as_store_errors(_place(self.directory, self.engine)), Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A write transaction: committed at the end, or nothing of it when an error is raised.

        It takes the write lock at its start, so that what it reads stays true until it commits.
        """
        engine = self.engine.execution_options(cloister_writes=True)
        with (
            _as_store_errors(_place(self.directory, self.engine)),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
        self.changes.announce()

    def close(self) -> None:
        """Ends every wait for a change and closes every connection."""
        self.changes.close()
        self.engine.dispose()


def create(
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    now_ms: int,
    url: URL | None = None,
    wraps_key: KeyService | None = None,
) -> Database:
    """Makes a store in ``directory``, or opens the one that is there.

    Making one is finished or undone as a whole: tables and the row that says what the store is are
    written in one transaction, and a directory without them is completed by the next call.

    Args:
        directory: Its folder.
        trust_class: Its class.
        now_ms: When it is made, milliseconds since the Unix epoch.
        url: Its PostgreSQL database; an SQLite file in the folder when absent.
        wraps_key: Who wraps its master key; a file in the folder when absent.

    Raises:
        OutputError: The directory cannot be made or written.
        StoreError: There is a store of another class, or one that cannot be opened.
    """
    _make_directory(directory, has_key_file=wraps_key is None, has_database_file=url is None)
    engine = _engine(directory, url)
    place = _place(directory, engine)
    try:
        if _found(engine, place) is None:
            _make(engine, directory, trust_class, now_ms=now_ms, wraps_key=wraps_key)
        services = key_service if wraps_key is None else lambda _: wraps_key
        return _opened(engine, directory, trust_class, older=Older.MIGRATED, services=services)
    except BaseException:
        engine.dispose()
        raise


def open_existing(
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    url: URL | None = None,
    migrates: bool = True,
    services: KeyServices = key_service,
) -> Database:
    """Opens the store in ``directory``, which must have this class.

    Args:
        directory: Its folder.
        trust_class: Its class.
        url: Its PostgreSQL database; an SQLite file in the folder when absent.
        migrates: Bring an older schema up to date, as local stores are; else it is refused.
        services: Finds who wraps the master key.

    Raises:
        StoreError: There is none, it has another class, another schema, another master key, or is
            damaged.
    """
    older = Older.MIGRATED if migrates else Older.REFUSED
    return _open_existing(directory, trust_class, url=url, older=older, services=services)


def open_unmigrated(
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    url: URL | None = None,
    services: KeyServices = key_service,
) -> Database:
    """Opens the store in ``directory`` at the schema it has, for a backup and nothing else.

    The models are those of the newest schema, so whoever reads an older one brings its tables
    (:mod:`cloister.platform.schemas`).

    Args:
        directory: Its folder.
        trust_class: Its class.
        url: Its PostgreSQL database; an SQLite file in the folder when absent.
        services: Finds who wraps the master key.

    Raises:
        StoreError: There is none, it has another class, a newer schema, another master key, or is
            damaged.
    """
    return _open_existing(directory, trust_class, url=url, older=Older.KEPT, services=services)


@contextlib.contextmanager
def filling(directory: pathlib.Path, *, url: URL | None = None) -> Iterator[Session]:
    """A write transaction where there is no store yet: it makes one, or leaves nothing.

    Args:
        directory: The folder, which is made; its master key is the caller's matter.
        url: The PostgreSQL database; an SQLite file in the folder when absent.

    Raises:
        OutputError: The directory cannot be made or written.
        StoreError: There is a store, or the database cannot be used.
    """
    _make_directory(directory, has_key_file=False, has_database_file=url is None)
    engine = _engine(directory, url)
    try:
        with _changing(engine, directory) as session:
            if _has_store(session):
                raise StoreError(
                    f"there is a store in `{_place(directory, engine)}`",
                    hint="a backup is restored into a folder, or a database, without one",
                )
            yield session
    finally:
        engine.dispose()


def _open_existing(
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    url: URL | None,
    older: Older,
    services: KeyServices,
) -> Database:
    if url is None and not (directory / DATABASE_FILE).is_file():
        raise StoreError(
            f"there is no store in `{directory}`", hint="`cloister init NAME` makes one"
        )
    engine = _engine(directory, url)
    try:
        return _opened(engine, directory, trust_class, older=older, services=services)
    except BaseException:
        engine.dispose()
        raise


def _make_directory(
    directory: pathlib.Path, *, has_key_file: bool, has_database_file: bool
) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        if has_key_file:
            with contextlib.suppress(FileExistsError):
                create_master_key(directory / MASTER_KEY_FILE)
        if has_database_file:
            (directory / DATABASE_FILE).touch(mode=0o600, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"cannot make a store in `{directory}`: {problem.strerror}") from None


def _make(
    engine: Engine,
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    now_ms: int,
    wraps_key: KeyService | None,
) -> None:
    wrapped = None
    if wraps_key is None:
        key = read_master_key(directory / MASTER_KEY_FILE)
    else:
        key, wrapped = wraps_key.generate(context_of(trust_class))
    row = StoreRow(
        id=1,
        schema_version=SCHEMA_VERSION,
        trust_class=trust_class.value,
        created_ms=now_ms,
        key_check_sealed=Vault(key, trust_class).seal(secrets.token_bytes(16), place=KEY_CHECK),
        key_uri=None if wraps_key is None else wraps_key.uri,
        key_wrapped=wrapped,
    )
    with _changing(engine, directory) as session:
        has_tables = _has_store(session)
        # Another process may have been faster: the lock is ours from here on.
        if has_tables and session.scalars(select(StoreRow.id)).one_or_none() is not None:
            return
        # Programs of schema 1 made tables and row apart: one that was stopped left the tables.
        _migrate(session, 1 if has_tables else 0)
        session.add(row)


def _opened(
    engine: Engine,
    directory: pathlib.Path,
    trust_class: TrustClass,
    *,
    older: Older,
    services: KeyServices,
) -> Database:
    """Class, schema, master key: in this order, for the first is what people get wrong."""
    place = _place(directory, engine)
    found = _found(engine, place)
    if found is None:
        raise StoreError(
            f"there is no store in `{place}`, or making it was interrupted",
            hint="`cloister init NAME` makes a local one, `cloister platform init` the platform's",
        )
    found_version, found_class = found
    if found_class != trust_class.value:
        raise StoreError(
            f"the store in `{place}` is of class `{found_class}`, expected `{trust_class.value}`",
            hint="development and production never share a store, keys or enclaves",
        )
    if found_version > SCHEMA_VERSION:
        raise StoreError(
            f"the store in `{place}` has schema {found_version}, this program reads schema"
            f" {SCHEMA_VERSION}",
            hint="use the version of cloister that wrote it, or a newer one that converts it",
        )
    if found_version < SCHEMA_VERSION and older is not Older.KEPT:
        if older is Older.REFUSED:
            raise StoreError(
                f"the store in `{place}` has schema {found_version}, this program needs schema"
                f" {SCHEMA_VERSION}",
                hint="`cloister platform backup FILE`, then `cloister platform migrate`",
            )
        with _changing(engine, directory) as session:
            version = session.scalars(select(StoreRow.schema_version)).one()
            _migrate(session, version)
            session.execute(update(StoreRow).values(schema_version=SCHEMA_VERSION))
        found_version = SCHEMA_VERSION
    with _as_store_errors(place), Session(engine) as session:
        row = _row(session)
    vault = Vault(_master_key(row, directory, trust_class, services), trust_class)
    vault.open(row["key_check_sealed"], place=KEY_CHECK)
    return Database(engine, vault, trust_class, directory, found_version)


def _found(engine: Engine, place: str) -> tuple[int, str] | None:
    """Schema and class of the store that is there, whatever its schema; nothing is changed."""
    with _as_store_errors(place), Session(engine) as session:
        if not _has_store(session):
            return None
        row = session.execute(select(StoreRow.schema_version, StoreRow.trust_class)).one_or_none()
        return None if row is None else (row.schema_version, row.trust_class)


def _row(session: Session) -> Mapping[str, Any]:
    """The row of a store, with the columns that its schema has."""
    table = StoreRow.__tablename__
    known = {one["name"] for one in inspect(session.connection()).get_columns(table)}
    columns = [column for column in StoreRow.__table__.columns if column.name in known]
    return dict(session.execute(select(*columns)).mappings().one())


def _has_store(session: Session) -> bool:
    return inspect(session.connection()).has_table(StoreRow.__tablename__)


def _migrate(session: Session, schema_version: int) -> None:
    """In the caller's transaction, with the write lock taken."""
    if schema_version < SCHEMA_VERSION:
        from cloister.platform import migrations  # noqa: PLC0415 - 100 ms for a rare occasion

        migrations.upgrade(session.connection(), schema_version=schema_version)


@contextlib.contextmanager
def _changing(engine: Engine, directory: pathlib.Path) -> Iterator[Session]:
    """A write transaction of a store that is not open yet."""
    with (
        _as_store_errors(_place(directory, engine)),
        Session(engine.execution_options(cloister_writes=True)) as session,
        session.begin(),
    ):
        yield session


def _master_key(
    row: Mapping[str, Any],
    directory: pathlib.Path,
    trust_class: TrustClass,
    services: KeyServices,
) -> bytes:
    uri, wrapped = row.get("key_uri"), row.get("key_wrapped")  # schema 1 lacks them
    if uri is None or wrapped is None:
        return read_master_key(directory / MASTER_KEY_FILE)
    return services(uri).unwrap(wrapped, context_of(trust_class))


def _engine(directory: pathlib.Path, url: URL | None) -> Engine:
    return engines.sqlite(directory / DATABASE_FILE) if url is None else engines.postgresql(url)


def _place(directory: pathlib.Path, engine: Engine) -> str:
    """Where a store is, for messages: its folder, or the database's address without a password."""
    if engine.url.get_backend_name() == "sqlite":
        return str(directory)
    return engine.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


@contextlib.contextmanager
def _as_store_errors(place: str) -> Iterator[None]:
    """The database's own errors, as the package's; statements and parameters stay out of them."""
    try:
        yield
    except DatabaseError as problem:
        # The lines after the first may repeat values of a row.
        said = (str(problem.orig).splitlines() or [""])[0]
        raise DatabaseFailed(f"the store in `{place}` cannot be used: {said}") from problem
    except (SQLAlchemyError, sqlite3.Error) as problem:
        raise DatabaseFailed(
            f"the store in `{place}` cannot be used: {type(problem).__name__}"
        ) from problem


DATABASE_FILE = "store.sqlite3"
MASTER_KEY_FILE = "master.key"
SCHEMA_VERSION = 3
KEY_CHECK = "store/1/key_check"
