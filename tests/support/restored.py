"""Stores that a backup is restored into."""

import pathlib
import shutil

import pytest

from cloister.errors import StoreError
from cloister.platform import database as databases
from cloister.platform import restoring
from cloister.platform.database import Database
from cloister.platform.engines import database_url
from cloister.platform.trust_class import TrustClass


def prepared(folder: pathlib.Path, like: Database) -> pathlib.Path:
    """A folder without a store, with the master key of another one."""
    folder.mkdir(mode=0o700)
    shutil.copy2(like.directory / databases.MASTER_KEY_FILE, folder)
    return folder


def restored(
    folder: pathlib.Path, file: pathlib.Path, *, now_ms: int = 9, url: str | None = None
) -> Database:
    """What a backup is restored to in a prepared folder, opened as a server opens it."""
    address = database_url(url) if url else None
    restoring.restore(folder, file, TrustClass.DEVELOPMENT, now_ms=now_ms, url=address)
    return databases.open_existing(folder, TrustClass.DEVELOPMENT, url=address, migrates=False)


def assert_no_store(folder: pathlib.Path, url: str | None = None) -> None:
    """Nothing is there that a server would open, not even the tables of a store."""
    address = database_url(url) if url else None
    with pytest.raises(StoreError, match="there is no store"):
        databases.open_existing(folder, TrustClass.DEVELOPMENT, url=address, migrates=False)
