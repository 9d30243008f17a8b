"""What a production host refuses to start with.

The host is not trusted (architecture.md §3): a key that it holds is a key that is lost. So it looks
at its own state first and refuses a platform store, which holds private halves, and everything
under a development root, whose documents prove nothing to anybody else (T-23).
"""

import contextlib
import hashlib
import itertools
import os
import pathlib
import sqlite3
from collections.abc import Iterator

from cloister.errors import ConfigError

AWS_NITRO_ROOT_SHA256 = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
"""Digest of the AWS Nitro Enclaves root G1, DER (docs.aws.amazon.com, "Verifying the root of
trust")."""

MAX_FILES = 100_000
_SQLITE_MAGIC = b"SQLite format 3\x00"
_PRIVATE_TABLES = {"app_keys": "app keys", "service_keys": "service keys"}
_DEVELOPMENT_FILES = frozenset(
    {"nsm-root.key", "nsm-root.pem", "tls-ca.key", "tls-ca.pem", "dev-ca"}
)
_HINT = "a production host is given its own empty --state-dir, and reaches the platform by URL"


def require_production_anchor(root: bytes) -> None:
    """Refuses every trust anchor but the AWS Nitro root.

    Args:
        root: The anchor, DER.

    Raises:
        ConfigError: It is another one.
    """
    if hashlib.sha256(root).hexdigest() != AWS_NITRO_ROOT_SHA256:
        raise ConfigError(
            "the trust anchor is not the AWS Nitro root: a production host takes no other",
            hint="a development enclave runs with `cloister run`",
        )


def require_production_state(state: pathlib.Path) -> None:
    """Refuses a state folder with private halves or anything of a development root in it.

    Every file below ``state`` is looked at: by name, and SQLite files by what their tables hold.

    Raises:
        ConfigError: Such a thing is there, a store cannot be read, or there are more than
            ``MAX_FILES`` files; the message names the file.
    """
    for position, path in enumerate(_files(state)):
        if position >= MAX_FILES:
            raise ConfigError(f"{state} has more than {MAX_FILES} files", hint=_HINT)
        if path.name in _DEVELOPMENT_FILES:
            raise ConfigError(f"{path} belongs to a development root", hint=_HINT)
        if _is_sqlite(path):
            _check_store(path)


def _files(state: pathlib.Path) -> Iterator[pathlib.Path]:
    for folder, folders, names in os.walk(state):
        for name in itertools.chain(folders, names):
            yield pathlib.Path(folder) / name


def _is_sqlite(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC


def _check_store(path: pathlib.Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            tables = {
                str(name)
                for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            for table, meaning in _PRIVATE_TABLES.items():
                # Names of our own, not input; a table cannot be a bound parameter.
                counting = f"SELECT EXISTS (SELECT 1 FROM {table})"  # noqa: S608
                if table in tables and store.execute(counting).fetchone()[0]:
                    raise ConfigError(
                        f"{path} holds private halves of {meaning}: it is a platform's store",
                        hint=_HINT,
                    )
            for table in ("store", "enclaves"):
                _check_class(store, path, table, tables)
    except sqlite3.Error as problem:
        raise ConfigError(f"{path} cannot be read as a store: {problem}", hint=_HINT) from problem


def _check_class(
    store: sqlite3.Connection, path: pathlib.Path, table: str, tables: set[str]
) -> None:
    if table not in tables:
        return
    columns = {str(row[1]) for row in store.execute(f"PRAGMA table_info({table})")}
    if "trust_class" not in columns:
        return
    asking = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE trust_class = 'development')"  # noqa: S608
    if store.execute(asking).fetchone()[0]:
        raise ConfigError(f"{path} is of a development root", hint=_HINT)
