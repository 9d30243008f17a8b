"""Backups and stores of every schema, on SQLite and PostgreSQL, up to an enclave's bundle.

``tests/vectors/platform/backup_schema_N`` are kept as they were written; stores of schema N are
made for the tests (:mod:`tests.support.older_stores`).
"""

import datetime as dt
import json
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, select
from tests.support import postgresql
from tests.support.older_stores import (
    FACTS,
    RAW,
    SCHEMAS,
    counts,
    filled,
    folder_of_vectors,
    older,
    vector,
)
from tests.support.platform_world import PCRS, ManualClock, SimulatedBoot, World
from tests.support.restored import assert_no_store, prepared, restored

from cloister.errors import StoreError
from cloister.platform import backup
from cloister.platform import database as databases
from cloister.platform.api_keys import ApiKeys
from cloister.platform.clock import to_ms
from cloister.platform.database import Database
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.engines import database_url
from cloister.platform.tables import Activity, Base
from cloister.platform.trust_class import TrustClass


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    yield from postgresql.running()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made, _ = filled(tmp_path_factory.mktemp("world"))
    yield made
    made.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """An empty PostgreSQL database; nothing for SQLite."""
    # SQLite's tests run where PostgreSQL is not installed.
    is_file = request.param == "sqlite"
    return None if is_file else str(request.getfixturevalue("server").database())


def rows_in(file: pathlib.Path) -> dict[str, int]:
    """How many rows each table has in a backup, read without the product."""
    found: dict[str, int] = {}
    table = ""
    for line in map(json.loads, file.read_text().splitlines()[1:-1]):
        if isinstance(line, dict):
            table = line["table"]
            found[table] = 0
        else:
            found[table] += 1
    return found


def differences(database: Database) -> list[object]:
    """What a database lacks of the models' tables, or has beside them."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def released(database: Database, folder: pathlib.Path, enclave: uuid.UUID, key: bytes) -> Any:
    """The bundle that a new boot of the image of the backup is given."""
    clock = ManualClock(dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC))
    boot = SimulatedBoot(clock, root_dir=folder)
    root = folder / "nsm-root.pem"
    platform = EmbeddedPlatform(database, development_root=root, clock=clock)
    challenge = platform.issue_challenge(enclave)
    return boot.key.open_bundle(
        platform.provision(enclave, boot.document(challenge)),
        service_keys=[key],
        enclave=str(enclave),
        challenge=challenge,
        pcr0=PCRS[0],
        minimum_version=0,
        now_ms=to_ms(clock()),
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_backup_of_any_schema_becomes_a_platform_that_releases(
    tmp_path: pathlib.Path, schema: int, url: str | None
) -> None:
    file = vector(schema)
    in_file = rows_in(file)
    assert min(in_file.values()) > 0, "a table without rows proves nothing"
    assert backup.check(file).schema_version == schema
    database = restored(folder_of_vectors(tmp_path / "restored"), file, url=url)
    try:
        assert database.schema_version == databases.SCHEMA_VERSION
        assert differences(database) == []
        after = counts(database.engine)
        made = in_file | {"activity": in_file["activity"] + 1}
        assert after == dict.fromkeys(after, 0) | made
        enclave, app = uuid.UUID(FACTS["enclave"]), uuid.UUID(FACTS["app"])
        opened = released(database, tmp_path / "root", enclave, bytes.fromhex(FACTS["service_key"]))
        assert opened["env"] == [("RAW", RAW, False)]
        assert [one[0] for one in opened["api_keys"]] == [FACTS["api_key"].split("_")[1]]
        assert opened["version"] > 1 << 20
        # Of schema 3 the recorded head comes back; before, there was none to lose.
        assert len(opened["objects"]) == (schema == SCHEMAS[-1])
        assert ApiKeys(database, app).works(FACTS["api_key"])
        (said,) = [one for one in activity(database) if one.kind == "store.restore"]
        assert said.message.endswith(f"of schema {schema}")
    finally:
        database.close()


def activity(database: Database) -> list[Activity]:
    """What was done, oldest first."""
    with database.reading() as session:
        return list(session.scalars(select(Activity).order_by(Activity.id)))


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("crosses", [False, True], ids=["within", "across"])
def test_a_store_is_backed_up_before_it_is_migrated(  # noqa: PLR0913 - each is one side of it
    request: pytest.FixtureRequest,
    world: World,
    tmp_path: pathlib.Path,
    schema: int,
    url: str | None,
    *,
    crosses: bool,
) -> None:
    folder = older(world, tmp_path / "older", schema, url)
    address = database_url(url) if url else None
    if schema < databases.SCHEMA_VERSION:
        with pytest.raises(StoreError, match=f"has schema {schema}, .* needs schema"):
            databases.open_existing(folder, TrustClass.DEVELOPMENT, url=address, migrates=False)
    old = databases.open_unmigrated(folder, TrustClass.DEVELOPMENT, url=address)
    try:
        assert old.schema_version == schema
        before = counts(old.engine)
        made = backup.write(old, tmp_path / "backup", now_ms=7)
        assert (made.schema_version, made.rows) == (
            schema,
            sum(before.values()) - before["challenges"],
        )
        assert counts(old.engine) == before
    finally:
        old.close()
    target = None
    if (url is None) == crosses:
        target = request.getfixturevalue("server").database()
    database = restored(prepared(tmp_path / "new", world.database), tmp_path / "backup", url=target)
    try:
        assert differences(database) == []
        after = counts(database.engine)
        for table, rows in before.items():
            expected = {"challenges": 0, "activity": rows + 1}.get(table, rows)
            assert after[table] == expected
        opened = released(database, tmp_path / "root", world.uuid, world.store.service_public_key)
        assert opened["env"] == [("RAW", RAW, False)]
    finally:
        database.close()


@pytest.mark.parametrize("schema", SCHEMAS[:-1])
def test_a_migration_that_fails_after_the_rows_leaves_no_store(
    tmp_path: pathlib.Path, schema: int, url: str | None
) -> None:
    """The last migration finds its table in the way, after all rows of the backup are in."""
    folder = folder_of_vectors(tmp_path / "restored")
    engine = engine_of(folder, url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE object_heads (id INTEGER)")
        with pytest.raises(StoreError, match=r"cannot be used: .*object_heads"):
            restored(folder, vector(schema), url=url)
        assert_no_store(folder, url)
        assert inspect(engine).get_table_names() == ["object_heads"]
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE object_heads")
    finally:
        engine.dispose()
    restored(folder, vector(schema), url=url).close()


def engine_of(folder: pathlib.Path, url: str | None) -> Engine:
    """A connection of somebody else to the database."""
    if url is None:
        return create_engine(f"sqlite:///{folder / databases.DATABASE_FILE}")
    return create_engine(database_url(url))
