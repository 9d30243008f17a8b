"""Schemas: the tables are what the migrations make, and a store of schema 1 is brought up to it."""

import pathlib
import re
import sqlite3
import uuid

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from tests.support.platform_world import World

from cloister.errors import StoreError
from cloister.platform import database as databases
from cloister.platform.api_keys import ApiKeys
from cloister.platform.database import Database
from cloister.platform.registry import Registry
from cloister.platform.tables import Base
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables

DUMP = pathlib.Path(__file__).parents[2] / "vectors" / "platform" / "schema_1.sql"
ENCLAVE = uuid.UUID("0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33")


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def schema_of(directory: pathlib.Path) -> dict[str, str]:
    with sqlite3.connect(directory / "store.sqlite3") as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        found = {name: re.sub(r"\s+", " ", text) for name, text in rows}
    connection.close()
    return found


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
    """A store of schema 1."""
    text = DUMP.read_text()
    directory = tmp_path / "old"
    directory.mkdir(mode=0o700)
    key = re.search(r"Master key: ([0-9a-f]{64})", text)
    assert key is not None
    (directory / "master.key").write_bytes(bytes.fromhex(key[1]))
    (directory / "master.key").chmod(0o600)
    connection = sqlite3.connect(directory / "store.sqlite3")
    connection.executescript(text)
    connection.close()
    return directory


def test_the_migrations_make_the_tables(world: World) -> None:
    assert differences(world.database) == []
    with world.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE teams ADD COLUMN extra INTEGER")
    assert differences(world.database) != []


def test_a_store_of_schema_1_keeps_everything(old: pathlib.Path) -> None:
    text = DUMP.read_text()
    database = databases.open_existing(old, TrustClass.DEVELOPMENT)
    try:
        assert differences(database) == []
        registry = Registry(database)
        record = registry.enclave(ENCLAVE)
        assert record is not None
        assert (record.name, record.bundle_version) == ("hello", 3)
        assert registry.app_public_key(record.app_uuid).hex() in text
        key = re.search(r"API key: (ck_\S+);", text)
        assert key is not None
        assert ApiKeys(database, record.app_uuid).works(key[1])
        assert Variables(database, ENCLAVE).get("GREETING").value == b"hello\n"
        assert len(registry.deployments(ENCLAVE)) == 1
    finally:
        database.close()
    databases.open_existing(old, TrustClass.DEVELOPMENT, migrates=False).close()


def test_a_migrated_store_has_the_schema_of_a_new_one(old: pathlib.Path, world: World) -> None:
    databases.open_existing(old, TrustClass.DEVELOPMENT).close()
    migrated, new = schema_of(old), schema_of(world.store.directory)
    assert migrated.keys() == new.keys()
    assert {name: sorted(migrated[name]) for name in migrated} == {
        name: sorted(new[name]) for name in new
    }


def test_a_server_does_not_migrate_by_itself(old: pathlib.Path) -> None:
    before = schema_of(old)
    with pytest.raises(StoreError, match="needs schema 3") as caught:
        databases.open_existing(old, TrustClass.DEVELOPMENT, migrates=False)
    assert "platform migrate" in str(caught.value.hint)
    assert schema_of(old) == before


def test_a_migration_that_fails_leaves_the_schema_it_found(old: pathlib.Path) -> None:
    connection = sqlite3.connect(old / "store.sqlite3")
    connection.execute("CREATE TABLE enclave_events (id INTEGER)")  # the last step cannot be done
    connection.commit()
    connection.close()
    before = schema_of(old)
    with pytest.raises(StoreError, match="cannot be used"):
        databases.open_existing(old, TrustClass.DEVELOPMENT)
    assert schema_of(old) == before
    connection = sqlite3.connect(old / "store.sqlite3")
    assert connection.execute("SELECT schema_version FROM store").fetchone() == (1,)
    connection.execute("DROP TABLE enclave_events")
    connection.commit()
    connection.close()
    databases.open_existing(old, TrustClass.DEVELOPMENT).close()


def test_making_a_store_that_was_interrupted_is_completed(old: pathlib.Path) -> None:
    """Programs of schema 1 made the tables first and the row after them."""
    connection = sqlite3.connect(old / "store.sqlite3")
    connection.executescript(
        "PRAGMA foreign_keys=OFF; DELETE FROM store; DELETE FROM service_keys; DELETE FROM app_keys"
    )
    connection.close()
    with pytest.raises(StoreError, match="interrupted"):
        databases.open_existing(old, TrustClass.DEVELOPMENT)
    database = databases.create(old, TrustClass.DEVELOPMENT, now_ms=1)
    assert differences(database) == []
    database.close()
