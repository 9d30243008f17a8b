"""Tables of a schema as its migrations made them, whatever the models have become since.

A backup is written and read with the columns of its own schema. They are found by running the
migrations up to it in a database in memory, so nothing has to be kept beside a migration, and
nothing but a migration says what a schema was. Types are SQLAlchemy's general ones: the same tables
read and write SQLite and PostgreSQL.
"""

from typing import Any

from sqlalchemy import CHAR, MetaData, Table, Uuid, create_engine, event

from cloister.platform import migrations


def tables(schema_version: int) -> list[Table]:
    """Every table of a schema whose rows outlive a minute, those that are referred to first.

    Args:
        schema_version: One there is a migration for.
    """
    metadata = MetaData()
    event.listen(metadata, "column_reflect", _general)
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            migrations.upgrade(connection, schema_version=0, to=schema_version)
            metadata.reflect(connection)
    finally:
        engine.dispose()
    return [table for table in metadata.sorted_tables if table.name not in TRANSIENT]


def columns(table: Table) -> list[Any]:
    """What a backup has of a table: rows that number themselves are numbered anew, in order."""
    return [column for column in table.columns if table.name not in NUMBERED or column.name != "id"]


def _general(_inspector: object, _table: object, column: dict[str, Any]) -> None:
    """SQLite has no type for a UUID: SQLAlchemy keeps its 32 digits, and nothing else is CHAR."""
    found = column["type"]
    column["type"] = Uuid() if isinstance(found, CHAR) else found.as_generic()


NUMBERED = frozenset({"activity", "enclave_events", "releases"})
TRANSIENT = frozenset({"alembic_version", "challenges"})
