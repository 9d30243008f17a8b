"""Schemas of the store, one migration for each step, run by Alembic.

A store is made by running all of them and brought up to date by running those it lacks, on SQLite
and PostgreSQL alike, in the one transaction that also writes the new number into the store's row: a
process that dies on the way leaves the schema it found. The number of a schema is the number of its
last migration. Whether a store may be migrated is decided in :mod:`cloister.platform.database`.

Alembic is imported here and in the migrations alone: one that is up to date does not pay for it.
"""

import pathlib

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from cloister.platform.migrations import settings


def upgrade(connection: Connection, *, schema_version: int, to: int | None = None) -> None:
    """Brings a store from a schema to a newer one, within the caller's transaction.

    Args:
        connection: In a write transaction.
        schema_version: The schema the store has; 0 when it has none.
        to: The schema it gets; the newest when absent.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(pathlib.Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    if schema_version:
        # Stores of schema 1 were made before Alembic kept the number.
        command.stamp(config, settings.revision(schema_version))
    command.upgrade(config, "head" if to is None else settings.revision(to))
