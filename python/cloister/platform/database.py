"""Opening and making a store: SQLite, write-ahead log, foreign keys, one trust class, one schema.

A store is a directory, mode 0700, that holds the database and the master key. Whoever opens it says
which class it must have, it is never guessed: development code cannot open a production store, nor
the reverse. The class is bound to the master key, so editing the database does not change it.
"""

import contextlib
import dataclasses
import pathlib
import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from cloister.errors import OutputError, StoreError
from cloister.platform.changes import Changes
from cloister.platform.tables import Base, StoreRow
from cloister.platform.trust_class import TrustClass
from cloister.platform.vault import Vault, create_master_key, read_master_key


@dataclasses.dataclass(frozen=True, slots=True)
class Database:
    """An open store: sessions on its database and the vault of its private values."""

    engine: Engine
    vault: Vault
    trust_class: TrustClass
    directory: pathlib.Path
    changes: Changes = dataclasses.field(default_factory=Changes)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A read transaction: one consistent view."""
        with _as_store_errors(self.directory), Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A write transaction: committed at the end, or nothing of it when an error is raised.

        It takes the write lock at its start, so that what it reads stays true until it commits.
        """
        engine = self.engine.execution_options(cloister_writes=True)
        with (
            _as_store_errors(self.directory),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
        self.changes.announce()

    def close(self) -> None:
        """Ends every wait for a change and closes every connection."""
        self.changes.close()
        self.engine.dispose()


def create(directory: pathlib.Path, trust_class: TrustClass, *, now_ms: int) -> Database:
    """Makes a store in ``directory``, or opens the one that is there.

    Making one is finished or undone as a whole: the row that says what the store is, is written
    last, and a directory without it is completed by the next call.

    Raises:
        OutputError: The directory cannot be made or written.
        StoreError: There is a store of another class, or one that cannot be opened.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        with contextlib.suppress(FileExistsError):
            create_master_key(directory / MASTER_KEY_FILE)
        (directory / DATABASE_FILE).touch(mode=0o600, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"cannot make a store in `{directory}`: {problem.strerror}") from None
    vault = Vault(read_master_key(directory / MASTER_KEY_FILE), trust_class)
    engine = _engine(directory / DATABASE_FILE)
    with _as_store_errors(directory):
        Base.metadata.create_all(engine.execution_options(cloister_writes=True))
    database = Database(engine, vault, trust_class, directory)
    with database.writing() as session:
        if session.get(StoreRow, 1) is None:
            session.add(
                StoreRow(
                    id=1,
                    schema_version=SCHEMA_VERSION,
                    trust_class=trust_class.value,
                    created_ms=now_ms,
                    key_check_sealed=vault.seal(secrets.token_bytes(16), place=KEY_CHECK),
                )
            )
    _check(database)
    return database


def open_existing(directory: pathlib.Path, trust_class: TrustClass) -> Database:
    """Opens the store in ``directory``, which must have this class.

    Raises:
        StoreError: There is none, it has another class, another schema, another master key, or is
            damaged.
    """
    path = directory / DATABASE_FILE
    if not path.is_file():
        raise StoreError(
            f"there is no store in `{directory}`", hint="`cloister init NAME` makes one"
        )
    vault = Vault(read_master_key(directory / MASTER_KEY_FILE), trust_class)
    database = Database(_engine(path), vault, trust_class, directory)
    try:
        _check(database)
    except StoreError:
        database.close()
        raise
    return database


def _check(database: Database) -> None:
    """Class, schema, master key: in this order, for the first is what people get wrong."""
    with database.reading() as session:
        row = session.scalars(select(StoreRow)).one_or_none()
    if row is None:
        raise StoreError(
            f"the store in `{database.directory}` is empty: making it was interrupted",
            hint="`cloister init NAME` makes it again",
        )
    if row.trust_class != database.trust_class.value:
        raise StoreError(
            f"the store in `{database.directory}` is of class `{row.trust_class}`, expected"
            f" `{database.trust_class.value}`",
            hint="development and production never share a store, keys or enclaves",
        )
    if row.schema_version != SCHEMA_VERSION:
        raise StoreError(
            f"the store in `{database.directory}` has schema {row.schema_version}, this program"
            f" reads schema {SCHEMA_VERSION}",
            hint="use the version of cloister that wrote it, or a newer one that converts it",
        )
    database.vault.open(row.key_check_sealed, place=KEY_CHECK)


def _engine(path: pathlib.Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=BUSY_SECONDS,
        hide_parameters=True,  # values stay out of logs and error texts
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # FULL: a revocation that was confirmed must survive a power cut (sqlite.org/pragma.html).
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Starts the transaction itself: the driver would start a deferred one, and only at a write."""
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("cloister_writes") else "BEGIN")


@contextlib.contextmanager
def _as_store_errors(directory: pathlib.Path) -> Iterator[None]:
    """The database's own errors, as the package's; statements and parameters stay out of them."""
    try:
        yield
    except DatabaseError as problem:
        raise StoreError(
            f"the store in `{directory}` cannot be used: {problem.orig}",
        ) from problem
    except (SQLAlchemyError, sqlite3.Error) as problem:
        raise StoreError(
            f"the store in `{directory}` cannot be used: {type(problem).__name__}"
        ) from problem


DATABASE_FILE = "store.sqlite3"
MASTER_KEY_FILE = "master.key"
SCHEMA_VERSION = 1
KEY_CHECK = "store/1/key_check"
BUSY_SECONDS = 10.0  # longest wait for another process's write
POOL_SIZE = 5
POOL_OVERFLOW = 32
