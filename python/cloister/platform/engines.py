"""Connections to the database of a store, SQLite or PostgreSQL, with the same promises on both.

A write transaction takes the one write lock of the store at its start, so that what it reads stays
true until it commits; a read transaction is one consistent view. On SQLite that is ``BEGIN
IMMEDIATE`` and ``BEGIN`` with the write-ahead log; on PostgreSQL an advisory lock of the
transaction, and ``REPEATABLE READ``. One writer at a time is enough for what a platform is asked.

Every wait has an end: :data:`BUSY_SECONDS` for the lock, as long again for a statement.
"""

import pathlib
import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from cloister.errors import ConfigError


def database_url(text: str) -> URL:
    """A database by its address: ``postgresql://user@host:port/database``.

    Options of libpq may follow as a query; ``?host=/run/postgresql`` is a Unix socket.

    Raises:
        ConfigError: Not such an address. The message does not repeat it: it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "the address of the database cannot be read: expected"
            " postgresql://user@host:port/database"
        ) from None
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigError(
            "the address of the database does not begin with postgresql://",
            hint="without an address the store is an SQLite file in the platform's folder",
        )
    if not url.database:
        raise ConfigError("the address of the database does not name a database")
    return url.set(drivername="postgresql+psycopg")


def has_password(url: URL) -> bool:
    """Whether an address holds a password: in its place, or as an option of libpq.

    The options are libpq's own (PostgreSQL, 34.1.2): ``password``, and ``sslpassword`` of a key.
    """
    return bool(url.password) or not SECRET_OPTIONS.isdisjoint(url.query)


def sqlite(path: pathlib.Path) -> Engine:
    """An engine on an SQLite file."""
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=BUSY_SECONDS,
        hide_parameters=True,  # values stay out of logs and error texts
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def postgresql(url: URL) -> Engine:
    """An engine on a PostgreSQL database, which need not be reachable.

    Raises:
        ConfigError: The driver is not installed.
    """
    wait_ms = int(BUSY_SECONDS * 1000)
    limits = (
        f"-c lock_timeout={wait_ms} -c statement_timeout={2 * wait_ms}"
        f" -c idle_in_transaction_session_timeout={6 * wait_ms} -c synchronous_commit=on"
    )
    # The server keeps transactions in order; what it is told beside that is the operator's.
    given = url.query.get("options", "")
    options = f"{limits} {given if isinstance(given, str) else ' '.join(given)}".strip()
    try:
        engine = create_engine(
            url.difference_update_query(["options"]),
            connect_args={
                "application_name": "cloister",
                "connect_timeout": CONNECT_SECONDS,
                "options": options,
            },
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=BUSY_SECONDS,
            pool_pre_ping=True,  # a server that was restarted costs a connection, not a request
            hide_parameters=True,
        )
    except ModuleNotFoundError:
        raise ConfigError(
            "PostgreSQL needs its driver, which is not installed",
            hint="pip install 'cloister[postgresql]'",
        ) from None
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # FULL: a revocation that was confirmed must survive a power cut (sqlite.org/pragma.html).
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """Starts the transaction itself: the driver would start a deferred one, and only at a write."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """The driver has sent ``BEGIN`` before this statement."""
    if _writes(connection):
        # At its own level, READ COMMITTED, every statement after this one sees what the writer
        # before has committed.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _writes(connection: Connection) -> bool:
    options: dict[str, Any] = dict(connection.get_execution_options())
    return bool(options.get("cloister_writes"))


BUSY_SECONDS = 10.0  # longest wait for another process's write
CONNECT_SECONDS = 5
POOL_SIZE = 5
SECRET_OPTIONS = frozenset({"password", "sslpassword"})
POOL_OVERFLOW = 32
WRITE_LOCK = int.from_bytes(b"cloister", "big")  # advisory locks are numbers, one name space each
