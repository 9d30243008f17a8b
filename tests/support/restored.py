"""Stores that a backup is restored into."""

import pathlib
import shutil

from cloister.platform import database as databases
from cloister.platform.database import Database
from cloister.platform.engines import database_url
from cloister.platform.trust_class import TrustClass


def new_store(folder: pathlib.Path, like: Database, url: str | None = None) -> Database:
    """An empty store with the master key of another."""
    folder.mkdir(mode=0o700)
    shutil.copy2(like.directory / "master.key", folder / "master.key")
    return databases.create(
        folder, TrustClass.DEVELOPMENT, now_ms=5, url=database_url(url) if url else None
    )
